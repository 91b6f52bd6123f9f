//! What call frame information says of one instruction, and the step to the caller by it.

use gimli::{
    CfaRule, Encoding, EndianSlice, Evaluation, EvaluationResult, Expression, Format, LittleEndian, Location,
    Piece, Register, RegisterRule, UnwindExpression, UnwindTableRow, Value,
};

use crate::arch::{Columns, MAX_COLUMNS};

type Bytes<'b> = EndianSlice<'b, LittleEndian>;

/// Longer than what compilers and libraries write, which is 12 bytes.
const MAX_EXPRESSION: usize = 256;
/// Operations of an expression that are carried out.
const MAX_OPERATIONS: u32 = 256;

/// CfiRegisters of a frame, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CfiRegisters {
    columns: &'static Columns,
    /// 0 where unknown.
    values: [u64; MAX_COLUMNS],
    /// A bit for each.
    known: u64,
}

impl CfiRegisters {
    /// The instruction pointer, the stack pointer and the frame pointer; the others are unknown.
    pub fn new(columns: &'static Columns, ip: u64, sp: u64, bp: u64) -> Self {
        let mut all = Self::unknown(columns);
        for (number, value) in [(columns.ip, ip), (columns.sp, sp), (columns.fp, bp)] {
            all.set(number, Some(value));
        }
        all
    }

    fn unknown(columns: &'static Columns) -> Self {
        CfiRegisters { columns, values: [0; MAX_COLUMNS], known: 0 }
    }

    /// The instruction pointer: where the frame goes on.
    pub fn ip(&self) -> u64 {
        self.value(self.columns.ip)
    }

    /// The stack pointer.
    pub fn sp(&self) -> u64 {
        self.value(self.columns.sp)
    }

    /// The frame pointer, or what else was kept in its register; `None` where it is lost.
    pub fn bp(&self) -> Option<u64> {
        self.get(self.columns.fp)
    }

    fn value(&self, number: usize) -> u64 {
        self.values.get(number).copied().unwrap_or_default()
    }

    /// The numbers that its registers have.
    pub fn columns(&self) -> &'static Columns {
        self.columns
    }

    /// A register by DWARF's number for it.
    pub fn get(&self, number: usize) -> Option<u64> {
        let value = self.values.get(number).copied()?;
        (self.known >> number & 1 == 1).then_some(value)
    }

    fn set(&mut self, number: usize, value: Option<u64>) {
        if let Some(place) = self.values.get_mut(number) {
            *place = value.unwrap_or_default();
            self.known = self.known & !(1 << number) | u64::from(value.is_some()) << number;
        }
    }
}

/// Where a step leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To the caller.
    To(CfiRegisters),
    /// Nothing called this function: it is the first of its thread.
    End,
    /// To a caller that cannot be found: a register or a word of the stack is not known, or makes no sense.
    Lost,
}

/// Where the caller's stack pointer was, before the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cfa {
    Register(u8, i64),
    Expression(Box<[u8]>),
}

/// Where the caller's value of a register is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rule {
    Undefined,
    Same,
    /// In memory, that far from the CFA.
    At(i64),
    /// It is the CFA plus this.
    Is(i64),
    In(u8),
    AtExpression(Box<[u8]>),
    IsExpression(Box<[u8]>),
}

/// What holds at an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    columns: &'static Columns,
    cfa: Cfa,
    rules: Box<[(u8, Rule)]>,
    signal: bool,
}

impl Row {
    pub(crate) fn new(columns: &'static Columns, cfa: Cfa, rules: Box<[(u8, Rule)]>, signal: bool) -> Self {
        Row { columns, cfa, rules, signal }
    }

    /// The caller did not call: a signal interrupted it, at exactly its instruction pointer.
    pub fn is_signal(&self) -> bool {
        self.signal
    }

    /// What it takes in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        let expression = |rule: &Rule| match rule {
            Rule::AtExpression(bytes) | Rule::IsExpression(bytes) => bytes.len(),
            _ => 0,
        };
        let cfa = match &self.cfa {
            Cfa::Expression(bytes) => bytes.len(),
            Cfa::Register(..) => 0,
        };
        let rules: usize = self.rules.iter().map(|(_, rule)| expression(rule)).sum();
        size_of::<Row>() + cfa + rules + size_of_val(&*self.rules)
    }

    /// Takes over a row; `None` where it holds what no compiler writes.
    pub(super) fn of<'b>(
        columns: &'static Columns,
        row: &UnwindTableRow<usize>,
        section: &gimli::EhFrame<Bytes<'b>>,
        signal: bool,
        returns_by: Register,
    ) -> Option<Self> {
        // The rules of all other columns are those of this one.
        if usize::from(returns_by.0) != columns.ip {
            return None;
        }
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                Cfa::Register(number(columns, *register)?, *offset)
            }
            CfaRule::Expression(expression) => Cfa::Expression(bytes(expression, section)?),
        };
        let mut rules = Vec::with_capacity(8);
        for (register, rule) in row.registers() {
            // Vector registers do not matter.
            let Some(register) = number(columns, *register) else { continue };
            let rule = match rule {
                RegisterRule::Undefined => Rule::Undefined,
                RegisterRule::SameValue => Rule::Same,
                RegisterRule::Offset(n) => Rule::At(*n),
                RegisterRule::ValOffset(n) => Rule::Is(*n),
                RegisterRule::Register(other) => Rule::In(number(columns, *other)?),
                RegisterRule::Expression(e) => Rule::AtExpression(bytes(e, section)?),
                RegisterRule::ValExpression(e) => Rule::IsExpression(bytes(e, section)?),
                RegisterRule::Architectural | RegisterRule::Constant(_) => return None,
            };
            rules.push((register, rule));
        }
        Some(Row { columns, cfa, rules: rules.into(), signal })
    }

    /// The registers of the caller. `word` reads the memory of the thread.
    pub fn step(&self, registers: &CfiRegisters, word: &mut dyn FnMut(u64) -> Option<u64>) -> Step {
        self.caller(registers, word).unwrap_or(Step::Lost)
    }

    fn caller(&self, registers: &CfiRegisters, word: &mut dyn FnMut(u64) -> Option<u64>) -> Option<Step> {
        let columns = self.columns;
        // That alone needs no memory.
        let ends =
            |(register, rule): &(u8, Rule)| usize::from(*register) == columns.ip && *rule == Rule::Undefined;
        if self.rules.iter().any(ends) {
            return Some(Step::End);
        }
        let sp = registers.get(columns.sp)?;
        let cfa = match &self.cfa {
            Cfa::Register(register, offset) => {
                registers.get(usize::from(*register))?.wrapping_add_signed(*offset)
            }
            Cfa::Expression(expression) => evaluate(expression, None, registers, word)?,
        };
        let mut caller = CfiRegisters::unknown(columns);
        // What functions leave as they found it needs no rule.
        for &same in columns.kept {
            caller.set(same, registers.get(same));
        }
        caller.set(columns.sp, Some(cfa));
        for (register, rule) in &self.rules {
            let value = match rule {
                Rule::Undefined => None,
                Rule::Same => registers.get(usize::from(*register)),
                Rule::At(n) => word(cfa.wrapping_add_signed(*n)),
                Rule::Is(n) => Some(cfa.wrapping_add_signed(*n)),
                Rule::In(other) => registers.get(usize::from(*other)),
                Rule::AtExpression(e) => evaluate(e, Some(cfa), registers, word).and_then(&mut *word),
                Rule::IsExpression(e) => evaluate(e, Some(cfa), registers, word),
            };
            caller.set(usize::from(*register), value);
        }
        match caller.get(columns.ip)? {
            0 => Some(Step::End),
            _ => {
                // A frame has its return address at least, and whatever rule gave the stack pointer, it is one further up.
                // Signals may have a stack of their own, anywhere.
                let up = caller.get(columns.sp)?;
                (up > sp || (up < sp && self.signal)).then_some(Step::To(caller))
            }
        }
    }
}

/// The number of a register that is followed.
fn number(columns: &Columns, register: Register) -> Option<u8> {
    u8::try_from(register.0).ok().filter(|&n| usize::from(n) < columns.count)
}

fn bytes<'b>(expression: &UnwindExpression<usize>, section: &gimli::EhFrame<Bytes<'b>>) -> Option<Box<[u8]>> {
    let Expression(bytes): Expression<Bytes<'b>> = expression.get(section).ok()?;
    (bytes.len() <= MAX_EXPRESSION).then(|| bytes.slice().into())
}

/// The value of an expression, which begins with `initial` on its stack.
fn evaluate(
    expression: &[u8],
    initial: Option<u64>,
    registers: &CfiRegisters,
    word: &mut dyn FnMut(u64) -> Option<u64>,
) -> Option<u64> {
    let encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };
    let mut evaluation: Evaluation<Bytes<'_>> =
        Expression(Bytes::new(expression, LittleEndian)).evaluation(encoding);
    evaluation.set_max_iterations(MAX_OPERATIONS);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial);
    }
    let mut result = evaluation.evaluate().ok()?;
    for _ in 0..MAX_OPERATIONS {
        result = match result {
            EvaluationResult::Complete => {
                return match evaluation.result().as_slice() {
                    [Piece { location: Location::Address { address }, .. }] => Some(*address),
                    [Piece { location: Location::Value { value: Value::Generic(value) }, .. }] => {
                        Some(*value)
                    }
                    _ => None,
                };
            }
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = registers.get(usize::from(register.0))?;
                evaluation.resume_with_register(Value::Generic(value)).ok()?
            }
            EvaluationResult::RequiresMemory { address, size: 8, space: None, .. } => {
                evaluation.resume_with_memory(Value::Generic(word(address)?)).ok()?
            }
            _ => return None,
        };
    }
    None
}
