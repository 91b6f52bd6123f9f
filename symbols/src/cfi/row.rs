//! What call frame information says of one instruction, and the step to the caller by it.

use gimli::{
    CfaRule, Encoding, EndianSlice, Evaluation, EvaluationResult, Expression, Format, LittleEndian, Location,
    Piece, Register, RegisterRule, UnwindExpression, UnwindTableRow, Value,
};

type Bytes<'b> = EndianSlice<'b, LittleEndian>;

/// DWARF's numbers of registers of amd64 (System V ABI, figure 3.36): 16 is where a function returns to.
const REGISTERS: usize = 17;
const RBX: usize = 3;
const RBP: usize = 6;
const RSP: usize = 7;
const R12: usize = 12;
const R15: usize = 15;
const RIP: usize = 16;

/// Longer than what compilers and libraries write, which is 12 bytes.
const MAX_EXPRESSION: usize = 256;
/// Operations of an expression that are carried out.
const MAX_OPERATIONS: u32 = 256;

/// Registers of a frame, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registers {
    /// 0 where unknown.
    values: [u64; REGISTERS],
    /// A bit for each.
    known: u32,
}

impl Registers {
    /// The instruction pointer, the stack pointer and the frame pointer; the others are unknown.
    pub fn new(ip: u64, sp: u64, bp: u64) -> Self {
        let mut all = Self::unknown();
        for (number, value) in [(RIP, ip), (RSP, sp), (RBP, bp)] {
            all.set(number, Some(value));
        }
        all
    }

    fn unknown() -> Self {
        Registers { values: [0; REGISTERS], known: 0 }
    }

    /// The instruction pointer: where the frame goes on.
    pub fn ip(&self) -> u64 {
        self.values[RIP]
    }

    /// The stack pointer.
    pub fn sp(&self) -> u64 {
        self.values[RSP]
    }

    /// The frame pointer, or what else was kept in its register; `None` where it is lost.
    pub fn bp(&self) -> Option<u64> {
        self.get(RBP)
    }

    /// A register by DWARF's number for it: 3 is rbx, 12 to 15 are r12 to r15.
    pub fn get(&self, number: usize) -> Option<u64> {
        let value = self.values.get(number).copied()?;
        (self.known >> number & 1 == 1).then_some(value)
    }

    fn set(&mut self, number: usize, value: Option<u64>) {
        if let Some(place) = self.values.get_mut(number) {
            *place = value.unwrap_or_default();
            self.known = self.known & !(1 << number) | u32::from(value.is_some()) << number;
        }
    }
}

/// Where a step leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To the caller.
    To(Registers),
    /// Nothing called this function: it is the first of its thread.
    End,
    /// To a caller that cannot be found: a register or a word of the stack is not known, or makes no sense.
    Lost,
}

/// Where the caller's stack pointer was, before the call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cfa {
    Register(u8, i64),
    Expression(Box<[u8]>),
}

/// Where the caller's value of a register is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
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
    cfa: Cfa,
    rules: Box<[(u8, Rule)]>,
    signal: bool,
}

impl Row {
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
        row: &UnwindTableRow<usize>,
        section: &gimli::EhFrame<Bytes<'b>>,
        signal: bool,
        returns_by: Register,
    ) -> Option<Self> {
        // The rules of all other columns are those of this one.
        if usize::from(returns_by.0) != RIP {
            return None;
        }
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => Cfa::Register(number(*register)?, *offset),
            CfaRule::Expression(expression) => Cfa::Expression(bytes(expression, section)?),
        };
        let mut rules = Vec::with_capacity(8);
        for (register, rule) in row.registers() {
            // Vector registers do not matter.
            let Some(register) = number(*register) else { continue };
            let rule = match rule {
                RegisterRule::Undefined => Rule::Undefined,
                RegisterRule::SameValue => Rule::Same,
                RegisterRule::Offset(n) => Rule::At(*n),
                RegisterRule::ValOffset(n) => Rule::Is(*n),
                RegisterRule::Register(other) => Rule::In(number(*other)?),
                RegisterRule::Expression(e) => Rule::AtExpression(bytes(e, section)?),
                RegisterRule::ValExpression(e) => Rule::IsExpression(bytes(e, section)?),
                RegisterRule::Architectural | RegisterRule::Constant(_) => return None,
            };
            rules.push((register, rule));
        }
        Some(Row { cfa, rules: rules.into(), signal })
    }

    /// That of code which has nothing on the stack but where it returns to.
    pub(super) fn of_stub() -> Self {
        Row { cfa: Cfa::Register(RSP as u8, 8), rules: [(RIP as u8, Rule::At(-8))].into(), signal: false }
    }

    /// That of a system call `rt_sigreturn`: the stack pointer is at a `ucontext_t`, which has the registers in this order from
    /// its byte 40 on (`struct sigcontext` of Linux).
    pub(super) fn of_sigreturn() -> Self {
        const ORDER: [u8; REGISTERS] = [8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16];
        let at = |offset: u8| -> Box<[u8]> {
            // As a signed LEB128 of two bytes.
            Box::new([gimli::DW_OP_breg7.0, offset & 0x7f | 0x80, offset >> 7])
        };
        let rules =
            ORDER.iter().zip(0u8..).map(|(&register, i)| (register, Rule::AtExpression(at(40 + 8 * i))));
        let [breg, low, high] = [gimli::DW_OP_breg7.0, 160 & 0x7f | 0x80, 160 >> 7];
        let cfa = Cfa::Expression(Box::new([breg, low, high, gimli::DW_OP_deref.0]));
        Row { cfa, rules: rules.collect(), signal: true }
    }

    /// The registers of the caller. `word` reads the memory of the thread.
    pub fn step(&self, registers: &Registers, word: &mut dyn FnMut(u64) -> Option<u64>) -> Step {
        self.caller(registers, word).unwrap_or(Step::Lost)
    }

    fn caller(&self, registers: &Registers, word: &mut dyn FnMut(u64) -> Option<u64>) -> Option<Step> {
        // That alone needs no memory.
        if self.rules.contains(&(RIP as u8, Rule::Undefined)) {
            return Some(Step::End);
        }
        let sp = registers.get(RSP)?;
        let cfa = match &self.cfa {
            Cfa::Register(register, offset) => {
                registers.get(usize::from(*register))?.wrapping_add_signed(*offset)
            }
            Cfa::Expression(expression) => evaluate(expression, None, registers, word)?,
        };
        let mut caller = Registers::unknown();
        // What functions leave as they found it needs no rule.
        for same in [RBX, RBP].into_iter().chain(R12..=R15) {
            caller.set(same, registers.get(same));
        }
        caller.set(RSP, Some(cfa));
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
        match caller.get(RIP)? {
            0 => Some(Step::End),
            _ => {
                // A frame has its return address at least, and whatever rule gave the stack pointer, it is one further up.
                // Signals may have a stack of their own, anywhere.
                let up = caller.get(RSP)?;
                (up > sp || (up < sp && self.signal)).then_some(Step::To(caller))
            }
        }
    }
}

/// The number of a register that is followed.
fn number(register: Register) -> Option<u8> {
    u8::try_from(register.0).ok().filter(|&n| usize::from(n) < REGISTERS)
}

fn bytes<'b>(expression: &UnwindExpression<usize>, section: &gimli::EhFrame<Bytes<'b>>) -> Option<Box<[u8]>> {
    let Expression(bytes): Expression<Bytes<'b>> = expression.get(section).ok()?;
    (bytes.len() <= MAX_EXPRESSION).then(|| bytes.slice().into())
}

/// The value of an expression, which begins with `initial` on its stack.
fn evaluate(
    expression: &[u8],
    initial: Option<u64>,
    registers: &Registers,
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
