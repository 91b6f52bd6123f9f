//! Join of the parts of a sample into one stack.
//!
//! The parts are: the place of the interrupt, the frames found by frame pointers, the top of the stack
//! itself, and the frames of C, which have unwind tables instead of frame pointers.

use super::source::RawSample;
use crate::arch::host;
use crate::native::frame::{Foreign, Place, SampleRegisters};
use crate::runtime::code::CodeCache;

/// Joined stack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joined {
    /// Frames, innermost first.
    pub places: Vec<Place>,
    /// True if the stack is complete: it ends at the first function of a goroutine or thread, or where the
    /// scheduler left a goroutine.
    pub rooted: bool,
}

/// Functions that have no caller, or that the scheduler called after it had left a goroutine (`mcall`).
/// `host::MACHINE.entry_functions()` lists the entry functions of a program.
const ROOTS: &[&[u8]] = &[b"runtime.mcall", b"runtime.rt0_go"];

/// Direction in which frame pointers lead from a place in Go code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Frame pointers lead to the caller.
    On,
    /// End of the stack: nothing is missing above.
    Root,
    /// Call of other functions on the thread's stack, while the goroutine's frames are on another stack.
    Grows,
    /// Call as in [`Way::Grows`], but the called function has the goroutine's frame pointer.
    Works,
    /// Call from C; the caller of C is not looked for.
    Callback,
}

/// Joins the parts of a sample. `code` is the Go code of the process, by runtime.
pub fn join(sample: &RawSample<'_>, code: &mut [CodeCache<'_>], foreign: &mut dyn Foreign) -> Joined {
    let Some(start) = sample.user else { return Joined::default() };
    let mut join = Join {
        code,
        foreign,
        stack: sample.stack,
        sp: start.sp,
        crossed: sample.crossed,
        on_goroutine: sample.goroutine.is_some(),
        missing: false,
        ended: false,
        joined: Joined::default(),
    };
    if join.is_go(start.ip) {
        join.push(start.ip, true);
        let caller = join.caller_of_leaf(start);
        join.follow(caller.filter(|c| sample.frames.first() != Some(c)).into_iter());
        join.follow(sample.frames.iter().copied());
        // The sample is in the first instructions of the function, or after a change to another stack.
        match join.way(start.ip) {
            Some(Way::Root) if join.joined.places.len() == 1 => join.joined.rooted = true,
            Some(Way::Grows | Way::Works) => join.joined.rooted = false,
            _ => {}
        }
        return join.joined;
    }
    let Join { code, foreign, .. } = &mut join;
    let mut is_go = |pc: u64| code.iter_mut().any(|code| code.get(pc).is_some());
    let unwound = foreign.unwind(start, sample.stack, &mut is_go);
    if unwound.places.is_empty() {
        join.push(start.ip, true);
    }
    join.joined.places.extend(unwound.places);
    if unwound.whole && !sample.resumed_after_cgo && unwound.entered_go.is_none() {
        join.joined.rooted = true;
        return join.joined;
    }
    match unwound.entered_go {
        // The frames of Go below C are on the thread's stack; the frames of the goroutine are already found.
        _ if sample.resumed_after_cgo => {
            // The top of the goroutine's stack is the return address of asmcgocall, or the word that it
            // pushed. From Go 1.21 on, asmcgocall has a frame pointer, which then leads to its return
            // address.
            let top = sample.frames.first().and_then(|pc| pc.checked_sub(1));
            let skipped = usize::from(!top.is_some_and(|call| join.is_go(call)));
            join.follow(sample.frames.iter().skip(skipped).copied());
        }
        Some(registers) => match sample.frames.iter().position(|&pc| pc == registers.ip) {
            Some(at) => join.follow(sample.frames.iter().skip(at).copied()),
            None => join.follow_pointers(registers),
        },
        None => {
            let rest = beyond(&join.joined.places, &sample.frames);
            join.follow(rest.iter().copied());
        }
    }
    join.joined
}

/// Returns the frames found by frame pointers beyond a stack that unwind tables could not follow to its end.
///
/// Both methods find the same frames, but frame pointers leave out functions without a frame. The frames
/// before the last one decide which of several equal frames is meant.
fn beyond<'f>(places: &[Place], frames: &'f [u64]) -> &'f [u64] {
    let Some((_, callers @ [.., last])) = places.split_first() else { return frames };
    let same = |at: usize| {
        let before = frames.iter().take(at + 1).rev();
        before.zip(callers.iter().rev()).take_while(|(frame, place)| **frame == place.pc).count()
    };
    let found = (0..frames.len()).filter(|&at| frames.get(at) == Some(&last.pc));
    let best = found.rev().max_by_key(|&at| same(at));
    best.and_then(|at| frames.get(at + 1..)).unwrap_or_default()
}

struct Join<'a, 'm> {
    code: &'a mut [CodeCache<'m>],
    foreign: &'a mut dyn Foreign,
    stack: &'a [u8],
    sp: u64,
    /// Value of [`RawSample::crossed`].
    crossed: Option<bool>,
    on_goroutine: bool,
    /// True if a caller is missing among the frames.
    missing: bool,
    /// True if no more frames are taken.
    ended: bool,
    joined: Joined,
}

impl Join<'_, '_> {
    fn is_go(&mut self, pc: u64) -> bool {
        self.code.iter_mut().any(|code| code.get(pc).is_some())
    }

    /// Returns the direction from a place in Go code; `None` if the place is not in Go code.
    fn way(&mut self, pc: u64) -> Option<Way> {
        let code = self.code.iter_mut().find(|code| code.modules().lookup(pc).is_some())?;
        let top = code.get(pc)?.top_frame;
        let name = code.modules().lookup(pc).map(|place| place.func.name()).unwrap_or_default();
        Some(match name {
            _ if top || ROOTS.contains(&name) || host::MACHINE.entry_functions().contains(&name) => Way::Root,
            b"runtime.morestack" => Way::Grows,
            b"runtime.systemstack" => Way::Works,
            b"runtime.cgocallback" => Way::Callback,
            _ => Way::On,
        })
    }

    /// Returns true if the scheduler is among the frames. The scheduler has left the goroutine for which its
    /// stack was entered, and may already have chosen another one.
    fn schedules(&mut self) -> bool {
        self.joined.places.iter().any(|place| {
            let at = if place.exact { place.pc } else { place.pc.wrapping_sub(1) };
            let function = self.code.iter().find_map(|code| code.modules().lookup(at));
            function.is_some_and(|place| place.func.name() == b"runtime.schedule")
        })
    }

    fn push(&mut self, pc: u64, exact: bool) {
        self.joined.places.push(Place { pc, exact });
    }

    /// Returns a word of the copied stack.
    fn word(&self, at: u64) -> Option<u64> {
        let start = usize::try_from(at.checked_sub(self.sp)?).ok()?;
        self.stack.get(start..start.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// Returns the return address of an interrupted Go function, by its frame size. In the first and last
    /// instructions of a function, and in a function without a frame, the frame pointer is still that of the
    /// caller; without this address the caller would be left out.
    fn caller_of_leaf(&mut self, start: SampleRegisters) -> Option<u64> {
        let info = self.code.iter_mut().find_map(|code| code.get(start.ip))?;
        if info.top_frame || info.writes_sp {
            return None;
        }
        let delta = info.sp_delta?;
        let caller = self.word(start.sp.checked_add(delta.into())?)?;
        self.is_go(caller.checked_sub(1)?).then_some(caller)
    }

    /// Takes return addresses until a root, or until an address without code.
    fn follow(&mut self, frames: impl Iterator<Item = u64>) {
        for pc in frames {
            if self.ended {
                return;
            }
            let Some(call) = pc.checked_sub(1) else { return };
            if let Some(way) = self.way(call) {
                self.push(pc, false);
                match way {
                    Way::On => {}
                    Way::Root => self.end(true),
                    Way::Callback => self.end(false),
                    Way::Grows if self.schedules() => self.end(true),
                    Way::Grows | Way::Works => match (self.crossed, way) {
                        (Some(true), _) => {}
                        (Some(false), _) if !self.on_goroutine => self.end(true),
                        // The caller of `runtime.systemstack` is left out.
                        (_, Way::Works) => self.missing = true,
                        _ => self.end(false),
                    },
                }
            } else if self.foreign.is_code(call) {
                self.push(pc, false);
            } else {
                self.end(false);
            }
        }
    }

    /// Stops taking frames. `root` is true if the frames lead to the first function.
    fn end(&mut self, root: bool) {
        self.joined.rooted = root && !self.missing;
        self.ended = true;
    }

    /// Follows frame pointers in the copied stack.
    fn follow_pointers(&mut self, from: SampleRegisters) {
        self.follow(std::iter::once(from.ip));
        // Frames of the caller end above the stack of the called function.
        let mut bp = from.bp;
        if bp < from.sp {
            return;
        }
        while !self.ended
            && let (Some(next), Some(pc)) = (self.word(bp), bp.checked_add(8).and_then(|at| self.word(at)))
        {
            self.follow(std::iter::once(pc));
            // Frame pointers must go up, otherwise the walk would not end.
            if next <= bp {
                return;
            }
            bp = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::frame::{Named, Unwound};

    /// C code at 0x1000..0x2000, with 16 bytes of stack for every frame; "Go" is above 0x5000.
    struct Fake;

    impl Foreign for Fake {
        fn unwind(
            &mut self,
            start: SampleRegisters,
            stack: &[u8],
            is_go: &mut dyn FnMut(u64) -> bool,
        ) -> Unwound {
            let first = Place { pc: start.ip, exact: true };
            let mut unwound = Unwound { places: vec![first], ..Unwound::default() };
            for word in stack.chunks_exact(8) {
                let pc = u64::from_le_bytes(word.try_into().unwrap());
                if pc == 0 {
                    unwound.whole = true;
                    break;
                }
                if is_go(pc) {
                    unwound.entered_go = Some(SampleRegisters { ip: pc, ..start });
                    break;
                }
                unwound.places.push(Place { pc, exact: false });
            }
            unwound
        }

        fn is_code(&mut self, pc: u64) -> bool {
            (0x1000..0x2000).contains(&pc)
        }

        fn names(&mut self, _: u64) -> Vec<Named> {
            Vec::new()
        }
    }

    fn sample<'b>(stack: &'b [u8], frames: &[u64]) -> RawSample<'b> {
        RawSample {
            pid: "1".parse().unwrap(),
            tid: 1,
            time: 0,
            in_kernel: false,
            user: Some(SampleRegisters { ip: 0x1010, sp: 0x9000, bp: 0x9010 }),
            frames: frames.to_vec(),
            resumed_after_cgo: false,
            cut: false,
            crossed: None,
            goroutine: None,
            kernel: Vec::new(),
            stack,
        }
    }

    fn pcs(joined: &Joined) -> Vec<u64> {
        joined.places.iter().map(|p| p.pc).collect()
    }

    #[test]
    fn tables_before_pointers() {
        let stack: Vec<u8> = [0x1100u64, 0x1200, 0].into_iter().flat_map(u64::to_le_bytes).collect();
        let joined = join(&sample(&stack, &[0x1900]), &mut [], &mut Fake);
        assert_eq!((pcs(&joined), joined.rooted), (vec![0x1010, 0x1100, 0x1200], true));
        assert!(joined.places[0].exact && !joined.places[1].exact);
    }

    #[test]
    fn pointers_where_tables_end() {
        let stack: Vec<u8> = [0x1100u64, 0x1200].into_iter().flat_map(u64::to_le_bytes).collect();
        let joined = |frames: &[u64]| {
            let joined = join(&sample(&stack, frames), &mut [], &mut Fake);
            assert!(!joined.rooted);
            pcs(&joined)
        };
        assert_eq!(joined(&[0x1100, 0x1200, 0x1900, 0x7777, 0x1800]), [0x1010, 0x1100, 0x1200, 0x1900]);
        // The caller of a function without a frame is missing among the frame pointers.
        assert_eq!(joined(&[0x1200, 0x1900]), [0x1010, 0x1100, 0x1200, 0x1900]);
        // Recursion: take the frames behind the same frame.
        assert_eq!(joined(&[0x1100, 0x1200, 0x1200, 0x1300]), [0x1010, 0x1100, 0x1200, 0x1200, 0x1300]);
        // Frames of another stack.
        assert_eq!(joined(&[0x1300, 0x1400]), [0x1010, 0x1100, 0x1200]);
        let nothing = join(&sample(&[], &[0x1300, 0x1400]), &mut [], &mut Fake);
        assert_eq!(pcs(&nothing), [0x1010, 0x1300, 0x1400]);
    }

    #[test]
    fn threads_of_the_kernel_have_no_stack() {
        let kernel = RawSample { user: None, ..sample(&[], &[1]) };
        assert_eq!(join(&kernel, &mut [], &mut Fake), Joined::default());
    }
}
