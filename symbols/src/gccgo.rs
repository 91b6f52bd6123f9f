//! Detection of Go programs built by gccgo. Their runtime is a different one, in C and Go, without a pclntab.

use crate::image::Image;

/// Maximum number of bytes of an image that are searched.
const MAX_SEARCHED: usize = 32 << 20;
/// Text that the gccgo runtime prints before it dies (`libgo/runtime/go-assert.c`). The version from
/// `runtime.Version` is no replacement: it exists only in programs that use it.
///
/// In a gccgo program, the text is part of a format string for `fprintf`. The bare text also exists in
/// gops-probe itself and in any other program that searches for it.
const MARK: &[u8] = b": libgo assertion failure";
/// Text before and after [`MARK`] in the format string.
const AROUND: (&[u8], &[u8]) = (b"%s:%U", b"\n\0");

/// Returns true if the gccgo runtime is in an image: linked statically into a program, or as the library
/// itself.
pub fn built(image: &Image) -> bool {
    let mut left = MAX_SEARCHED;
    let segments = image.segments().iter().filter(|s| !s.writable && !s.executable);
    for segment in segments {
        let size = usize::try_from(segment.file_size).unwrap_or(usize::MAX).min(left);
        left -= size;
        const PIECE: usize = 1 << 20;
        for at in (0..size).step_by(PIECE) {
            // Overlap of the pieces by the length of the searched text.
            let length = (size - at).min(PIECE + AROUND.0.len() + MARK.len() + AROUND.1.len());
            let Ok(bytes) = image.read_vec(segment.start.plus(at as u64), length) else { break };
            if says_it(&bytes) {
                return true;
            }
        }
    }
    false
}

fn says_it(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, MARK).any(|at| {
        let (before, behind) = (bytes.get(..at), bytes.get(at + MARK.len()..));
        before.is_some_and(|bytes| bytes.ends_with(AROUND.0))
            && behind.is_some_and(|bytes| bytes.starts_with(AROUND.1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_for_it_is_not_built_so() {
        let ours = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!built(&Image::parse(Box::new(ours)).unwrap()));
        assert!(says_it(&[b"\0", AROUND.0, MARK, AROUND.1].concat()));
        assert!(!says_it(b"the text \": libgo assertion failure\" is looked for"));
    }
}
