//! ELF files of native code: call frame information, symbols, DWARF, links to debug files. The bytes are a whole file, as small
//! ones with all of that exist.

use symbols::addr::{CodeAddr, LinkAddr};
use symbols::arch::HOST;
use symbols::cfi::{CfiRegisters, FrameTable, Step};
use symbols::image::Image;
use symbols::native::{Links, NativeSymbols, debug_path, demangle};

/// The bytes are an ELF file.
pub fn run(data: &[u8]) {
    let links = Links::read(&data.to_vec());
    if let Some(path) = links.build_id.as_deref().and_then(debug_path) {
        assert!(!path.contains(".."), "{path}");
    }
    if let Some(link) = links.debug {
        assert!(!link.name.contains(&b'/') && link.name != b"..");
    }
    let names = NativeSymbols::parse(Box::new(data.to_vec()), Some(Box::new(data.to_vec())), None);
    let file = data.to_vec();
    let sizes = NativeSymbols::sizes(&file, Some(&file), Some(&file));
    assert!(sizes.with_dwarf >= sizes.tables, "{sizes:?}");
    let Ok(image) = Image::parse(Box::new(data.to_vec())) else { return };
    let mut places = Vec::new();
    for segment in image.segments().iter().filter(|s| s.executable).take(4) {
        let step = (segment.file_size / 48).max(1);
        places.extend((0..48).map(|i| segment.start.plus(i * step)));
    }
    for &place in &places {
        let frames = names.frames(place);
        assert!(frames.len() <= 65, "{}", frames.len());
        for frame in frames {
            let _ = demangle(&frame.system_name);
        }
    }
    let mut table = FrameTable::load(image);
    for place in places {
        walk(&mut table, place, data);
    }
}

/// Steps as an unwinder does, over a stack that is the file.
fn walk(table: &mut FrameTable, place: LinkAddr, stack: &[u8]) {
    let sp = 0x7fff_0000_0000;
    let mut word = |at: u64| {
        let from = usize::try_from(at.checked_sub(sp)?).ok()?;
        stack.get(from..from.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
    };
    let mut registers = CfiRegisters::new(HOST.columns(), place.0, sp, sp + 64);
    let mut at = CodeAddr::Pc(place);
    for _ in 0..64 {
        let Some(row) = table.row(at) else { return };
        let Step::To(caller) = row.step(&registers, &mut word) else { return };
        assert!(caller.sp() > registers.sp() || (row.is_signal() && caller.sp() != registers.sp()));
        at = CodeAddr::Return(LinkAddr(caller.ip()));
        registers = caller;
    }
}
