//! Function table and moduledata: a program with changes is recognised, and its functions are asked everything.

use symbols::addr::{CodeAddr, LinkAddr};
use symbols::pclntab::args::arg_tokens;
use symbols::pclntab::inline::logical_frames_and_pc;
use symbols::pclntab::{Pclntab, pcvalue};
use symbols::{moduledata, program};

use crate::base::{self, BASES};
use crate::input::Input;

/// The bytes say what to change in which program, then which places to look up.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let base = &BASES[usize::from(input.u8() & 1)];
    let file = base.patched(&mut input);
    let Some(image) = base::image(file) else { return };
    let found = program::recognise(&image).and_then(|p| p.module);
    let found = found.or_else(|| moduledata::find(&image, None));
    // Changes that are noticed are the easy ones: look at the tables all the same, as if they were not.
    let (header, module) = found.unwrap_or_else(|| (base.header, base.module.clone()));
    let Ok(table) = Pclntab::load(&image, &header, &module) else { return };
    let _ = table.find("main.main");
    let first = input.below(table.len() as usize) as u32;
    // The changed part of the table and the records is its beginning.
    for index in (0..64).chain(first..first.saturating_add(8)) {
        let Some(function) = table.func(index) else { continue };
        let size = function.end().since(function.entry()).unwrap_or(0);
        let _ = format!("{function:?}");
        let places = [0, 1, size / 2, size.wrapping_sub(1), u64::from(input.u16())];
        for pc in places.map(|at| function.entry().plus(at)) {
            let _ = table.lookup(pc);
            let _ = function.sp_delta(pc);
            let _ = function.file_line(CodeAddr::Return(pc).lookup(function.entry()));
            let _ = (0..6).map(|i| function.pcdata(i, pc)).max();
            let _ = (0..12).filter_map(|i| function.funcdata(i)).max();
            let _ = arg_tokens(&image, function, pc);
            let (frames, _) = logical_frames_and_pc(&image, function, pc);
            assert!(!frames.is_empty());
        }
    }
    let (entry, quantum) = (LinkAddr(input.u64()), input.u8());
    let _ = pcvalue::value_at(input.rest(), entry, LinkAddr(u64::MAX), quantum);
}
