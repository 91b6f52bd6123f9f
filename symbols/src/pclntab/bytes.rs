//! Bytes of a pclntab, read from the image on first use. An answer needs a small part of a large program's
//! tables. Copying all of them, tens of megabytes, would take longer than all other work.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::image::Source;

/// Size of a piece in bytes. Each read fetches one piece.
const PIECE: usize = 32 << 10;
/// Number of bytes by which each piece continues into the next one. A record that begins in a piece and is no
/// longer than this is in it as a whole. Records of functions have about a hundred bytes; names seldom have
/// more.
pub(super) const WINDOW: usize = 8 << 10;
/// Size of a read in bytes, for a scan whose bytes are not kept.
const SCAN: usize = 256 << 10;

/// Bytes of a pclntab, with a cache of the pieces that were read.
pub(super) struct Bytes {
    source: Arc<dyn Source>,
    /// File offset of the first byte.
    start: u64,
    len: usize,
    pieces: Vec<Piece>,
    whole: OnceLock<Option<Box<[u8]>>>,
}

/// Cached piece. `None` inside if the file no longer contains it.
type Piece = OnceLock<Option<Arc<Vec<u8>>>>;

/// Pieces that were read, with their indices.
#[derive(Debug, Clone, Default)]
pub(super) struct Pieces(Vec<(usize, Arc<Vec<u8>>)>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bytes").field("start", &self.start).field("len", &self.len).finish_non_exhaustive()
    }
}

impl Bytes {
    /// Creates a view of `len` bytes of the file, from `start` on.
    pub(super) fn new(source: Arc<dyn Source>, start: u64, len: usize) -> Self {
        let pieces = (0..len.div_ceil(PIECE)).map(|_| OnceLock::new()).collect();
        Bytes { source, start, len, pieces, whole: OnceLock::new() }
    }

    /// Fills the cache with `pieces` from an earlier read.
    pub(super) fn with(self, pieces: &Pieces) -> Self {
        for (number, bytes) in &pieces.0 {
            if let Some(piece) = self.pieces.get(*number) {
                // Ignored result: the cache is still empty here.
                let _ = piece.set(Some(Arc::clone(bytes)));
            }
        }
        self
    }

    /// Returns pieces that were read, at most `most`.
    pub(super) fn pieces(&self, most: usize) -> Pieces {
        let read = self.pieces.iter().enumerate();
        let read = read.filter_map(|(number, piece)| Some((number, Arc::clone(piece.get()?.as_ref()?))));
        Pieces(read.take(most).collect())
    }

    /// Number of bytes, read or not.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Reads all bytes into memory. Later look-ups need no access to the file.
    pub(super) fn load(&self) {
        self.whole();
    }

    fn whole(&self) -> Option<&[u8]> {
        self.whole.get_or_init(|| self.read(0, self.len).map(Vec::into_boxed_slice)).as_deref()
    }

    fn read(&self, at: usize, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len.min(self.len.saturating_sub(at))];
        self.source.read_at(self.start.checked_add(at as u64)?, &mut bytes).then_some(bytes)
    }

    /// Returns bytes from the start of `range` on: at least [`WINDOW`] bytes, or the whole range if it is
    /// shorter. Empty if there are none.
    pub(super) fn window(&self, range: Range<usize>) -> &[u8] {
        let Range { start, end } = range;
        let end = end.min(self.len);
        if start >= end {
            return &[];
        }
        let (from, bytes) = match self.whole.get() {
            Some(Some(whole)) => (0, &**whole),
            _ => {
                let from = start / PIECE * PIECE;
                let piece = self.pieces.get(start / PIECE);
                let read = || self.read(from, PIECE + WINDOW).map(Arc::new);
                let piece = piece.and_then(|piece| piece.get_or_init(read).as_ref());
                (from, piece.map(|piece| piece.as_slice()).unwrap_or_default())
            }
        };
        let bytes = bytes.get(start - from..).unwrap_or_default();
        bytes.get(..end - start).unwrap_or(bytes)
    }

    /// Returns all bytes of `range`, even if it is longer than a window.
    pub(super) fn long(&self, range: Range<usize>) -> &[u8] {
        let end = range.end.min(self.len);
        let window = self.window(range.clone());
        if range.start.saturating_add(window.len()) >= end {
            return window;
        }
        self.whole().and_then(|whole| whole.get(range.start..end)).unwrap_or(window)
    }

    /// Passes the bytes of `range` to `look` in order, with their offsets, in large pieces that overlap by
    /// `overlap` bytes. Nothing is kept. Bytes that the file no longer contains are left out.
    pub(super) fn scan(&self, range: Range<usize>, overlap: usize, mut look: impl FnMut(usize, &[u8])) {
        let end = range.end.min(self.len);
        let mut buffer = Vec::new();
        for at in (range.start..end).step_by(SCAN) {
            let len = (SCAN + overlap).min(end - at);
            if let Some(Some(whole)) = self.whole.get() {
                look(at, whole.get(at..at + len).unwrap_or_default());
                continue;
            }
            buffer.resize(len, 0);
            let there = self.start.checked_add(at as u64);
            if there.is_some_and(|there| self.source.read_at(there, &mut buffer)) {
                look(at, &buffer);
            }
        }
    }

    /// Returns a reader of words at mostly ascending offsets. Bytes in between are not kept.
    pub(super) fn walk(&self) -> Walk<'_> {
        Walk { bytes: self, at: 0, buffer: Vec::new() }
    }
}

/// Reader of words at mostly ascending offsets. See [`Bytes::walk`].
pub(super) struct Walk<'b> {
    bytes: &'b Bytes,
    at: usize,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    /// Returns the word of four bytes at offset `at`.
    pub(super) fn u32(&mut self, at: usize) -> Option<u32> {
        let end = at.checked_add(4).filter(|&end| end <= self.bytes.len)?;
        // Forward jumps read each byte once, even in a damaged table. Backward jumps use the cached pieces.
        if at < self.at {
            return word(self.bytes.window(at..end), 0);
        }
        if end > self.at + self.buffer.len() {
            self.at = at;
            self.buffer.resize(SCAN.min(self.bytes.len - at), 0);
            let there = self.bytes.start.checked_add(at as u64)?;
            if !self.bytes.source.read_at(there, &mut self.buffer) {
                self.buffer.clear();
            }
        }
        word(&self.buffer, at - self.at)
    }
}

/// Returns the little-endian word of four bytes at offset `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> (Vec<u8>, Bytes) {
        let all: Vec<u8> = (0..len + 10).map(|i| (i * 7 + i / 251) as u8).collect();
        let source = Arc::new(all.clone());
        (all[10..].to_vec(), Bytes::new(source, 10, len))
    }

    #[test]
    fn windows_are_the_bytes() {
        let len = 3 * PIECE + 100;
        let (all, lazy) = bytes(len);
        for round in 0..2 {
            for at in [0, 1, PIECE - 1, PIECE, 2 * PIECE - 5, 3 * PIECE, len - 1] {
                let window = lazy.window(at..usize::MAX);
                assert!(window.len() >= WINDOW.min(len - at), "{at}");
                assert_eq!(window, &all[at..at + window.len()], "{at}");
                assert_eq!(lazy.window(at..at + 3).len(), 3.min(len - at));
            }
            assert_eq!(lazy.window(len..len + 1), [0u8; 0]);
            assert_eq!(lazy.whole.get().is_some(), round == 1);
            assert_eq!(lazy.long(7..len), &all[7..]);
        }
        let gone = Bytes::new(Arc::new(Vec::new()), 10, len).with(&lazy.pieces(2));
        assert_eq!(gone.window(PIECE - 5..PIECE + 5), &all[PIECE - 5..PIECE + 5]);
        assert_eq!(gone.window(2 * PIECE..3 * PIECE), [0u8; 0]);
    }

    #[test]
    fn scans_and_walks() {
        let len = 2 * SCAN + 33;
        let (all, lazy) = bytes(len);
        let mut seen = Vec::new();
        lazy.scan(5..len, 3, |at, piece| {
            assert_eq!(piece, &all[at..at + piece.len()]);
            seen.push((at, piece.len()));
        });
        assert_eq!(seen, [(5, SCAN + 3), (5 + SCAN, SCAN + 3), (5 + 2 * SCAN, 28)]);
        let mut walk = lazy.walk();
        for at in [0, 4, SCAN - 3, SCAN + 9, 8, len - 4, 2 * SCAN, len - 3, usize::MAX] {
            assert_eq!(walk.u32(at), word(&all, at), "{at}");
        }
    }

    #[test]
    fn a_file_that_became_shorter() {
        let lazy = Bytes::new(Arc::new(vec![1u8; PIECE]), 0, 4 * PIECE);
        assert_eq!(lazy.window(2 * PIECE..3 * PIECE), [0u8; 0]);
        assert_eq!(lazy.long(0..3 * PIECE), [0u8; 0]);
        assert_eq!(lazy.walk().u32(0), None);
    }
}
