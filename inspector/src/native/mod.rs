//! temporary
use crate::capture::cpu::join::{Foreign, Unwound};
use crate::capture::cpu::source::Registers;
use crate::process::Process;
use crate::process::maps::Mapping;
/// t
#[derive(Debug)]
pub struct Unwinder(Vec<Mapping>);
impl Unwinder {
    /// t
    pub fn new(_: &Process, mappings: &[Mapping]) -> Self {
        Unwinder(mappings.to_vec())
    }
}
impl Foreign for Unwinder {
    fn unwind(&mut self, start: Registers, _: &[u8], _: &mut dyn FnMut(u64) -> bool) -> Unwound {
        Unwound { pcs: vec![start.ip], ..Unwound::default() }
    }
    fn names(&mut self, _: u64) -> Vec<crate::capture::cpu::join::Named> {
        Vec::new()
    }
    fn is_code(&mut self, pc: u64) -> bool {
        self.0.iter().any(|m| m.executable && m.contains(pc))
    }
}
