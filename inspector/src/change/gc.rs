//! Forced garbage collection.
//!
//! The runtime collects by itself if the last collection is older than two minutes (`gcTriggerTime` of
//! `gcTrigger.test`, runtime/mgc.go). So gops-probe makes the time of the last one,
//! `memstats.last_gc_nanotime`, very old: `sysmon` sees it and wakes the goroutine for forced collections. At
//! the end of the cycle the runtime writes the time again, so nothing is left to restore. The field has no
//! other reader in Go 1.18 to 1.27.
//!
//! If no P has work, `sysmon` itself sleeps, for up to a minute. Gops-probe wakes it as `exitsyscall` does,
//! by `sched.sysmonwait` and the word that it sleeps on, with all threads stopped and `sched.lock` free. The
//! kernel restarts the wait of a thread that was stopped in it, and finds that the word has changed.
//!
//! GOGC=off switches that trigger off too. Until the cycle has begun, GOGC is set to a value that causes no
//! other collection either: `heapMinimum` stays as with GOGC=off, and the heap does not get that large. A
//! [guard](super::guard) and the [journal](super::journal) ensure that GOGC is restored.

use std::time::{Duration, Instant};

use super::guard::{self, Claim, Guard, Times};
use super::journal::{Entry, Journal};
use super::pacer;
use super::verified::{SWEPT, VerifiedRuntime};
use super::word::{Outcome, Word, Writer};
use super::{ChangeOptions, Turn, refused, stop_all, stopped};
use crate::Error;

/// Value written as the time of the last collection: longer ago than any uptime, and without overflow in
/// arithmetic.
const LONG_AGO: u64 = (-(1i64 << 62)).cast_unsigned();
/// GOGC for the moment in which it must not be off. The value is near the one that the runtime itself uses
/// for off in a forced collection (100000, `gcControllerState.revise`); no program sets it.
pub(super) const ALMOST_OFF: i32 = 100_003;
/// Polling interval.
const STEP: Duration = Duration::from_micros(500);
/// Minimum time that sysmon is seen asleep before it is woken. While anything runs, it looks again after 10
/// ms at most.
const GRACE: Duration = Duration::from_millis(5);

/// Sizes of the heap in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heap {
    /// Bytes alive or allocated since the last cycle (`gcController.heapLive`).
    pub live: u64,
    /// Bytes allocated and not freed, as counted by the runtime's central lists (`gcController.totalAlloc`
    /// less `totalFree`); from Go 1.19.
    pub allocated: Option<u64>,
    /// Bytes in spans in use (`gcController.heapInUse`); from Go 1.19.
    pub in_use: Option<u64>,
}

/// Result of a forced collection.
#[derive(Debug, Clone, Default)]
pub struct Collection {
    /// Number of the cycle (`runtime.MemStats.NumGC` after it).
    pub cycle: u64,
    /// Heap before the collection.
    pub before: Heap,
    /// Heap after the collection.
    pub after: Heap,
    /// Bytes that the cycle found alive (`gcController.heapMarked`).
    pub marked: u64,
    /// Time from the request to the end of the cycle.
    pub duration: Duration,
    /// True if the spans of the cycle were swept in time.
    pub swept: bool,
    /// Number of stops of all threads, to wake sysmon.
    pub stops: u32,
    /// Total time for which all threads were stopped.
    pub stopped: Duration,
    /// True if GOGC was off and was set for a moment.
    pub was_off: bool,
    /// Words written; in a dry run, words that would have been written.
    pub written: Vec<Word>,
}

/// Forces a collection and waits for its end.
///
/// # Errors
/// Returns [`Error::Uncalibrated`] or [`Error::Refused`] if nothing was written, and [`Error::Failed`] if the
/// collection did not happen in time and everything is restored.
pub fn collect(subject: &VerifiedRuntime<'_>, options: &ChangeOptions<'_>) -> Result<Collection, Error> {
    let process = subject.process;
    // If sysmon sleeps, a stop is needed; a process that somebody else traces cannot be stopped.
    let deadline = Instant::now() + options.timeout;
    if subject.read("runtime.sched", "sysmonwait")? == 1 {
        Turn { deadline, interrupted: options.interrupted }.wait(process)?;
    }
    let writer = Writer::new(process, options.dry_run)?;
    if options.dry_run {
        return plan(subject, &writer);
    }
    let journal = Journal::open(process)?;
    let mut request =
        Request { subject, options, writer, journal, guard: None, deadline, done: Collection::default() };
    let result = request.run();
    let cleaned = request.clean();
    let Request { writer, journal, done, .. } = request;
    result?;
    cleaned?;
    journal.close();
    Ok(Collection { written: writer.written().to_vec(), ..done })
}

/// Plans the writes of a dry run.
fn plan(subject: &VerifiedRuntime<'_>, writer: &Writer<'_>) -> Result<Collection, Error> {
    let off = subject.gc_percent()? < 0;
    let mut words = Vec::new();
    if off {
        words.push(almost_off(subject)?);
    }
    let last = subject.read("runtime.memstats", "last_gc_nanotime")?;
    words.push(subject.word("runtime.memstats", "last_gc_nanotime", last, LONG_AGO)?);
    if subject.read("runtime.sched", "sysmonwait")? == 1 {
        words.extend(wake_words(subject)?);
    }
    if off {
        let word = almost_off(subject)?;
        words.push(Word { before: word.after, after: word.before, ..word });
    }
    for word in &words {
        writer.check_place(word.at, word.width, &word.name)?;
    }
    let before = heap(subject)?;
    let cycle = subject.read("runtime.memstats", "numgc")?;
    Ok(Collection { cycle, before, after: before, was_off: off, written: words, ..Collection::default() })
}

fn almost_off(subject: &VerifiedRuntime<'_>) -> Result<Word, Error> {
    let off = u64::from((-1i32).cast_unsigned());
    subject.word("runtime.gcController", "gcPercent", off, u64::from(ALMOST_OFF.cast_unsigned()))
}

fn wake_words(subject: &VerifiedRuntime<'_>) -> Result<[Word; 2], Error> {
    Ok([
        subject.word("runtime.sched", "sysmonwait", 1, 0)?,
        // A note is a word of 8 bytes; the kernel's futex is its lower half.
        subject.word("runtime.sched", "sysmonnote.key", 0, 1)?,
    ])
}

fn heap(subject: &VerifiedRuntime<'_>) -> Result<Heap, Error> {
    let field = |name| subject.read("runtime.gcController", name);
    let counts = subject.view.release.counts_heap_in_controller();
    let counted = || Ok::<u64, Error>(field("totalAlloc")?.saturating_sub(field("totalFree")?));
    Ok(Heap {
        live: field("heapLive")?,
        allocated: counts.then(counted).transpose()?,
        in_use: counts.then(|| field("heapInUse")).transpose()?,
    })
}

struct Request<'a, 'p> {
    subject: &'a VerifiedRuntime<'p>,
    options: &'a ChangeOptions<'a>,
    writer: Writer<'p>,
    journal: Journal,
    guard: Option<Guard>,
    deadline: Instant,
    done: Collection,
}

impl Request<'_, '_> {
    fn run(&mut self) -> Result<(), Error> {
        let subject = self.subject;
        // A cycle that already runs is not the requested one.
        while subject.read("runtime.gcphase", "")? != 0 {
            self.go_on("a collection that was running has not ended")?;
        }
        self.done.before = heap(subject)?;
        if subject.gc_percent()? < 0 {
            self.switch_on()?;
        }
        let begun = Instant::now();
        self.ask()?;
        // A cycle that begins after this moment was requested, or serves as well.
        let target = subject.read("runtime.work", "cycles")?.wrapping_add(1);
        self.await_cycle(target)?;
        self.done.duration = begun.elapsed();
        self.done.cycle = subject.read("runtime.memstats", "numgc")?;
        self.done.marked = subject.read("runtime.gcController", "heapMarked")?;
        // The freed memory is known only after sweeping.
        loop {
            self.done.swept = subject.read("runtime.sweep", "active.state")? == SWEPT;
            // The next cycle has begun; this one was swept before.
            let next = subject.read("runtime.gcphase", "")? != 0;
            self.done.swept |= next;
            if self.done.swept || self.go_on("").is_err() {
                break;
            }
        }
        self.done.after = heap(subject)?;
        Ok(())
    }

    /// Writes a time long ago as the time of the last collection.
    fn ask(&mut self) -> Result<(), Error> {
        loop {
            // Gops-probe may have been stopped since the last check.
            self.in_time("it was not asked for")?;
            let last = self.subject.read("runtime.memstats", "last_gc_nanotime")?;
            let word = self.subject.word("runtime.memstats", "last_gc_nanotime", last, LONG_AGO)?;
            if last == LONG_AGO || self.writer.write(&[word])? == Outcome::Written {
                return Ok(());
            }
            self.go_on("collections end one after the other")?;
        }
    }

    fn await_cycle(&mut self, target: u64) -> Result<(), Error> {
        let subject = self.subject;
        let mut asleep: Option<Instant> = None;
        loop {
            let ended = subject.read("runtime.memstats", "numgc")?;
            if ended.wrapping_sub(target) & u64::from(u32::MAX) < 1 << 31 {
                return Ok(());
            }
            let running = subject.read("runtime.gcphase", "")? != 0;
            if running {
                // The cycle has begun: from here on, the runtime itself would continue with GOGC=off.
                if subject.read("runtime.work", "cycles")?.wrapping_sub(target) & u64::from(u32::MAX)
                    < 1 << 31
                {
                    self.switch_off()?;
                }
                asleep = None;
            } else {
                // A cycle that had begun just before has written the time again.
                self.ask()?;
                if subject.read("runtime.sched", "sysmonwait")? == 1 {
                    let since = *asleep.get_or_insert_with(Instant::now);
                    if since.elapsed() >= GRACE {
                        self.wake()?;
                        asleep = None;
                    }
                } else {
                    asleep = None;
                }
            }
            self.go_on("the runtime has not collected")?;
        }
    }

    /// Wakes sysmon, if it sleeps and no other thread holds the scheduler's lock.
    fn wake(&mut self) -> Result<(), Error> {
        let turn = Turn { deadline: self.deadline, interrupted: self.options.interrupted };
        let stopped = stop_all(self.subject.process, &turn)?;
        self.done.stops += 1;
        let in_stop = self.subject.in_stop();
        let free = self.subject.read("runtime.sched", "lock.key")? == 0;
        let result = if free { self.writer.write(&wake_words(self.subject)?).map(drop) } else { Ok(()) };
        drop(in_stop);
        self.done.stopped += stopped.thaw();
        result
    }

    /// Sets GOGC, which is off, so that time can trigger a collection.
    fn switch_on(&mut self) -> Result<(), Error> {
        let subject = self.subject;
        let word = almost_off(subject)?;
        let mut undo = vec![Entry::undo(&word, false)];
        // If the cycle ends before GOGC is off again, the pacer computes a goal from it: the smallest heap.
        let least = pacer::heap_minimum(-1);
        let fields: &[&str] = if subject.view.release.computes_heap_goal() {
            &["gcPercentHeapGoal"]
        } else {
            &["trigger", "heapGoal"]
        };
        for field in fields {
            let now = subject.read("runtime.gcController", field)?;
            undo.push(Entry::undo(&subject.word("runtime.gcController", field, now, least)?, false));
        }
        let time = self.options.timeout + guard::GRACE;
        let times = Times { opening: time, open: time };
        self.journal.note(subject.process, &undo, times.total())?;
        let guard = Guard::start(self.options.guard, subject.process, &self.journal, times)?;
        let guard = self.guard.insert(guard);
        if !guard.is_in_time() {
            return Err(refused(
                subject.process,
                "gops-probe was stopped, or got no CPU, for longer than this may take",
            ));
        }
        let written = self.writer.write(&[word]);
        guard.written();
        self.done.was_off = written? == Outcome::Written;
        Ok(())
    }

    fn switch_off(&mut self) -> Result<(), Error> {
        if self.done.was_off && self.subject.gc_percent()? == ALMOST_OFF {
            let word = almost_off(self.subject)?;
            self.writer.write(&[Word { before: word.after, after: word.before, ..word }])?;
        }
        Ok(())
    }

    /// Restores everything, except the effect of the collection.
    fn clean(&mut self) -> Result<(), Error> {
        let process = self.subject.process;
        if process.check().is_err() {
            return Ok(());
        }
        if !self.journal.is_empty() {
            match self.guard.as_mut().map_or(Claim::Ours, Guard::claim) {
                Claim::Ours => drop(self.journal.restore(process)?),
                Claim::Ended { .. } => {
                    self.journal.was_restored();
                    if let Some(guard) = self.guard.take() {
                        guard.dismiss();
                    }
                    return Err(Error::Failed(format!(
                        "process {}: gops-probe was stopped, or got no CPU, until the time of {:?} was over; what was set \
                         for the collection was put back without it",
                        process.pid(),
                        self.options.timeout
                    )));
                }
            }
        }
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
        // A request without effect is taken back: the last time that the runtime wrote is that of the last
        // pause.
        if self.subject.read("runtime.memstats", "last_gc_nanotime")? == LONG_AGO
            && let Some(word) =
                self.writer.written().iter().rfind(|w| w.name == "memstats.last_gc_nanotime").cloned()
        {
            self.writer.write(&[Word { before: word.after, after: word.before, ..word }])?;
        }
        Ok(())
    }

    /// Waits a moment, or returns the reason to end.
    fn go_on(&self, what: &str) -> Result<(), Error> {
        self.in_time(what)?;
        std::thread::sleep(STEP);
        Ok(())
    }

    /// Checks that the request may go on: it is not interrupted, the process lives, and the deadline is not
    /// over.
    fn in_time(&self, what: &str) -> Result<(), Error> {
        if (self.options.interrupted)() {
            return Err(Error::Interrupted);
        }
        self.subject.process.check()?;
        if Instant::now() >= self.deadline {
            if self.subject.process.stat()?.is_stopped() {
                return Err(stopped(self.subject.process, "it was stopped meanwhile"));
            }
            return Err(Error::Failed(format!(
                "process {}: {what} within {:?}; everything is as it was",
                self.subject.process.pid(),
                self.options.timeout
            )));
        }
        Ok(())
    }
}
