//! Selection of the frames to print: the filter of runtime frames, and the elision of deep stacks.

use super::text_cache::TextCache;
use super::{LogicalText, Physical};
use crate::runtime::release::GoRelease;

/// Line, or pair of lines, to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// Frame: index of the physical frame, and index of the logical frame in it.
    Frame { physical: usize, logical: usize },
    /// Note `...N frames elided...` (from Go 1.21).
    Elided(i64),
    /// Note `...additional frames elided...` (before Go 1.21).
    AdditionalElided,
}

/// Result of [`plan`].
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) lines: Vec<Line>,
    /// Number of frames that the first pass printed.
    pub(super) printed: i64,
}

/// Limits `tracebackInnerFrames` and `tracebackOuterFrames` (from Go 1.21).
const INNER: i64 = 50;
const OUTER: i64 = 50;
/// Limit `_TracebackMaxFrames` (before Go 1.21), in physical frames.
const MAX_BEFORE_21: usize = 100;

/// Returns true if the filter lets a frame pass (`showfuncinfo`).
pub(super) fn shows(frame: &LogicalText, first: bool, callee_reveals_wrapper: bool) -> bool {
    if frame.is_wrapper && !callee_reveals_wrapper {
        return false;
    }
    frame.shown || (frame.is_panic && !first)
}

/// Plans the lines to print of `stack`.
pub(super) fn plan(texts: &TextCache, stack: &[Physical], show_all: bool, release: GoRelease) -> Plan {
    if !release.leaves_out_middle_frames() {
        return plan_before_21(texts, stack, show_all);
    }
    let mut cursor = Cursor { next: 0, callee_reveals_wrapper: false };
    let mut lines = Vec::new();
    let pass = Pass { texts, stack, show_all };
    let (printed, last) = pass.run(&mut cursor, 0, INNER, &mut lines);
    if printed < INNER {
        return Plan { lines, printed };
    }
    // The runtime clones its unwinder at this point, counts the remaining frames, and continues with the
    // clone.
    let mut clone = cursor;
    let (remaining, _) = pass.run(&mut cursor, i64::MAX, 0, &mut Vec::new());
    let elide = remaining - last - OUTER;
    if elide > 0 {
        lines.push(Line::Elided(elide));
        pass.run(&mut clone, last + elide, OUTER, &mut lines);
    } else {
        pass.run(&mut clone, last, OUTER, &mut lines);
    }
    Plan { lines, printed }
}

/// Position of the walk: the next physical frame, and the state that the runtime carries over from the
/// callee.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    next: usize,
    callee_reveals_wrapper: bool,
}

struct Pass<'p> {
    texts: &'p TextCache,
    stack: &'p [Physical],
    show_all: bool,
}

impl Pass<'_> {
    /// Runs `traceback2`: counts all shown frames, skips `skip` of them and prints up to `max`. Returns the
    /// count, and the number of frames counted within the last physical frame. A pass that used up `max` ends
    /// in the middle of a physical frame, and the cursor stays at that frame.
    fn run(&self, cursor: &mut Cursor, skip: i64, max: i64, lines: &mut Vec<Line>) -> (i64, i64) {
        let (mut count, mut skip, mut max) = (0i64, skip, max);
        while let Some(frame) = self.stack.get(cursor.next) {
            let mut last = 0i64;
            for (logical, text) in self.texts.get(frame).iter().flat_map(|t| t.frames.iter().enumerate()) {
                let callee_reveals_wrapper = cursor.callee_reveals_wrapper;
                cursor.callee_reveals_wrapper = text.reveals_wrapper;
                if !(self.show_all || shows(text, count == 0, callee_reveals_wrapper)) {
                    continue;
                }
                if skip == 0 && max == 0 {
                    return (count, last);
                }
                count += 1;
                last += 1;
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                max -= 1;
                lines.push(Line::Frame { physical: cursor.next, logical });
            }
            // Stepping to the caller makes the physical function the callee, whose own id is the last one seen.
            cursor.next += 1;
        }
        (count, 0)
    }
}

/// Plans up to 100 physical frames, with a note if exactly so many frames were printed.
fn plan_before_21(texts: &TextCache, stack: &[Physical], show_all: bool) -> Plan {
    let mut plan = Plan::default();
    let mut callee_reveals_wrapper = false;
    for (physical, frame) in stack.iter().enumerate().take(MAX_BEFORE_21) {
        for (logical, text) in texts.get(frame).iter().flat_map(|t| t.frames.iter().enumerate()) {
            let shown = show_all || shows(text, plan.printed == 0, callee_reveals_wrapper);
            callee_reveals_wrapper = text.reveals_wrapper;
            if shown {
                plan.printed += 1;
                plan.lines.push(Line::Frame { physical, logical });
            }
        }
    }
    if plan.printed == MAX_BEFORE_21 as i64 {
        plan.lines.push(Line::AdditionalElided);
    }
    plan
}
