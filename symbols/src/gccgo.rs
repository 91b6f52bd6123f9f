//! Go programs that gccgo built. Their runtime is another one, in C and Go, without a pclntab.

use crate::image::Image;

/// As much of an image is searched.
const MAX_SEARCHED: usize = 32 << 20;
/// What that runtime says before it dies (`libgo/runtime/go-assert.c`). The version that `runtime.Version` returns is only in
/// programs that ask for it.
///
/// In a program it is within the text for `fprintf`. Alone it is also in this one, and in whatever else looks for it.
const MARK: &[u8] = b": libgo assertion failure";
/// What is before and behind it there.
const AROUND: (&[u8], &[u8]) = (b"%s:%U", b"\n\0");

/// Whether that runtime is in an image: it is linked statically, or this is the library.
pub fn built(image: &Image) -> bool {
    let mut left = MAX_SEARCHED;
    let segments = image.segments().iter().filter(|s| !s.writable && !s.executable);
    for segment in segments {
        let size = usize::try_from(segment.file_size).unwrap_or(usize::MAX).min(left);
        left -= size;
        const PIECE: usize = 1 << 20;
        for at in (0..size).step_by(PIECE) {
            // Pieces overlap by what is looked for.
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
