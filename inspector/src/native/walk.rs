//! Walk of a copied stack by call frame information.

use symbols::addr::CodeAddr;
use symbols::arch::HOST;
use symbols::cfi::{CfiRegisters, Step};

use super::frame::{Place, Unwound};
use super::space::Space;

/// Maximum number of frames. A stack of 16 KiB has no more: each frame takes two words, or at least one.
const MAX_FRAMES: usize = 2048;

/// Walks from `start` over `stack`, whose first byte is at the stack pointer. The walk ends at a frame of Go,
/// at the end of the stack, or at the end of the copy.
pub(super) fn walk(
    space: &mut Space,
    start: super::frame::SampleRegisters,
    stack: &[u8],
    is_go: &mut dyn FnMut(u64) -> bool,
) -> Unwound {
    let mut word = |at: u64| -> Option<u64> {
        let from = usize::try_from(at.checked_sub(start.sp)?).ok()?;
        stack.get(from..from.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
    };
    let mut unwound = Unwound::default();
    let mut registers = CfiRegisters::new(HOST.columns(), start.ip, start.sp, start.bp);
    let mut exact = true;
    // A handler runs on the stack that it interrupted, or on the thread's only signal stack. So the stack is
    // left at most once for a lower one.
    let mut below = false;
    while unwound.places.len() < MAX_FRAMES {
        let pc = registers.ip();
        let address = if exact { pc } else { pc.wrapping_sub(1) };
        if !unwound.places.is_empty() && is_go(address) {
            let bp = registers.bp().unwrap_or_default();
            unwound.entered_go = Some(super::frame::SampleRegisters { ip: pc, sp: registers.sp(), bp });
            break;
        }
        // A word that is not a return address ends the walk.
        if !unwound.places.is_empty() && !space.is_code(address) {
            break;
        }
        unwound.places.push(Place { pc, exact });
        let row = space.find(address).and_then(|(file, link)| {
            file.row(if exact { CodeAddr::Pc(link) } else { CodeAddr::Return(link.plus(1)) })
        });
        let signal = row.as_ref().is_some_and(|row| row.is_signal());
        if signal && let Some(place) = unwound.places.last_mut() {
            // The code before this address made no call: the kernel made the handler return to this address.
            place.exact = true;
        }
        let step = match &row {
            Some(row) => row.step(&registers, &mut word),
            None => by_pointer(&registers, &mut word),
        };
        match step {
            Step::To(caller) => {
                if caller.sp() <= registers.sp() && std::mem::replace(&mut below, true) {
                    break;
                }
                registers = caller;
            }
            Step::End => {
                unwound.whole = true;
                break;
            }
            Step::Lost => break,
        }
        exact = signal;
    }
    unwound
}

/// Steps by frame pointer from code without call frame information: compiled at run time, or written in
/// assembly.
fn by_pointer(registers: &CfiRegisters, word: &mut dyn FnMut(u64) -> Option<u64>) -> Step {
    let mut step = || {
        let bp = registers.bp()?;
        // The first frame of a thread has no frame pointer (System V ABI, "Initial Stack and Register
        // State").
        if bp == 0 {
            return Some(Step::End);
        }
        if bp < registers.sp() {
            return None;
        }
        // The frame ends behind these two words, so the next one is above.
        let (next, back) = (word(bp)?, word(bp.checked_add(8)?)?);
        if back == 0 {
            return Some(Step::End);
        }
        Some(Step::To(CfiRegisters::new(registers.columns(), back, bp.checked_add(16)?, next)))
    };
    step().unwrap_or(Step::Lost)
}
