//! Symbolization: converts stack addresses to named places, as `runtime/pprof` of the program's release does
//! (`runtime/pprof/proto.go`, `runtime/symtab.go`; Go 1.18–1.27).
//!
//! The runtime keeps two kinds of stacks. In a *logical* stack each entry stands for one source frame. An
//! inlined call has an entry of its own, which points to a mark in the function that it was inlined into.
//! Runs of such entries are joined into one location with several lines. In a *physical* stack each entry is
//! a return address, and its inlined frames are looked up first. All entries are one more than the address
//! that they stand for.

use std::collections::HashMap;

use symbols::addr::LinkAddr;
use symbols::pclntab::inline::{LogicalFrame, logical_frames};

use super::modules::{Modules, Place};
use super::names::printed_name;
use super::release::GoRelease;
use super::view::View;
use crate::profile::{Function, Line, Location, Mapping};

/// Maximum length of a name or path in bytes. Go compilers write shorter ones.
const MAX_TEXT: usize = 64 << 10;
/// Maximum total size of names and paths in bytes. A damaged function table can name the same bytes many
/// times.
const MAX_TEXTS: usize = 256 << 20;

/// Maximum number of frames added to all stacks. A damaged function table may have a thousand inlined calls
/// at each address. Frames beyond are not expanded.
const MAX_ADDED: usize = 32 << 20;

/// Symbols that the stacks of a profile refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Mapped files and their address ranges.
    pub mappings: Vec<Mapping>,
    /// Places in code.
    pub locations: Vec<Location>,
    /// Functions of the places.
    pub functions: Vec<Function>,
}

/// Symbolizer of stack addresses. Each address is looked up once.
#[derive(Debug)]
pub struct Symbolizer<'m> {
    modules: &'m Modules,
    release: GoRelease,
    wrapper_id: u8,
    symbols: Symbols,
    /// Look-ups by mapping: whether any was made, and whether any failed.
    tried: Vec<(bool, bool)>,
    texts: usize,
    room: usize,
    added: usize,
    functions: HashMap<(&'m [u8], &'m [u8]), usize>,
    /// Frames by entry of a logical stack.
    frames: HashMap<u64, FoundFrame<'m>>,
    /// True for entries in functions of the runtime, by entry.
    of_runtime: HashMap<u64, bool>,
    /// Expansion of the last entry of a stack, if it was inlined, by entry.
    tails: HashMap<u64, Option<Vec<u64>>>,
    /// Locations by the first of their entries.
    known: HashMap<u64, Known<'m>>,
    deck: Deck<'m>,
}

/// Frame with the fields of `runtime.Frames`.
#[derive(Debug, Clone, Copy)]
struct Frame<'m> {
    /// Program counter: the entry minus one, except at the entry point of a function.
    pc: u64,
    /// Go frame, `None` if the address is in no Go function.
    go: Option<GoFrame<'m>>,
}

#[derive(Debug, Clone, Copy)]
struct GoFrame<'m> {
    name: &'m [u8],
    file: &'m [u8],
    line: u32,
    start_line: u32,
    inlined: bool,
    /// Entry point of the physical function.
    entry: u64,
}

#[derive(Debug, Clone, Copy)]
enum FoundFrame<'m> {
    /// `runtime.goexit`, which profiles omit.
    Goexit,
    Frame(Frame<'m>),
}

#[derive(Debug, Clone, Copy)]
struct Known<'m> {
    location: usize,
    /// Number of entries of the location.
    entries: usize,
    first: Frame<'m>,
}

/// Entries that may form one location (`runtime/pprof.pcDeck`).
#[derive(Debug, Default)]
struct Deck<'m> {
    entries: Vec<u64>,
    frames: Vec<Frame<'m>>,
}

impl<'m> Deck<'m> {
    /// Adds a frame if the frames in the deck were inlined into it.
    fn try_add(&mut self, entry: u64, frame: Frame<'m>, release: GoRelease) -> bool {
        if let Some(last) = self.frames.last() {
            let (Some(last), Some(new)) = (last.go, frame.go) else { return false };
            if !last.inlined || last.entry != new.entry {
                return false;
            }
            // A function is never inlined into itself, so equal names mean recursion.
            let same = if release.tells_recursion_by_printed_names() {
                printed_name(last.name, release) == printed_name(new.name, release)
            } else {
                last.name == new.name
            };
            if same {
                return false;
            }
        }
        self.entries.push(entry);
        self.frames.push(frame);
        true
    }
}

impl<'m> Symbolizer<'m> {
    /// Creates a symbolizer for the process of `view` with these `mappings`
    /// ([`of`](crate::profile::mappings::of)).
    pub fn new(view: &'m View, mappings: Vec<Mapping>) -> Self {
        Self::of(&view.modules, view.release, view.wrapper_id, mappings)
    }

    /// Creates a symbolizer for `modules` built by `release`; `wrapper_id` is that of the view.
    pub fn of(modules: &'m Modules, release: GoRelease, wrapper_id: u8, mappings: Vec<Mapping>) -> Self {
        Symbolizer {
            modules,
            release,
            wrapper_id,
            tried: vec![(false, false); mappings.len()],
            symbols: Symbols { mappings, ..Symbols::default() },
            texts: 0,
            room: MAX_TEXTS,
            added: 0,
            functions: HashMap::new(),
            frames: HashMap::new(),
            of_runtime: HashMap::new(),
            tails: HashMap::new(),
            known: HashMap::new(),
            deck: Deck::default(),
        }
    }

    /// Limits the total size of texts to `bytes`, if other parts of the same answer have used some of the
    /// limit already.
    #[must_use]
    pub fn with_room(mut self, bytes: usize) -> Self {
        self.room = bytes.min(MAX_TEXTS);
        self
    }

    /// Returns the locations of a logical stack, innermost first (`appendLocsForStack`). Empty for a stack
    /// with only the end of a goroutine's stack.
    pub fn logical(&mut self, stack: &[u64]) -> Vec<usize> {
        let expanded = self.with_last_expanded(stack);
        let mut rest = expanded.as_deref().unwrap_or(stack);
        let mut locations = Vec::with_capacity(rest.len());
        while let Some((&entry, tail)) = rest.split_first() {
            if let Some(&known) = self.known.get(&entry) {
                if self.release.joins_known_locations()
                    && !self.deck.entries.is_empty()
                    && self.deck.try_add(entry, known.first, self.release)
                {
                    rest = tail;
                    continue;
                }
                self.emit(&mut locations);
                locations.push(known.location);
                rest = rest.get(known.entries..).unwrap_or_default();
                continue;
            }
            let FoundFrame::Frame(frame) = self.frame(entry) else {
                self.emit(&mut locations);
                rest = tail;
                continue;
            };
            if self.deck.try_add(entry, frame, self.release) {
                rest = tail;
                continue;
            }
            self.emit(&mut locations);
            if let Some(known) = self.known.get(&entry) {
                locations.push(known.location);
                rest = rest.get(known.entries..).unwrap_or_default();
            } else {
                self.deck.try_add(entry, frame, self.release);
                rest = tail;
            }
        }
        self.emit(&mut locations);
        locations
    }

    /// Returns the locations of a physical stack, innermost first. Its entries are return addresses from an
    /// unwinder. The result has up to `limit` logical frames, as when the runtime unwinds its own stacks
    /// (`runtime.tracebackPCs`).
    pub fn physical(&mut self, stack: &[u64], limit: usize) -> Vec<usize> {
        let expanded = self.expand(stack, limit);
        self.logical(&expanded)
    }

    /// Converts a physical stack to a logical one, with up to `limit` frames (`runtime.tracebackPCs`).
    pub fn expand(&mut self, stack: &[u64], limit: usize) -> Vec<u64> {
        let mut expanded = Vec::with_capacity(stack.len().min(limit));
        let mut elide = true;
        for &entry in stack {
            let room = self.added < MAX_ADDED;
            let Some(place) = self.modules.lookup(entry.wrapping_sub(1)).filter(|_| room) else {
                expanded.push(entry);
                continue;
            };
            let before = expanded.len();
            for frame in &self.inlined_at(place) {
                if !(elide && frame.func_id == self.wrapper_id) {
                    expanded.push(self.entry_of(place, frame));
                }
                elide = elides_wrapper(frame);
            }
            self.added += (expanded.len() - before).saturating_sub(1);
            if expanded.len() >= limit {
                break;
            }
        }
        expanded.truncate(limit);
        expanded
    }

    /// Converts a stack that the runtime recorded by frame pointers to a logical one, with up to `limit`
    /// frames. The runtime has already expanded it where it skipped frames
    /// (`runtime/pprof.expandInlinedFrames`, from Go 1.23). A stack without any Go function becomes one
    /// entry outside of any code.
    pub fn expand_partial(&mut self, stack: &[u64], limit: usize) -> Vec<u64> {
        let mut expanded = Vec::with_capacity(stack.len().min(limit));
        let mut rest = stack.iter().copied().peekable();
        let mut implied = None;
        while expanded.len() < limit {
            let Some(entry) = implied.take().or_else(|| rest.next()) else { break };
            let Some((pc, place)) = self.place_of(entry) else { continue };
            let chain = self.inlined_at(place);
            expanded.push(pc.wrapping_add(1));
            let Some(first) = chain.first().filter(|f| f.inlined) else { continue };
            for outer in chain.iter().skip(1) {
                let next = self.entry_of(place, outer);
                if rest.peek().is_none_or(|&given| given == next) {
                    break;
                }
                if outer.func_id == self.wrapper_id && elides_wrapper(first) {
                    continue;
                }
                if self.added < MAX_ADDED {
                    self.added += 1;
                    implied = Some(next);
                }
                break;
            }
        }
        if expanded.is_empty() && limit > 0 {
            expanded.push(1);
        }
        expanded
    }

    /// Returns true if the function at an entry of a logical stack belongs to the runtime. A heap profile
    /// omits such functions at the inner end.
    pub fn is_of_runtime(&mut self, entry: u64) -> bool {
        if let Some(&known) = self.of_runtime.get(&entry) {
            return known;
        }
        // `runtime.FuncForPC` receives the unchanged entry.
        let name = self.modules.lookup(entry).and_then(|p| self.inlined_at(p).first().map(|f| f.name));
        let answer = name.is_some_and(|name| {
            name.starts_with(b"runtime.")
                || (self.release.hides_internal_runtime() && name.starts_with(b"internal/runtime/"))
        });
        self.of_runtime.insert(entry, answer);
        answer
    }

    /// Returns the symbols of all stacks.
    pub fn finish(mut self) -> Symbols {
        for (mapping, &(tried, failed)) in self.symbols.mappings.iter_mut().zip(&self.tried) {
            mapping.symbolized = tried && !failed;
        }
        self.symbols
    }

    /// Completes a stack that was cut in the middle of inlined calls (`runtime_expandFinalInlineFrame`).
    /// Returns `None` if nothing is missing.
    fn with_last_expanded(&mut self, stack: &[u64]) -> Option<Vec<u64>> {
        let (&last, before) = stack.split_last()?;
        if !self.tails.contains_key(&last) {
            let tail = self.expand_one(last).filter(|tail| self.added + tail.len() <= MAX_ADDED);
            self.added += tail.as_ref().map_or(0, Vec::len);
            self.tails.insert(last, tail);
        }
        let tail = self.tails.get(&last)?.as_deref()?;
        Some([before, tail].concat())
    }

    fn expand_one(&self, last: u64) -> Option<Vec<u64>> {
        let place = self.modules.lookup(last.wrapping_sub(1))?;
        let chain = self.inlined_at(place);
        if chain.len() < 2 {
            return None;
        }
        let mut expanded = Vec::with_capacity(chain.len());
        let mut elide = true;
        for frame in &chain {
            if !(elide && frame.func_id == self.wrapper_id) {
                expanded.push(self.entry_of(place, frame));
            }
            elide = elides_wrapper(frame);
        }
        Some(expanded)
    }

    /// Returns the address that an entry stands for, and its place (`runtime.Frames.Next`).
    fn place_of(&self, entry: u64) -> Option<(u64, Place<'m>)> {
        let place = self.modules.lookup(entry)?;
        let before = if place.link > place.func.entry() { 1 } else { 0 };
        let pc = entry.wrapping_sub(before);
        Some((pc, Place { link: LinkAddr(place.link.0.wrapping_sub(before)), ..place }))
    }

    fn inlined_at(&self, place: Place<'m>) -> Vec<LogicalFrame<'m>> {
        logical_frames(&place.module.image, place.func, place.link)
    }

    fn entry_of(&self, place: Place<'_>, frame: &LogicalFrame<'_>) -> u64 {
        place.module.bias.runtime(frame.pc).0.wrapping_add(1)
    }

    /// Returns the frame of a single entry (`allFrames`).
    fn frame(&mut self, entry: u64) -> FoundFrame<'m> {
        if let Some(&found) = self.frames.get(&entry) {
            return found;
        }
        let found = self.look_up(entry);
        self.frames.insert(entry, found);
        found
    }

    fn look_up(&self, entry: u64) -> FoundFrame<'m> {
        let nowhere = FoundFrame::Frame(Frame { pc: entry.wrapping_sub(1), go: None });
        let Some((pc, place)) = self.place_of(entry) else { return nowhere };
        let chain = self.inlined_at(place);
        let Some(innermost) = chain.first() else { return nowhere };
        if innermost.name == b"runtime.goexit" {
            return FoundFrame::Goexit;
        }
        let go = GoFrame {
            name: innermost.name,
            file: innermost.file,
            line: innermost.line,
            start_line: innermost.start_line.unwrap_or(0),
            inlined: innermost.inlined,
            entry: place.module.bias.runtime(place.func.entry()).0,
        };
        FoundFrame::Frame(Frame { pc, go: Some(go) })
    }

    /// Creates a location from the deck (`emitLocation`).
    fn emit(&mut self, locations: &mut Vec<usize>) {
        let entries = std::mem::take(&mut self.deck.entries);
        let frames = std::mem::take(&mut self.deck.frames);
        let (Some(&entry), Some(&first)) = (entries.first(), frames.first()) else { return };
        let mut lines = Vec::with_capacity(frames.len());
        for frame in &frames {
            let Some(go) = frame.go else { continue };
            lines.push(Line { function: self.function(go), line: go.line });
        }
        let unnamed = |go: GoFrame<'_>| go.name.is_empty() || go.file.is_empty() || go.line == 0;
        let failed = frames.iter().any(|frame| frame.go.is_none_or(unnamed));
        let mapping = self.symbols.mappings.iter().position(|m| (m.start..m.end).contains(&entry));
        if let Some((tried, any)) = mapping.and_then(|i| self.tried.get_mut(i)) {
            *tried = true;
            *any |= failed;
        }
        let location = self.symbols.locations.len();
        self.symbols.locations.push(Location { mapping, address: first.pc, lines });
        self.known.insert(entry, Known { location, entries: entries.len(), first });
        locations.push(location);
    }

    fn function(&mut self, frame: GoFrame<'m>) -> usize {
        let key = (frame.name, frame.file);
        if let Some(&known) = self.functions.get(&key) {
            return known;
        }
        let mut text = |bytes: &[u8]| {
            let room = MAX_TEXT.min(self.room.saturating_sub(self.texts));
            let bytes = bytes.get(..room).unwrap_or(bytes);
            self.texts += bytes.len();
            String::from_utf8_lossy(bytes).into_owned()
        };
        // From Go 1.21 type arguments are written in full; before, the linker has already shortened them.
        let name = text(frame.name);
        let file = text(frame.file);
        let function = Function { system_name: name.clone(), name, file, start_line: frame.start_line };
        let index = self.symbols.functions.len();
        self.symbols.functions.push(function);
        self.functions.insert(key, index);
        index
    }
}

/// Returns true if stacks omit a wrapper that called this function (`elideWrapperCalling`).
fn elides_wrapper(callee: &LogicalFrame<'_>) -> bool {
    !matches!(callee.name, b"runtime.gopanic" | b"runtime.sigpanic" | b"runtime.panicwrap")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO_1_21: GoRelease = GoRelease::of_minor(21);
    const GO_1_22: GoRelease = GoRelease::of_minor(22);
    const GO_1_27: GoRelease = GoRelease::of_minor(27);

    fn frame(name: &'static str, entry: u64, inlined: bool) -> Frame<'static> {
        let go = GoFrame { name: name.as_bytes(), file: b"f.go", line: 1, start_line: 0, inlined, entry };
        Frame { pc: entry + 1, go: Some(go) }
    }

    #[test]
    fn what_is_one_location() {
        let mut deck = Deck::default();
        assert!(deck.try_add(1, frame("inner[int]", 100, true), GO_1_27));
        assert!(!deck.try_add(2, frame("other", 200, false), GO_1_27), "of another function");
        assert!(!deck.try_add(2, frame("inner[int]", 100, true), GO_1_27), "recursion");
        assert!(!deck.try_add(2, Frame { pc: 0, go: None }, GO_1_27), "not of Go");
        // Go 1.21 compares names without type arguments.
        assert!(!deck.try_add(2, frame("inner[string]", 100, true), GO_1_21));
        assert!(deck.try_add(2, frame("inner[string]", 100, true), GO_1_22));
        assert!(deck.try_add(3, frame("outer", 100, false), GO_1_27));
        assert!(!deck.try_add(4, frame("caller", 100, false), GO_1_27), "the outermost ends it");
        assert_eq!(deck.entries, [1, 2, 3]);
        let mut foreign = Deck::default();
        assert!(foreign.try_add(1, Frame { pc: 0, go: None }, GO_1_27));
        assert!(!foreign.try_add(2, frame("caller", 100, false), GO_1_27));
    }
}
