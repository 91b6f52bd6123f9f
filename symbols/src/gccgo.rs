//! Go programs that gccgo built. Their runtime is another one, in C and Go, without a pclntab.

use crate::image::Image;

/// As much of an image is searched.
const MAX_SEARCHED: usize = 32 << 20;
/// What that runtime says before it dies (`libgo/runtime/go-assert.c`). The version that `runtime.Version` returns is only in
/// programs that ask for it.
const MARK: &[u8] = b": libgo assertion failure";

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
            let length = (size - at).min(PIECE + MARK.len());
            let Ok(bytes) = image.read_vec(segment.start.plus(at as u64), length) else { break };
            if memchr::memmem::find(&bytes, MARK).is_some() {
                return true;
            }
        }
    }
    false
}
