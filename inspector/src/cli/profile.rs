//! The profiles: read from outside or asked of an agent, and written in any format.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use super::args::{Common, CpuProfileArgs, Format, FormatArgs, RuntimeProfileArgs, Via, WayArgs};
use super::capture::catch;
use super::destination::{About, Content, Destination, Failed, Form, Written};
use super::interrupt::Interrupt;
use super::opening::{Tool, show};
use super::progress::Progress;
use super::reading::Reading;
use super::style::Style;
use super::target::Found;
use super::transport::copy_from_agent;
use super::via::{Chosen, agent_only, choose};
use super::{output, stack, window};
use crate::Error;
use crate::agent::payload::Payload;
use crate::agent::{AgentTarget, Connection, Signal};
use crate::memory::LiveMemory;
use crate::process::Process;
use crate::profile::json::ProfileAnswer;
use crate::profile::text::Bounds;
use crate::profile::{
    self, MAX_WRITTEN, Profile, WriteError, flamegraph, folded, mappings, pprof, speedscope, text,
};
use crate::report::answers::{ProfileOf, Source, Sourced};
use crate::report::printable::printable_str;
use crate::report::stack::Cost;
use crate::runtime::buckets::{BucketsError, Profilers, Sampling, Tables, TicksPerSecond};
use crate::runtime::open::{memory_error, open};
use crate::runtime::record::RecordError;
use crate::runtime::snapshot::{Options, Pause};
use crate::runtime::stack_counts::{goroutine_profile, thread_profile};

/// A profile that the runtime keeps, or that can be made of what it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Heap,
    Allocs,
    Goroutine,
    ThreadCreate,
    Block,
    Mutex,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Heap => "heap",
            Kind::Allocs => "allocs",
            Kind::Goroutine => "goroutine",
            Kind::ThreadCreate => "threadcreate",
            Kind::Block => "block",
            Kind::Mutex => "mutex",
        }
    }

    /// What an agent can be asked for it.
    fn signal(self) -> Option<Signal> {
        (self == Kind::Heap).then_some(Signal::HeapProfile)
    }
}

/// A profile, and what it took to have it.
pub(super) struct Taken {
    pub(super) profile: Profile,
    /// `None` where an agent answered.
    pub(super) cost: Option<Cost>,
    /// What is missing in it.
    pub(super) missing: Option<String>,
    /// What the user has to know of it.
    pub(super) notes: Vec<String>,
    /// How its times were converted, where they were.
    pub(super) ticks: Option<TicksPerSecond>,
}

/// `pprof-heap` and its like.
pub(super) fn run(kind: Kind, args: &RuntimeProfileArgs, common: &Common) -> Result<(), Error> {
    let found = args.target.find(common)?;
    if kind.signal().is_none() {
        only_from_outside(kind, &found, &args.way)?;
    }
    let duration = args.duration.map(|period| period.duration());
    if duration.is_some() && !args.diff && args.enable.is_none() {
        return Err(Error::Usage("--duration is how long --diff or --enable take".to_owned()));
    }
    let apart = duration.filter(|_| args.diff);
    let enable = args.enable.as_deref().zip(duration);
    let window = enable.map(|(rate, duration)| window::Request::new(kind, rate, duration)).transpose()?;
    // An agent switches nothing on.
    let way = match window {
        Some(_) if args.way.via == Via::Agent => {
            return Err(Error::Usage("an agent cannot do --enable: use --via probe".to_owned()));
        }
        Some(_) => WayArgs { via: Via::Probe, ..args.way },
        None => args.way,
    };
    let job = Job::begin(kind.name(), &args.format, &found, common)?;
    let outside = |process: &Process| match window {
        Some(window) => window::profile(kind, process, window, &job.interrupt, common),
        None => reading(kind, process, apart, &job.interrupt),
    };
    match choose(&found, &way, common, outside)? {
        Chosen::Probe(taken) => job.write(taken, "probe"),
        Chosen::Agent(connection) => {
            let Some(signal) = kind.signal() else { return Err(no_agent(kind)) };
            job.of_agent(connection, signal, &args.way, apart)
        }
    }
}

/// `pprof-cpu`.
pub(super) fn cpu(args: &CpuProfileArgs, common: &Common) -> Result<(), Error> {
    let found = args.target.find(common)?;
    let job = Job::begin("cpu", &args.format, &found, common)?;
    let connection = agent_only(&found, &args.way, Signal::CpuProfile)?;
    job.of_agent(connection, Signal::CpuProfile, &args.way, None)
}

fn only_from_outside(kind: Kind, found: &Found, way: &WayArgs) -> Result<(), Error> {
    match found {
        Found::Process(_) if way.via != Via::Agent => Ok(()),
        _ => Err(no_agent(kind)),
    }
}

fn no_agent(kind: Kind) -> Error {
    Error::Usage(format!(
        "no agent answers pprof-{}: it needs a process of this machine, without --via agent",
        kind.name()
    ))
}

/// A reading, or the difference of two.
fn reading(
    kind: Kind,
    process: &Process,
    apart: Option<Duration>,
    interrupt: &Interrupt,
) -> Result<Taken, Error> {
    let first = read(kind, process, None)?;
    let Some(apart) = apart else { return Ok(first) };
    wait(kind.name(), apart, interrupt);
    let second = read(kind, process, first.ticks)?;
    difference(first, second)
}

/// Waits, but no longer than until somebody interrupts.
fn wait(what: &'static str, time: Duration, interrupt: &Interrupt) {
    const STEP: Duration = Duration::from_millis(50);
    let begun = Instant::now();
    let mut progress = Progress::new(what, time);
    while let Some(rest) = time.checked_sub(begun.elapsed()).filter(|rest| !rest.is_zero()) {
        if interrupt.is_pending() {
            return;
        }
        sleep(rest.min(STEP));
        progress.tick(0);
    }
}

fn difference(first: Taken, second: Taken) -> Result<Taken, Error> {
    let profile = profile::diff(&first.profile, &second.profile).map_err(|e| Error::Failed(e.to_string()))?;
    Ok(Taken {
        profile,
        cost: second.cost.map(|second| first.cost.map_or(second, |first| first.and(second))),
        missing: first.missing.or(second.missing),
        notes: second.notes,
        ticks: second.ticks,
    })
}

/// Reads a profile from outside. Two that are compared convert their times alike, by `ticks` of the first.
fn read(kind: Kind, process: &Process, ticks: Option<TicksPerSecond>) -> Result<Taken, Error> {
    match kind {
        Kind::Goroutine => goroutines(process),
        Kind::ThreadCreate => threads(process),
        Kind::Heap | Kind::Allocs | Kind::Block | Kind::Mutex => table(kind, process, ticks),
    }
}

fn goroutines(process: &Process) -> Result<Taken, Error> {
    let mapped = mappings::of(process)?;
    let time = SystemTime::now();
    let options = Options { pause: Pause::No, system: false, goid: None };
    let seen = stack::look(process, &options)?;
    let memory = LiveMemory::new(process.pid().as_raw());
    let made = goroutine_profile(&seen.view, &memory, &seen.snapshot, mapped, time);
    let all = made.goroutines + made.unavailable;
    let missing = (made.unavailable > 0)
        .then(|| format!("the frames of {} of {all} goroutines could not be read", made.unavailable));
    let cost = seen.cost().and(Cost::of_reading(memory.cost()));
    Ok(Taken { profile: made.profile, cost: Some(cost), missing, notes: Vec::new(), ticks: None })
}

fn threads(process: &Process) -> Result<Taken, Error> {
    let mapped = mappings::of(process)?;
    let (view, attached) = open(process)?;
    if view.allm.is_none() {
        let what = "its list of threads was not found".to_owned();
        return Err(Error::Uncalibrated { pid: process.pid(), what });
    }
    let memory = LiveMemory::new(process.pid().as_raw());
    let profile = thread_profile(&view, &memory, mapped).map_err(|e| record_error(process, e))?;
    process.check()?;
    let cost = Cost::of_reading(attached).and(Cost::of_reading(memory.cost()));
    Ok(Taken { profile, cost: Some(cost), missing: None, notes: Vec::new(), ticks: None })
}

/// The heap profile as an agent would answer it.
pub(super) fn heap_from_outside(process: &Process) -> Result<Vec<u8>, Error> {
    Ok(pprof::write(&read(Kind::Heap, process, None)?.profile))
}

/// What the runtime keeps a table of.
fn table(kind: Kind, process: &Process, ticks: Option<TicksPerSecond>) -> Result<Taken, Error> {
    let mapped = mappings::of(process)?;
    let (view, attached) = open(process)?;
    let memory = LiveMemory::new(process.pid().as_raw());
    let tables = Tables::locate(&view);
    let mut reading = Reading::take(kind, &tables, &memory).map_err(|e| buckets_error(process, e))?;
    let converted = reading.convert(ticks);
    let mut profile = reading.profile(kind, &tables, mapped);
    let profilers = Profilers::read(&tables, &memory);
    process.check()?;
    let mut notes = Vec::new();
    if let Some((profiler, because)) = off(kind, &profilers) {
        // From Go 1.26 on there may be one allocation of before the runtime knew that nobody wants it sampled.
        let linked = profilers.memory != Sampling::NotLinked;
        let nothing = profile.samples.len() <= usize::from(!linked);
        if nothing {
            let hint = match kind {
                Kind::Heap | Kind::Allocs => Some(format!(
                    "`gops-probe heap {}` shows what holds memory now; --enable --duration 30s switches it on for \
                         a while",
                    process.pid()
                )),
                _ => Some("--enable --duration 30s switches it on for a while".to_owned()),
            };
            return Err(Error::ProfilerOff { pid: process.pid(), profiler, because, hint });
        }
        let note = format!("the {profiler} profiler is off now ({because}): this is of before");
        profile.comments.push(note.clone());
        notes.push(note);
    }
    let cost = Cost::of_reading(attached).and(Cost::of_reading(memory.cost()));
    Ok(Taken { profile, cost: Some(cost), missing: None, notes, ticks: converted })
}

/// Which profiler a profile comes from and why it is off, if it is.
fn off(kind: Kind, profilers: &Profilers) -> Option<(&'static str, String)> {
    let (profiler, variable, sampling) = match kind {
        Kind::Heap | Kind::Allocs => ("memory", "MemProfileRate", profilers.memory),
        Kind::Block => ("block", "the rate of runtime.SetBlockProfileRate", profilers.block),
        Kind::Mutex => ("mutex", "the rate of runtime.SetMutexProfileFraction", profilers.mutex),
        Kind::Goroutine | Kind::ThreadCreate => return None,
    };
    let because = match sampling {
        Sampling::Off => format!("{variable} is 0"),
        Sampling::NotLinked => {
            "nothing in the program reads its profile, so the linker left it out".to_owned()
        }
        _ => return None,
    };
    Some((profiler, because))
}

pub(super) fn buckets_error(process: &Process, error: BucketsError) -> Error {
    match error {
        BucketsError::Memory(e) => memory_error(process, e),
        BucketsError::Record(e) => record_error(process, e),
        other => Error::Uncalibrated { pid: process.pid(), what: other.to_string() },
    }
}

fn record_error(process: &Process, error: RecordError) -> Error {
    match error {
        RecordError::Memory(e) => memory_error(process, e),
        other => Error::Uncalibrated { pid: process.pid(), what: other.to_string() },
    }
}

/// Where a profile goes, and as what.
struct Job<'a> {
    kind: &'static str,
    args: &'a FormatArgs,
    found: &'a Found,
    target: AgentTarget,
    to: Destination,
    interrupt: Interrupt,
    common: &'a Common,
}

impl<'a> Job<'a> {
    /// Finds out what cannot be done before anything is.
    fn begin(
        kind: &'static str,
        args: &'a FormatArgs,
        found: &'a Found,
        common: &'a Common,
    ) -> Result<Self, Error> {
        let target = found.named();
        let to = Destination::choose(content(kind, args.format), &target, common)?;
        if args.open && (args.format != Format::Pprof || to.file().is_none()) {
            return Err(Error::Usage("--open needs a file of the format pprof to open".to_owned()));
        }
        Ok(Job { kind, args, found, target, to, interrupt: catch()?, common })
    }

    /// Has an agent make it.
    fn of_agent(
        self,
        connection: Connection,
        signal: Signal,
        way: &WayArgs,
        apart: Option<Duration>,
    ) -> Result<(), Error> {
        // The sample type that is shown first is part of the file.
        if self.args.format == Format::Pprof && apart.is_none() && self.args.sample_type.is_none() {
            let about = About { target: &self.target, via: "agent", cost: None };
            self.to.deliver(&about, self.common, &self.interrupt, |out| {
                copy_from_agent(connection, signal, Payload::Profile, way, &self.interrupt, out)
            })?;
            return self.show();
        }
        let mut taken = self.ask(connection, signal, way)?;
        if let Some(apart) = apart {
            wait(self.kind, apart, &self.interrupt);
            let way = WayArgs { via: Via::Agent, ..*way };
            let again = agent_only(self.found, &way, signal)?;
            taken = difference(taken, self.ask(again, signal, &way)?)?;
        }
        self.write(taken, "agent")
    }

    fn ask(&self, connection: Connection, signal: Signal, way: &WayArgs) -> Result<Taken, Error> {
        let peer = connection.peer().to_owned();
        let mut bytes = Limited(Vec::new());
        let copied = copy_from_agent(connection, signal, Payload::Profile, way, &self.interrupt, &mut bytes);
        match copied {
            Ok((_, None)) => {}
            Ok((_, Some(_))) if self.interrupt.is_pending() => return Err(Error::Interrupted),
            Ok((_, Some(damage))) => {
                return Err(Error::Failed(format!("the profile of {peer} is not whole: {damage}")));
            }
            Err(Failed::Output(_)) => {
                return Err(Error::Failed(format!(
                    "the profile of {peer} has more than {} MiB; --format pprof takes it as it is",
                    MAX_PACKED >> 20
                )));
            }
            Err(Failed::Other(error)) => return Err(error),
        }
        let profile = pprof::read(&bytes.0)
            .map_err(|e| Error::Failed(format!("the profile of {peer} cannot be read: {e}")))?;
        Ok(Taken { profile, cost: None, missing: None, notes: Vec::new(), ticks: None })
    }

    fn write(self, taken: Taken, via: &'static str) -> Result<(), Error> {
        let Taken { mut profile, cost, missing, notes, .. } = taken;
        let sample_type = profile.sample_type(self.args.sample_type.as_deref()).map_err(write_error)?;
        profile.default_sample_type = sample_type;
        let title = format!("{} of {}", self.kind, self.target);
        let bytes = match self.args.format {
            Format::Pprof => pprof::write(&profile),
            Format::Folded => folded::write(&profile, sample_type).map_err(write_error)?,
            Format::Flamegraph => flamegraph::write(&profile, sample_type, &title).map_err(write_error)?,
            Format::Speedscope => {
                output::escaped(&speedscope::write(&profile, sample_type, &title).map_err(write_error)?)
                    .map_err(|e| Error::Failed(e.to_string()))?
            }
            Format::Text => text::write(&profile, sample_type, Bounds::default()).map_err(write_error)?,
            Format::Json => {
                let content = ProfileAnswer::from(&profile);
                let answer = ProfileOf { profile: self.kind, cost, content };
                let answer = Sourced { source: Source::new(&self.target, via), answer };
                let written = serde_json::to_vec_pretty(&answer).map_err(std::io::Error::other);
                let mut bytes = written
                    .and_then(|bytes| output::escaped(&bytes))
                    .map_err(|e| Error::Failed(e.to_string()))?;
                bytes.push(b'\n');
                bytes
            }
        };
        let about = About { target: &self.target, via, cost };
        let delivered = self.to.deliver(&about, self.common, &self.interrupt, |out| {
            out.write_all(&bytes).and_then(|()| out.flush()).map_err(Failed::Output)?;
            let written: Written = (bytes.len() as u64, None);
            Ok(written)
        });
        self.tell(&notes, cost);
        delivered?;
        if let Some(missing) = missing {
            return Err(Error::Partial(missing));
        }
        self.show()
    }

    fn show(&self) -> Result<(), Error> {
        match self.to.file() {
            Some(path) if self.args.open => show(Tool::Pprof, path, &self.target),
            _ => Ok(()),
        }
    }

    /// Notes, and with `-v` what it cost.
    fn tell(&self, notes: &[String], cost: Option<Cost>) {
        let style = Style::for_stderr(self.common.color);
        let mut err = std::io::stderr().lock();
        for note in notes {
            // A hint that cannot be written is no failure of the answer.
            let _ = writeln!(err, "{} {}", style.hint("note:"), printable_str(note));
        }
        if let Some(cost) = cost.filter(|_| self.common.verbose > 0) {
            let _ = writeln!(
                err,
                "{} {} threads stopped, the longest for {} µs; {} bytes read in {} calls, {}",
                style.hint("cost:"),
                cost.threads_stopped,
                cost.stopped_us,
                cost.bytes_read,
                cost.read_calls,
                cost.written(),
            );
        }
    }
}

fn content(kind: &'static str, format: Format) -> Content {
    let (extension, form) = match format {
        Format::Pprof => (".pb.gz", Form::Binary(Payload::Profile.name())),
        Format::Folded => (".folded", Form::Text),
        Format::Flamegraph => (".svg", Form::Document),
        Format::Speedscope => (".speedscope.json", Form::Document),
        Format::Text => (".txt", Form::Text),
        Format::Json => (".json", Form::Json),
    };
    Content { kind, extension, form }
}

fn write_error(error: WriteError) -> Error {
    match error {
        WriteError::NoSampleType { .. } => Error::Usage(error.to_string()),
        other => Error::Failed(other.to_string()),
    }
}

/// An agent's profile is kept in memory up to this, packed.
const MAX_PACKED: usize = MAX_WRITTEN / 8;

/// Bytes up to [`MAX_PACKED`].
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_PACKED {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
