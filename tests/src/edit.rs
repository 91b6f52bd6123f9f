//! Edits of a built ELF executable, as post-processing tools make them in practice.

use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};

/// Makes the file look as if it had no section headers: loaders do not need them.
///
/// # Errors
///
/// Returns an error if the bytes are not a 64-bit ELF file.
pub(crate) fn remove_section_headers(image: &mut [u8], path: &Path) -> Result<()> {
    check(image, path)?;
    zero(image, 40..48); // e_shoff
    zero(image, 60..64); // e_shnum, e_shstrndx
    Ok(())
}

/// Overwrites the linker's build info blob: magic, flags, version and module information.
///
/// # Errors
///
/// Returns an error if the bytes are not a 64-bit ELF file or have no blob.
pub(crate) fn wipe_build_info(image: &mut [u8], path: &Path) -> Result<()> {
    const MAGIC: &[u8] = b"\xff Go buildinf:";
    check(image, path)?;
    // The blob is 16-aligned; the same bytes elsewhere are constants of a program that looks for it.
    let missing = || Error::Edit { path: path.to_owned(), reason: "no build info blob" };
    let start = (0..image.len().saturating_sub(32))
        .step_by(16)
        .find(|&at| image[at..].starts_with(MAGIC))
        .ok_or_else(missing)?;
    let mut end = start + 32;
    if image[start + 15] & 2 != 0 {
        for _ in 0..2 {
            let (length, size) = uvarint(&image[end..]).ok_or_else(missing)?;
            end = end.checked_add(size + length).filter(|&end| end <= image.len()).ok_or_else(missing)?;
        }
    }
    zero(image, start..end);
    Ok(())
}

fn check(image: &[u8], path: &Path) -> Result<()> {
    if image.len() >= 64 && image.starts_with(b"\x7fELF\x02") {
        Ok(())
    } else {
        Err(Error::Edit { path: path.to_owned(), reason: "not a 64-bit ELF file" })
    }
}

fn zero(image: &mut [u8], range: Range<usize>) {
    if let Some(bytes) = image.get_mut(range) {
        bytes.fill(0);
    }
}

/// Reads a variable-length number; returns its value and its size in bytes. Numbers above 28 bits are
/// rejected.
fn uvarint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (position, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Some((value, position + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Vec<u8> {
        let mut image = vec![0xaa; 64];
        image[..5].copy_from_slice(b"\x7fELF\x02");
        image.extend(b"\xff Go buildinf:\x08\x02");
        image.extend([0; 16]);
        image.extend(b"\x05go1.2\x03abc");
        image.extend([0xaa; 40]);
        image
    }

    #[test]
    fn build_info_is_wiped_and_nothing_else() {
        let mut bytes = image();
        wipe_build_info(&mut bytes, Path::new("x")).unwrap();
        assert!(bytes[64..106].iter().all(|&byte| byte == 0));
        assert!(bytes[106..].iter().all(|&byte| byte == 0xaa));
        assert!(wipe_build_info(&mut bytes, Path::new("x")).is_err());
    }

    #[test]
    fn section_headers_vanish() {
        let mut bytes = image();
        remove_section_headers(&mut bytes, Path::new("x")).unwrap();
        assert_eq!(bytes[40..48], [0; 8]);
        assert_eq!(bytes[60..64], [0; 4]);
        assert!(remove_section_headers(&mut [0; 64], Path::new("x")).is_err());
    }
}
