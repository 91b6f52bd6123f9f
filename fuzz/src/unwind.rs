//! The unwinder over arbitrary stacks, with the function table of a real program.

use std::sync::LazyLock;

use inspector::arch::machine;
use inspector::memory::RecordedMemory;
use inspector::runtime::code::CodeCache;
use inspector::runtime::modules::{Module, Modules};
use inspector::runtime::snapshot::stacks::StackWalker;
use inspector::runtime::unwind::{StackCopy, Start, Walk, walk};
use symbols::addr::{LoadBias, RuntimeAddr};
use symbols::image::Arch;

use crate::base::BASES;
use crate::input::Input;

static MODULES: LazyLock<[Modules; 2]> = LazyLock::new(|| {
    [(0, LoadBias(0)), (1, LoadBias(0x55aa_0000_0000))].map(|(i, bias)| {
        let base = &BASES[i];
        let (image, pclntab) = base.tables();
        Modules::single(Module { name: String::new(), image, pclntab, data: base.module.clone(), bias })
    })
});

/// Where the stack is.
const STACK: u64 = 0xc000_0100_0000;

/// The bytes choose a program, registers, and the words of a stack.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let modules = &MODULES[usize::from(kind & 1)];
    let pc = code_address(modules, &mut input);
    let top = if kind & 2 == 0 { 0 } else { input.u64() };
    let skip = if kind & 4 == 0 { u64::from(input.u8()) * 8 } else { input.u64() };
    let stack = words(modules, &mut input);
    let hi = STACK.wrapping_add(stack.len() as u64).wrapping_add(top);
    let start =
        Start { pc, sp: STACK.wrapping_add(skip), hi, interrupted: kind & 8 != 0, syscall: kind & 16 != 0 };
    let machine = machine(Arch::Amd64).expect("a machine");
    let mut code = CodeCache::new(modules);
    let mut found = Walk::default();
    let mut copy = StackCopy { start: STACK, bytes: &stack };
    let end = walk(machine, &mut code, &mut copy, start, &mut found);
    // Each frame is at least a word of the stack.
    assert!(found.pcs.len() <= stack.len() / 8 + 2, "{} frames, {end:?}", found.pcs.len());
    let memory = RecordedMemory::default().with(STACK, stack.clone());
    let mut walker = StackWalker::new(machine, code);
    let one = walker.walk_one(&memory, start);
    let first = stack.get(..stack.len() / 2).unwrap_or_default();
    let _ = walker.walk_window(&memory, start, first);
    let starts = [(0, start), (1, Start { sp: start.sp.wrapping_add(8), ..start })];
    let mut count = 0;
    walker.walk_many(&memory, &starts, |_, _| count += 1).expect("memory that is there");
    assert_eq!(count, 2);
    let shape = walker.shapes.get(one.shape).expect("what was kept");
    assert!(shape.pcs.len() <= stack.len() / 8 + 2);
}

/// Addresses in code, most of them.
pub fn code_address(modules: &Modules, input: &mut Input<'_>) -> u64 {
    let main = modules.main();
    match input.u8() {
        0xff => input.u64(),
        0xfe => 0,
        more => {
            let index = input.u16() as u32 % main.pclntab.len().max(1);
            let entry = main.pclntab.func(index).map_or(0, |f| main.bias.runtime(f.entry()).0);
            RuntimeAddr(entry).plus(u64::from(more)).0
        }
    }
}

/// Words of a stack: code addresses, addresses in the stack, small numbers, anything.
pub fn words(modules: &Modules, input: &mut Input<'_>) -> Vec<u8> {
    let mut stack = Vec::new();
    while !input.is_empty() && stack.len() < 1 << 16 {
        let word = match input.u8() {
            0..=0x7f => code_address(modules, input),
            0x80..=0xbf => STACK + u64::from(input.u16()),
            0xc0..=0xdf => u64::from(input.u8()),
            0xe0..=0xef => {
                let count = usize::from(input.u8());
                stack.resize(stack.len() + 8 * count, 0);
                continue;
            }
            _ => input.u64(),
        };
        stack.extend(word.to_le_bytes());
    }
    stack
}
