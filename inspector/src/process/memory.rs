//! Memory of a running process.
//!
//! A read is not atomic: the process writes meanwhile. Half of a word must never be seen. The
//! kernel copies words whole if both sides have the same alignment. Otherwise it copies byte by
//! byte, or across words; a 64-bit word is then torn in up to two of a hundred reads. So the one
//! function that reads takes only whole words of eight bytes, into memory that is aligned as they
//! are. The requested bytes are cut out of them. Words do not cross pages, so no read can fail
//! because of the added bytes.

mod presence;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::IoSliceMut;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use symbols::addr::RuntimeAddr;

use presence::Presence;

use super::threads::living_thread;
use crate::memory::{Memory, MemoryError, ReadCost, Span};
use crate::patience::{What, waiting};

/// Memory of a running process, read by `process_vm_readv`. The target does not notice.
#[derive(Debug)]
struct LiveMemory {
    pid: Pid,
    /// Thread id by which the kernel finds the memory: the main thread, or another one if the main
    /// thread has ended.
    thread: Cell<Pid>,
    bytes: Cell<u64>,
    calls: Cell<u64>,
    /// Buffer for whole words if less was requested.
    words: RefCell<Vec<u64>>,
    /// True if we have stopped the process.
    stopped: Cell<bool>,
    presence: RefCell<Option<Presence>>,
    /// Addresses of pages that were to be read in a stop and were absent.
    absent: RefCell<BTreeSet<u64>>,
}

/// Makes a reader of the memory of a process that is not pinned. A stop of one of its threads must
/// hold it while it is read.
pub(crate) fn memory_of(pid: super::Pid) -> impl Memory + use<> {
    LiveMemory::new(pid.as_raw())
}

/// Limit `UIO_MAXIOV`: the kernel takes no more ranges in a call.
const MAX_IOVECS: usize = 1024;
/// Maximum number of pages that are remembered to be fetched: more than a sensible answer needs.
const MAX_ABSENT: usize = 1 << 12;
/// Size of a word in bytes. The kernel copies it as one if both sides are aligned to it.
const WORD: usize = size_of::<u64>();
/// Maximum number of words read at a time if they are copied once more, so that they stay in the
/// processor's cache.
const MAX_COPIED: usize = (512 << 10) / WORD;

impl LiveMemory {
    /// Makes a reader of the memory of process `pid`.
    fn new(pid: i32) -> Self {
        let pid = Pid::from_raw(pid);
        LiveMemory {
            pid,
            thread: Cell::new(pid),
            bytes: Cell::new(0),
            calls: Cell::new(0),
            words: RefCell::default(),
            stopped: Cell::new(false),
            presence: RefCell::default(),
            absent: RefCell::default(),
        }
    }

    /// Number of `ranges`, from the first on, that can be read now.
    fn readable(&self, ranges: &[Range]) -> usize {
        if !self.stopped.get() {
            return ranges.len();
        }
        let mut presence = self.presence.borrow_mut();
        let Some(presence) = &mut *presence else { return ranges.len() };
        let mut absent =
            |range: &Range| presence.first_absent(range.base as u64, (range.words * WORD) as u64);
        let Some((i, page)) = ranges.iter().enumerate().find_map(|(i, r)| Some((i, absent(r)?))) else {
            return ranges.len();
        };
        let mut known = self.absent.borrow_mut();
        if known.len() < MAX_ABSENT {
            known.insert(page);
        }
        i
    }

    /// Reads the words of `remote` back to back. Returns the number of bytes before the first
    /// unreadable one.
    fn transfer(&self, local: Words<'_>, remote: &[Range]) -> Result<usize, Errno> {
        let one;
        let many: Vec<RemoteIoVec>;
        let remote: &[RemoteIoVec] = if let [range] = remote {
            one = [range.remote()];
            &one
        } else {
            many = remote.iter().map(Range::remote).collect();
            &many
        };
        let at = RuntimeAddr(remote.first().map_or(0, |range| range.base as u64));
        let what = What::Memory(self.pid.as_raw(), at);
        let read = |local: &mut [u8]| {
            waiting(what, || process_vm_readv(self.thread.get(), &mut [IoSliceMut::new(local)], remote))
        };
        let mut result = read(local.0);
        self.calls.set(self.calls.get() + 1);
        if result == Err(Errno::ESRCH)
            && let Some(thread) = self.pid.as_raw().cast_unsigned().try_into().ok().and_then(living_thread)
        {
            self.thread.set(thread.into());
            result = read(local.0);
            self.calls.set(self.calls.get() + 1);
        }
        if let Ok(n) = result {
            self.bytes.set(self.bytes.get() + n as u64);
        }
        result
    }

    /// Reads all words of a range, or fails.
    fn whole(&self, mut range: Range, local: Words<'_>, addr: RuntimeAddr) -> Result<(), MemoryError> {
        let mut rest = local.0;
        if self.readable(&[range]) == 0 {
            return Err(MemoryError::Unmapped(addr));
        }
        while range.words > 0 {
            match self.transfer(Words(&mut *rest), &[range]) {
                // A word that was read only in part is read again.
                Ok(n) if n >= WORD => {
                    let words = n / WORD;
                    rest = rest.get_mut(words * WORD..).unwrap_or_default();
                    range =
                        Range { base: range.base + words * WORD, words: range.words.saturating_sub(words) };
                }
                Ok(_) => return Err(MemoryError::Unmapped(addr)),
                Err(errno) => return Err(error(errno, addr.0)),
            }
        }
        Ok(())
    }

    /// Reads `ranges` back to back into `local`, in one call. Returns the number of ranges that
    /// were looked at, and true if the last of these could not be read.
    fn some(&self, ranges: &[Range], local: Words<'_>) -> Result<(usize, bool), MemoryError> {
        let readable = ranges.get(..self.readable(ranges)).unwrap_or_default();
        let got = if readable.is_empty() { Ok(0) } else { self.transfer(local, readable) };
        let got = match got {
            Ok(n) => n,
            Err(Errno::EFAULT | Errno::EIO | Errno::ENOMEM) => 0,
            Err(errno) => return Err(error(errno, ranges.first().map_or(0, |range| range.base as u64))),
        };
        // The kernel stops at the first unreadable byte: all words before it are whole.
        let mut whole = 0;
        for (i, range) in ranges.iter().enumerate() {
            whole += range.words * WORD;
            if whole > got {
                return Ok((i + 1, true));
            }
        }
        Ok((ranges.len(), false))
    }

    /// Reads some of `spans` through a buffer of words, as [`LiveMemory::some`] does.
    fn copied(&self, spans: &[Span], out: &mut [u8]) -> Result<(usize, bool), MemoryError> {
        let (mut ranges, mut total) = (Vec::with_capacity(spans.len()), 0);
        for span in spans {
            // A span beyond the end of the address space is looked at alone, and fails.
            let Some(range) = Range::around(span) else { break };
            if total + range.words > MAX_COPIED && !ranges.is_empty() {
                break;
            }
            total += range.words;
            ranges.push(range);
        }
        if ranges.is_empty() {
            return Ok((1, true));
        }
        let mut words = self.words.borrow_mut();
        if words.len() < total {
            words.resize(total, 0);
        }
        let words = words.get_mut(..total).unwrap_or_default();
        let (done, failed) = self.some(&ranges, Words::of(&mut *words))?;
        let (mut bytes, mut rest) = (&*Words::of(words).0, out);
        for (span, range) in spans.iter().zip(&ranges).take(done - usize::from(failed)) {
            let (its, behind) = bytes.split_at_checked(range.words * WORD).unwrap_or_default();
            let (to, out) = rest.split_at_mut_checked(span.len).unwrap_or_default();
            if let Some(wanted) = range.cut(span, its) {
                to.copy_from_slice(wanted);
            }
            (bytes, rest) = (behind, out);
        }
        Ok((done, failed))
    }
}

/// Range of words of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    /// Start address, a multiple of [`WORD`].
    base: usize,
    words: usize,
}

impl Range {
    /// Words that contain a span; `None` if the span exceeds the address space.
    fn around(span: &Span) -> Option<Self> {
        let start = usize::try_from(span.addr).ok()?;
        let end = start.checked_add(span.len)?;
        if span.len == 0 {
            return Some(Range { base: start - start % WORD, words: 0 });
        }
        let end = end.checked_next_multiple_of(WORD)?;
        let base = start - start % WORD;
        Some(Range { base, words: (end - base) / WORD })
    }

    /// Bytes of the span among the bytes of its words.
    fn cut<'b>(&self, span: &Span, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let skipped = usize::try_from(span.addr).ok()?.checked_sub(self.base)?;
        bytes.get(skipped..skipped.checked_add(span.len)?)
    }

    fn remote(&self) -> RemoteIoVec {
        RemoteIoVec { base: self.base, len: self.words * WORD }
    }
}

/// Buffer for whole words, aligned to words. Every read of the target fills such a buffer.
#[derive(Debug)]
struct Words<'b>(&'b mut [u8]);

impl<'b> Words<'b> {
    /// Uses a slice of words as a buffer.
    fn of(words: &'b mut [u64]) -> Self {
        // SAFETY: bytes need no alignment, all bytes of the words are initialised, and any bytes
        // make words.
        let (_, bytes, _) = unsafe { words.align_to_mut::<u8>() };
        Words(bytes)
    }

    /// Uses `buf` directly if it is aligned and all spans are whole words; else returns it as an
    /// error.
    fn fit(spans: &[Span], buf: &'b mut [u8]) -> Result<Self, &'b mut [u8]> {
        let is_whole = |s: &Span| s.addr.is_multiple_of(WORD as u64) && s.len.is_multiple_of(WORD);
        if buf.as_ptr().addr().is_multiple_of(WORD) && spans.iter().all(is_whole) {
            Ok(Words(buf))
        } else {
            Err(buf)
        }
    }
}

fn error(errno: Errno, addr: u64) -> MemoryError {
    match errno {
        Errno::EFAULT | Errno::EIO | Errno::ENOMEM => MemoryError::Unmapped(RuntimeAddr(addr)),
        Errno::ESRCH => MemoryError::Exited,
        Errno::EPERM => MemoryError::Denied,
        other => MemoryError::Os(other),
    }
}

impl Memory for LiveMemory {
    fn another(&self) -> Box<dyn Memory> {
        Box::new(LiveMemory::new(self.pid.as_raw()))
    }

    fn cost(&self) -> ReadCost {
        ReadCost { bytes: self.bytes.get(), calls: self.calls.get() }
    }

    fn add_cost(&self, cost: ReadCost) {
        self.bytes.set(self.bytes.get() + cost.bytes);
        self.calls.set(self.calls.get() + cost.calls);
    }

    fn prepare_stop(&self) {
        let mut presence = self.presence.borrow_mut();
        if presence.is_none() {
            // The main thread may have ended.
            let thread = self.pid.as_raw().cast_unsigned().try_into().ok().and_then(living_thread);
            *presence = Presence::of(thread.map_or(self.pid.as_raw(), |thread| Pid::from(thread).as_raw()));
        }
    }

    fn set_stopped(&self, stopped: bool) {
        if stopped {
            self.prepare_stop();
            if let Some(presence) = &mut *self.presence.borrow_mut() {
                presence.forget();
            }
        }
        self.stopped.set(stopped);
    }

    fn fetch_absent(&self) -> bool {
        let absent = std::mem::take(&mut *self.absent.borrow_mut());
        let mut byte = [0];
        // All pages are tried, also after one that has arrived.
        absent.into_iter().filter(|&page| self.read(RuntimeAddr(page), &mut byte).is_ok()).count() > 0
    }

    fn read(&self, addr: RuntimeAddr, buf: &mut [u8]) -> Result<(), MemoryError> {
        let span = Span { addr: addr.0, len: buf.len() };
        let range = Range::around(&span).ok_or(MemoryError::Unmapped(addr))?;
        let buf = match Words::fit(&[span], buf) {
            Ok(local) => return self.whole(range, local, addr),
            Err(buf) => buf,
        };
        let mut words = self.words.borrow_mut();
        if words.len() < range.words.min(MAX_COPIED) {
            words.resize(range.words.min(MAX_COPIED), 0);
        }
        let (mut at, mut rest) = (addr.0, buf);
        while !rest.is_empty() {
            let all = Span { addr: at, len: rest.len() };
            let all = Range::around(&all).ok_or(MemoryError::Unmapped(addr))?;
            let now = Range { words: all.words.min(MAX_COPIED), ..all };
            let local = words.get_mut(..now.words).unwrap_or_default();
            self.whole(now, Words::of(&mut *local), addr)?;
            // The range may begin and end within a word.
            let ends = now.base as u64 + (now.words * WORD) as u64;
            let len = usize::try_from(ends - at).unwrap_or(rest.len()).min(rest.len());
            let (to, behind) = rest.split_at_mut(len);
            let wanted = now.cut(&Span { addr: at, len }, Words::of(local).0);
            to.copy_from_slice(wanted.ok_or(MemoryError::Unmapped(addr))?);
            (at, rest) = (at + len as u64, behind);
        }
        Ok(())
    }

    fn read_spans(&self, spans: &[Span], out: &mut [u8], failed: &mut Vec<usize>) -> Result<(), MemoryError> {
        let (mut next, mut out) = (0, out);
        while let Some(rest) = spans.get(next..).filter(|rest| !rest.is_empty()) {
            let now = rest.get(..MAX_IOVECS).unwrap_or(rest);
            let total = now.iter().try_fold(0, |sum: usize, span| sum.checked_add(span.len));
            let Some(local) = total.and_then(|total| out.get_mut(..total)) else {
                return Err(MemoryError::Os(Errno::EINVAL));
            };
            // A span that does not fit shifts those after it: then all are copied, and still read
            // at once.
            let (done, last_failed) = match Words::fit(now, local) {
                Ok(local) => {
                    let ranges: Vec<Range> = now.iter().map_while(Range::around).collect();
                    if ranges.is_empty() { (1, true) } else { self.some(&ranges, local)? }
                }
                Err(local) => self.copied(now, local)?,
            };
            let looked_at: usize = now.iter().take(done).map(|span| span.len).sum();
            out = std::mem::take(&mut out).get_mut(looked_at..).unwrap_or_default();
            next += done;
            if last_failed {
                failed.push(next - 1);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test that gets no thread has failed")]

    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    fn ours() -> LiveMemory {
        LiveMemory::new(i32::try_from(std::process::id()).unwrap())
    }

    #[test]
    fn batches_go_on_behind_a_hole() {
        let data: Vec<u8> = (0..64).collect();
        let live = ours();
        let at = |i: usize, len| Span { addr: data[i..].as_ptr() as u64, len };
        let beyond = Span { addr: u64::MAX - 2, len: 8 };
        for skipped in 0..8 {
            for spans in [
                vec![at(0, 8), Span { addr: 8, len: 8 }, at(8, 8), at(16, 8)],
                vec![at(3, 8), Span { addr: 8, len: 3 }, at(8, 2), at(16, 7), at(5, 0), beyond, at(9, 1)],
                vec![beyond, at(9, 1)],
                vec![Span { addr: u64::MAX - 7, len: 8 }, at(8, 16)],
            ] {
                let total: usize = spans.iter().map(|s| s.len).sum();
                let (mut out, mut failed) = (vec![0; total + skipped], Vec::new());
                live.read_spans(&spans, &mut out[skipped..], &mut failed).unwrap();
                let mut begins = skipped;
                for (i, span) in spans.iter().enumerate() {
                    let from = span.addr.wrapping_sub(data.as_ptr() as u64) as usize;
                    match data.get(from..from.saturating_add(span.len)) {
                        Some(bytes) => assert_eq!(out[begins..begins + span.len], *bytes, "{spans:?}"),
                        None => assert!(failed.contains(&i), "{spans:?}"),
                    }
                    begins += span.len;
                }
                assert_eq!(failed.len(), spans.iter().filter(|s| s.addr < 16 || s.addr > 1 << 60).count());
            }
        }
    }

    #[test]
    fn what_is_cut_out_of_words_is_what_was_asked_for() {
        let data: Vec<u8> = (0..MAX_COPIED * WORD * 2 + 100).map(|i| (i % 251) as u8).collect();
        for (from, len) in [(0, 8), (1, 1), (7, 2), (3, 4096), (5, data.len() - 9), (8, data.len() - 16)] {
            let mut buf = vec![0; len + 1];
            for skipped in [0, 1] {
                let buf = &mut buf[skipped..skipped + len];
                ours().read(RuntimeAddr(data[from..].as_ptr() as u64), buf).unwrap();
                assert_eq!(*buf, data[from..from + len], "{from} {len}");
            }
        }
    }

    #[test]
    fn a_process_that_is_not_there() {
        let live = LiveMemory::new(i32::MAX);
        assert_eq!(live.word(RuntimeAddr(4096)), Err(MemoryError::Exited));
    }

    /// Worst case of a writer: all bits of each word change at once. A word that was read is all
    /// ones or all zeros.
    #[test]
    fn no_word_is_torn() {
        const WORDS: usize = 64;
        let words: Vec<AtomicU64> = (0..=WORDS).map(|_| AtomicU64::new(0)).collect();
        let end = AtomicBool::new(false);
        let at = |word: usize, byte: usize| words[word..].as_ptr() as u64 + byte as u64;
        let torn = |bytes: &[u8]| bytes.chunks(8).filter(|word| word.iter().any(|&b| b != word[0])).count();
        let mut found = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    for word in &words {
                        word.store(!word.load(Ordering::Relaxed), Ordering::Relaxed);
                    }
                }
            });
            let live = ours();
            let mut out = vec![0; WORDS * 8];
            for _ in 0..30_000 {
                // A field of four bytes shifts what is read after it.
                let all = 8 * (WORDS - 1);
                let spans = [Span { addr: at(0, 4), len: 4 }, Span { addr: at(1, 0), len: all }];
                let mut failed = Vec::new();
                live.read_spans(&spans, &mut out[..4 + all], &mut failed).unwrap();
                assert!(failed.is_empty());
                found += torn(&out[..4]) + torn(&out[4..4 + all]);
                // Read to an unaligned buffer, and from within a word.
                live.read(RuntimeAddr(at(0, 0)), &mut out[1..1 + all]).unwrap();
                found += torn(&out[1..1 + all]);
                live.read(RuntimeAddr(at(0, 4)), &mut out[..4 + all]).unwrap();
                found += torn(&out[..4]) + torn(&out[4..4 + all]);
            }
            end.store(true, Ordering::Relaxed);
        });
        assert_eq!(found, 0);
    }

    /// The type [`Words`] prevents torn words, so no other code may read memory.
    #[test]
    fn nothing_else_reads_a_process() {
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut folders = vec![sources.clone()];
        let mut readers = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let reads = ["process_vm_readv(", "PTRACE_PEEK", "ptrace::read", "/mem\"", "\"mem\""];
                if reads.iter().any(|call| text.contains(call)) {
                    readers.push(path.strip_prefix(&sources).unwrap().display().to_string());
                }
            }
        }
        assert_eq!(readers, ["process/memory.rs"]);
    }
}
