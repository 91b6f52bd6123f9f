//! Call frame information of amd64 (System V ABI, figure 3.36), and rows for code that has none.

use crate::addr::{CodeAddr, LinkAddr};
use crate::arch::Columns;
use crate::cfi::Row;
use crate::cfi::row::{Cfa, Rule};

const RBX: usize = 3;
const RBP: usize = 6;
const RSP: usize = 7;
const RIP: usize = 16;

/// DWARF register numbers of amd64. Number 16 is the column of the return address.
pub(in crate::arch) const COLUMNS: Columns =
    Columns { count: 17, ip: RIP, sp: RSP, fp: RBP, kept: &[RBX, RBP, 12, 13, 14, 15] };

/// Code of a signal return: `mov $15, %rax` (or `%eax`) and `syscall`. A signal handler returns to this code.
const SIGRETURN: [&[u8]; 2] = [b"\x48\xc7\xc0\x0f\0\0\0\x0f\x05", b"\xb8\x0f\0\0\0\x0f\x05"];

/// Returns the row of known code that libraries and linkers write without call frame information.
pub(super) fn row_of_code(at: CodeAddr, read: &dyn Fn(LinkAddr, usize) -> Option<Vec<u8>>) -> Option<Row> {
    let code = read(at.addr(), 16)?;
    match at {
        // Signal handler that returns to this code, for example in musl.
        CodeAddr::Return(_) => SIGRETURN.iter().any(|bytes| code.starts_with(bytes)).then(of_sigreturn),
        CodeAddr::Pc(pc) => {
            // Thread in the system call `rt_sigreturn`, after the last instruction of the function.
            let is_behind = |bytes: &&[u8]| {
                let before = LinkAddr(pc.0.wrapping_sub(bytes.len() as u64));
                read(before, bytes.len()).is_some_and(|code| code == **bytes)
            };
            if SIGRETURN.iter().any(is_behind) {
                return Some(of_sigreturn());
            }
            // Jump to a function of another file: [endbr64]; [bnd] jmp *place(%rip)
            let code = code.strip_prefix(b"\xf3\x0f\x1e\xfa").unwrap_or(&code);
            let code = code.strip_prefix(b"\xf2").unwrap_or(code);
            code.starts_with(b"\xff\x25").then(of_stub)
        }
    }
}

/// Returns the row of code that has only the return address on the stack.
fn of_stub() -> Row {
    Row::new(&COLUMNS, Cfa::Register(RSP as u8, 8), [(RIP as u8, Rule::At(-8))].into(), false)
}

/// Returns the row of the system call `rt_sigreturn`. The stack pointer is at a `ucontext_t`. This struct has
/// the registers from byte 40 on, in the order of `ORDER` (`struct sigcontext` of Linux).
fn of_sigreturn() -> Row {
    const ORDER: [u8; COLUMNS.count] = [8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16];
    let at = |offset: u8| -> Box<[u8]> {
        // Operand as a signed LEB128 of two bytes.
        Box::new([gimli::DW_OP_breg7.0, offset & 0x7f | 0x80, offset >> 7])
    };
    let rules = ORDER.iter().zip(0u8..).map(|(&register, i)| (register, Rule::AtExpression(at(40 + 8 * i))));
    let [breg, low, high] = [gimli::DW_OP_breg7.0, 160 & 0x7f | 0x80, 160 >> 7];
    let cfa = Cfa::Expression(Box::new([breg, low, high, gimli::DW_OP_deref.0]));
    Row::new(&COLUMNS, cfa, rules.collect(), true)
}
