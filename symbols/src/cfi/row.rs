//! Row of call frame information for one instruction, and the step to the caller by this row.

use gimli::{
    CfaRule, Encoding, EndianSlice, Evaluation, EvaluationResult, Expression, Format, LittleEndian, Location,
    Piece, Register, RegisterRule, UnwindExpression, UnwindTableRow, Value,
};

use crate::arch::{Columns, MAX_COLUMNS};

type Bytes<'b> = EndianSlice<'b, LittleEndian>;

/// Maximum length of an expression in bytes. Compilers and libraries write 12 bytes.
const MAX_EXPRESSION: usize = 256;
/// Maximum number of operations of an expression that are executed.
const MAX_OPERATIONS: u32 = 256;

/// Registers of a frame, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CfiRegisters {
    columns: &'static Columns,
    /// Value of each register; 0 if unknown.
    values: [u64; MAX_COLUMNS],
    /// Bit set of the known registers, one bit for each.
    known: u64,
}

impl CfiRegisters {
    /// Registers with only instruction pointer, stack pointer and frame pointer known.
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

    /// Instruction pointer: the address at which the frame continues.
    pub fn ip(&self) -> u64 {
        self.value(self.columns.ip)
    }

    /// Stack pointer.
    pub fn sp(&self) -> u64 {
        self.value(self.columns.sp)
    }

    /// Value of the frame pointer register, whatever the code keeps in it. `None` if unknown.
    pub fn bp(&self) -> Option<u64> {
        self.get(self.columns.fp)
    }

    fn value(&self, number: usize) -> u64 {
        self.values.get(number).copied().unwrap_or_default()
    }

    /// Register numbers of the machine.
    pub fn columns(&self) -> &'static Columns {
        self.columns
    }

    /// Returns the value of a register by its DWARF number. `None` if unknown.
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

/// Result of a step to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Registers of the caller.
    To(CfiRegisters),
    /// End of the stack: nothing called this function, because it is the first of its thread.
    End,
    /// Caller not found: a register or a word of the stack is unknown or makes no sense.
    Lost,
}

/// Rule for the CFA (canonical frame address): the caller's stack pointer before the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cfa {
    Register(u8, i64),
    Expression(Box<[u8]>),
}

/// Rule for the caller's value of a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rule {
    Undefined,
    Same,
    /// Value in memory, at this offset from the CFA.
    At(i64),
    /// Value equal to the CFA plus this offset.
    Is(i64),
    In(u8),
    AtExpression(Box<[u8]>),
    IsExpression(Box<[u8]>),
}

/// Row of call frame information: all rules at one instruction.
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

    /// Returns true if a signal interrupted the caller at exactly its instruction pointer. The caller made no
    /// call then.
    pub fn is_signal(&self) -> bool {
        self.signal
    }

    /// Size of the row in memory, in bytes.
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

    /// Converts a row of `gimli`. `None` if the row contains rules that no compiler writes.
    pub(super) fn of<'b>(
        columns: &'static Columns,
        row: &UnwindTableRow<usize>,
        section: &gimli::EhFrame<Bytes<'b>>,
        signal: bool,
        returns_by: Register,
    ) -> Option<Self> {
        // Condition for all rules: the return address is in the column of the instruction pointer.
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
            // Exclusion of registers that are not followed, such as vector registers.
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

    /// Computes the registers of the caller. `word` reads the memory of the thread.
    pub fn step(&self, registers: &CfiRegisters, word: &mut dyn FnMut(u64) -> Option<u64>) -> Step {
        self.caller(registers, word).unwrap_or(Step::Lost)
    }

    fn caller(&self, registers: &CfiRegisters, word: &mut dyn FnMut(u64) -> Option<u64>) -> Option<Step> {
        let columns = self.columns;
        // Check for the end of the stack, which needs no memory.
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
        // Callee-saved registers, which need no rule.
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
                // Sanity check: a frame has at least its return address, so the caller's stack pointer must
                // be higher, whatever rule gave it. Signal handlers can have a stack of their own at any
                // address.
                let up = caller.get(columns.sp)?;
                (up > sp || (up < sp && self.signal)).then_some(Step::To(caller))
            }
        }
    }
}

/// Converts the number of a register. `None` if the register is not followed.
fn number(columns: &Columns, register: Register) -> Option<u8> {
    u8::try_from(register.0).ok().filter(|&n| usize::from(n) < columns.count)
}

fn bytes<'b>(expression: &UnwindExpression<usize>, section: &gimli::EhFrame<Bytes<'b>>) -> Option<Box<[u8]>> {
    let Expression(bytes): Expression<Bytes<'b>> = expression.get(section).ok()?;
    (bytes.len() <= MAX_EXPRESSION).then(|| bytes.slice().into())
}

/// Evaluates an expression; `initial`, if any, is the first value on its stack.
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
