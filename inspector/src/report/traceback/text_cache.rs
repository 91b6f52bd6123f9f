//! Cache of texts for goroutines that stand at the same instructions.
//!
//! A dump has millions of frames at some thousands of instructions. A hostile process can have as many
//! instructions as it has words of stack, each with long names: the cache is bounded.

use super::{LogicalText, PcText, Physical};
use crate::runtime::code::{AddressMap, Special};

/// Maximum size that is kept from one stack to the next, in bytes.
const MAX_KEPT: usize = 64 << 20;
/// Maximum size that is kept for one stack, in bytes. Frames beyond the limit are printed without their
/// texts.
const MAX_OF_ONE: usize = 256 << 20;
/// Size of an entry without its text, in bytes.
const OVERHEAD: usize = 256;

/// Cache of texts by instruction.
#[derive(Debug)]
pub(super) struct TextCache {
    known: AddressMap<PcText>,
    interrupted: AddressMap<PcText>,
    created_by: AddressMap<Option<Vec<u8>>>,
    size: usize,
    max: usize,
    /// Placeholder for texts that are not kept.
    unknown: PcText,
}

/// Facts about an instruction that following a stack needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) frame_size: Option<u64>,
    pub(super) words: usize,
    pub(super) special: Special,
}

impl Default for TextCache {
    fn default() -> Self {
        TextCache {
            known: AddressMap::default(),
            interrupted: AddressMap::default(),
            created_by: AddressMap::default(),
            size: 0,
            max: MAX_OF_ONE,
            unknown: PcText {
                frames: vec![LogicalText {
                    name: b"(a function: too much text for one stack)".to_vec(),
                    inlined: false,
                    shown: true,
                    is_panic: false,
                    is_wrapper: false,
                    reveals_wrapper: false,
                    place: b"\t?:0".to_vec(),
                }],
                args: Vec::new(),
                offset: 0,
                frame_size: None,
                words: 0,
                special: Special::No,
            },
        }
    }
}

impl PcText {
    /// Returns the approximate size of the text in bytes.
    pub(super) fn size(&self) -> usize {
        let frames = self.frames.iter().map(|f| f.name.len() + f.place.len() + size_of::<LogicalText>());
        OVERHEAD + frames.sum::<usize>() + size_of_val(self.args.as_slice())
    }
}

impl TextCache {
    /// Empties the cache if it is too large. Call between stacks: the texts of a stack must stay while it is
    /// printed.
    pub(super) fn forget_if_many(&mut self) {
        if self.size > MAX_KEPT.min(self.max) {
            self.known = AddressMap::default();
            self.interrupted = AddressMap::default();
            self.created_by = AddressMap::default();
            self.size = 0;
        }
    }

    /// Returns the facts about an instruction. Calls `make` if they are not in the cache, and keeps the
    /// result.
    pub(super) fn step(&mut self, pc: u64, interrupted: bool, make: impl FnOnce() -> PcText) -> Step {
        let known = if interrupted { &mut self.interrupted } else { &mut self.known };
        let of =
            |text: &PcText| Step { frame_size: text.frame_size, words: text.words, special: text.special };
        if let Some(text) = known.get(&pc) {
            return of(text);
        }
        let text = make();
        let step = of(&text);
        let size = self.size.saturating_add(text.size());
        if size <= self.max {
            self.size = size;
            known.insert(pc, text);
        }
        step
    }

    /// Returns the text of an instruction that [`TextCache::step`] was called with since the last
    /// [`TextCache::forget_if_many`].
    pub(super) fn get(&self, frame: &Physical) -> Option<&PcText> {
        let known = if frame.interrupted { &self.interrupted } else { &self.known };
        known.get(&frame.pc).or(Some(&self.unknown))
    }

    /// Returns the text printed for a `go` statement. Calls `make` if the cache does not have it.
    pub(super) fn created_by(&mut self, pc: u64, make: impl FnOnce() -> Option<Vec<u8>>) -> Option<&[u8]> {
        self.forget_if_many();
        let size = &mut self.size;
        let text = self.created_by.entry(pc).or_insert_with(|| {
            let text = make();
            *size = size.saturating_add(OVERHEAD + text.as_ref().map_or(0, Vec::len));
            text
        });
        text.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: usize) -> PcText {
        let mut text = TextCache::default().unknown;
        text.frames[0].name = vec![b'a'; name];
        text.words = 3;
        text
    }

    fn frame(pc: u64) -> Physical {
        Physical { pc, interrupted: false, sp: 0, fp: 0, args: 0 }
    }

    #[test]
    fn one_stack_with_too_many_texts() {
        let mut kept = TextCache { max: 1 << 20, ..TextCache::default() };
        for pc in 0..1000 {
            // What the walk needs is right for each.
            assert_eq!(kept.step(pc, false, || text(64 << 10)).words, 3);
            assert!(kept.size <= 1 << 20);
        }
        assert_eq!(kept.known.len(), 15);
        assert_eq!(kept.get(&frame(0)).unwrap().frames[0].name.len(), 64 << 10);
        let other = kept.get(&frame(999)).unwrap();
        assert!(other.frames[0].name.starts_with(b"(a function"));
    }

    #[test]
    fn many_stacks_one_after_the_other() {
        let mut kept = TextCache { max: 1 << 20, ..TextCache::default() };
        for stack in 0..1000 {
            kept.forget_if_many();
            for pc in 0..4 {
                kept.step(stack * 4 + pc, pc == 3, || text(64 << 10));
            }
            let made = kept.created_by(stack, || Some(vec![0; 64 << 10])).map(<[u8]>::len);
            assert_eq!(made, Some(64 << 10));
            let bytes: usize = kept.known.values().chain(kept.interrupted.values()).map(PcText::size).sum();
            let all = bytes + kept.created_by.len() * ((64 << 10) + OVERHEAD);
            assert_eq!(all, kept.size);
            assert!(all <= 2 << 20, "{all}");
        }
    }

    #[test]
    fn known_texts_are_not_made_again() {
        let mut kept = TextCache::default();
        kept.step(1, false, || text(10));
        assert_eq!(kept.step(1, false, || unreachable!()).words, 3);
        assert_eq!(kept.created_by(1, || None), None);
        assert_eq!(kept.created_by(1, || unreachable!()), None);
    }
}
