//! ELF images, and what is found in them by searching: section names, build info, symbols, relocations.

use symbols::addr::LinkAddr;
use symbols::globals::{VARIABLES, from_symtab};
use symbols::image::Image;
use symbols::pclntab::header;
use symbols::{buildinfo, program, sections};

use crate::base::{self, BASES};
use crate::input::Input;

/// The bytes are an ELF file, or changes to one.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let image = match input.u8() {
        kind @ 0..=1 => base::image(BASES[usize::from(kind)].patched(&mut input)),
        _ => Image::parse(Box::new(data.to_vec())).ok(),
    };
    if let Some(image) = image {
        look(&image, &mut input);
    }
}

fn look(image: &Image, input: &mut Input<'_>) {
    for section in sections::read(image).unwrap_or_default() {
        let _ = buildinfo::at(image, section.addr);
    }
    let _ = buildinfo::find(image);
    let _ = from_symtab(image, VARIABLES);
    let _ = header::candidates(image);
    let _ = program::identify(image);
    for segment in image.segments() {
        for addr in
            [segment.start, segment.start.plus(segment.mem_size - 1), segment.start.plus(segment.file_size)]
        {
            let _ = image.word(addr);
            let _ = image.read_vec(addr, 1 << 16);
            let _ = image.read_relocated(addr, 4096);
        }
    }
    for _ in 0..4 {
        let addr = LinkAddr(input.u64());
        let _ = image.read(addr, &mut [0; 64]);
        let _ = image.read_relocated(addr, usize::from(input.u16()));
    }
}
