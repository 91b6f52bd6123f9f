//! Rules of amd64: a call pushes the return address, and the frame lies below it.

mod calls;
mod convert;
mod exp;
#[cfg(target_arch = "x86_64")]
pub(crate) mod host;
mod signals;

use super::{CallTarget, Machine};

/// Rules of amd64 for [`Machine`].
#[derive(Debug)]
pub(super) struct Amd64;

/// Upper limit of user addresses: half of the 48-bit range. The other half is the kernel's.
const MAX_ADDR: u64 = 1 << 47;

impl Machine for Amd64 {
    fn frame_end(&self, sp: u64, delta: u32) -> Option<u64> {
        sp.checked_add(u64::from(delta) + 8)
    }

    fn return_slot(&self, frame_end: u64) -> u64 {
        frame_end.wrapping_sub(8)
    }

    fn args(&self, frame_end: u64) -> u64 {
        frame_end
    }

    fn longest_call(&self) -> usize {
        8
    }

    fn call_before(&self, code: &[u8], ret: u64) -> Option<CallTarget> {
        calls::call_before(code, ret)
    }

    fn interrupted(&self, context: &[u8]) -> Option<(u64, u64)> {
        signals::interrupted(context)
    }

    fn context_size(&self) -> usize {
        signals::CONTEXT_SIZE
    }

    fn is_sigreturn(&self, code: &[u8]) -> bool {
        signals::is_sigreturn(code)
    }

    fn longest_sigreturn(&self) -> usize {
        signals::LONGEST_SIGRETURN
    }

    fn racecall_slot(&self, sp: u64) -> Option<u64> {
        // The system stack begins with this call, aligned as C requires.
        (sp & !15).checked_sub(8)
    }

    fn entry_functions(&self) -> &'static [&'static [u8]] {
        &[b"_rt0_amd64", b"_rt0_amd64_linux"]
    }

    fn max_addr(&self) -> u64 {
        MAX_ADDR
    }

    fn arena_offset(&self) -> u64 {
        MAX_ADDR
    }

    fn exp_of_negative(&self, x: f64) -> f64 {
        exp::exp_of_negative(x)
    }

    fn float_to_uint64(&self, value: f64) -> u64 {
        convert::float_to_uint64(value)
    }
}
