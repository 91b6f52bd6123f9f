//! The build info blob by itself: its header, its strings, the lines of the module list.

use symbols::addr::LinkAddr;
use symbols::image::Image;
use symbols::version::GoVersion;
use symbols::{buildinfo, program};

use crate::input::Input;

/// Where the blob is in the file.
const AT: usize = 128;

/// What the linker puts around the list.
const BEGIN: &[u8] = b"\x30\x77\xaf\x0c\x92\x74\x08\x02\x41\xe1\xc1\x07\xe6\xd6\x18\xe6";
const END: &[u8] = b"\xf9\x32\x43\x31\x86\x18\x20\x72\x00\x82\x42\x10\x41\x16\xd8\xf2";

/// The bytes are what follows the blob's magic. An even first byte stands for a right header, version and framing, so
/// that the rest is the module list; of those, every other one for a version that is none.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let (lines, named) = (kind & 1 == 0, kind & 2 == 0);
    let mut blob = b"\xff Go buildinf:".to_vec();
    if lines {
        blob.extend([8, 2]);
        blob.resize(32, 0);
        blob.extend(if named { b"\x08go1.26.3" } else { b"\x08nonsense" });
        let len = input.rest().len() + 33;
        blob.extend([len as u8 | 0x80, (len >> 7) as u8 | 0x80, (len >> 14) as u8 & 0x7f]);
        blob.extend([BEGIN, input.rest(), b"\n", END].concat());
    } else {
        blob.extend(input.rest());
    }
    let file = elf(&blob);
    let Ok(image) = Image::parse(Box::new(file)) else { return };
    let found = buildinfo::find(&image);
    assert_eq!(found, buildinfo::at(&image, LinkAddr(AT as u64)).or_else(|| found.clone()));
    let _ = program::identify(&image);
    let Some(info) = found else {
        assert!(!lines || input.rest().len() > 1 << 20);
        return;
    };
    assert!(!lines || GoVersion::parse(&info.version).is_some() == named);
    assert!(info.deps.len() <= 1 << 16 && info.settings.len() <= 1 << 12);
    let _ = info.setting("-race");
}

/// A file of one writable segment.
fn elf(blob: &[u8]) -> Vec<u8> {
    let mut file = vec![0u8; AT];
    let size = ((AT + blob.len()) as u64).to_le_bytes();
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (file[16], file[18], file[32], file[54], file[56]) = (2, 62, 64, 56, 1);
    (file[64], file[68]) = (1, 6);
    file[96..104].copy_from_slice(&size);
    file[104..112].copy_from_slice(&size);
    file.extend(blob);
    file
}
