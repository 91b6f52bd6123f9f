//! `pprof-heap`, `pprof-cpu`, `trace` and `binary`: answers that are files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use symbols::image::Source as _;

use super::args::{CaptureArgs, Common, WayArgs};
use super::interrupt::Interrupt;
use super::output;
use super::progress::Progress;
use super::target::Found;
use super::via::{Chosen, agent_only, choose};
use crate::Error;
use crate::agent::payload::{Checked, Payload};
use crate::agent::{self, AgentTarget, Connection, End, Limits, Request, Signal};
use crate::process::Process;
use crate::process::executable::Executable;
use crate::report::answers::{Saved, Source, Sourced};

const BUFFER: usize = 1 << 20;

/// A file to have from a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capture {
    Heap,
    Cpu,
    Trace,
    Binary,
}

impl Capture {
    fn signal(self) -> Signal {
        match self {
            Capture::Heap => Signal::HeapProfile,
            Capture::Cpu => Signal::CpuProfile,
            Capture::Trace => Signal::Trace,
            Capture::Binary => Signal::BinaryDump,
        }
    }

    fn payload(self) -> Payload {
        match self {
            Capture::Heap | Capture::Cpu => Payload::Profile,
            Capture::Trace => Payload::Trace,
            Capture::Binary => Payload::Program,
        }
    }

    /// What a file of it is named by, and its extension.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Capture::Heap => ("heap", ".pb.gz"),
            Capture::Cpu => ("cpu", ".pb.gz"),
            Capture::Trace => ("trace", ".trace"),
            Capture::Binary => ("binary", ""),
        }
    }

    /// The tool of Go that shows it.
    fn tool(self) -> Option<&'static str> {
        match self {
            Capture::Heap | Capture::Cpu => Some("pprof"),
            Capture::Trace => Some("trace"),
            Capture::Binary => None,
        }
    }
}

pub(super) fn run(capture: Capture, args: &CaptureArgs, open: bool, common: &Common) -> Result<(), Error> {
    let found = args.target.find(common)?;
    let target = found.named();
    let to = Destination::choose(capture, &target, common)?;
    if open && !matches!(to, Destination::File(_)) {
        return Err(Error::Usage("--open needs a file to open".to_owned()));
    }
    let interrupt = Interrupt::catch().map_err(|e| Error::Failed(format!("cannot catch signals: {e}")))?;
    let (via, from) = source(capture, &found, &args.way, common)?;
    let (bytes, damage) = match &to {
        Destination::Stdout => {
            let mut out = io::stdout().lock();
            from.copy(capture, &mut out, &args.way, &interrupt).map_err(|e| e.about("standard output"))?
        }
        Destination::Device(path) => {
            let mut out = OpenOptions::new().write(true).open(path).map_err(|e| unwritable(path, e))?;
            from.copy(capture, &mut out, &args.way, &interrupt)
                .map_err(|e| e.about(&path.display().to_string()))?
        }
        Destination::File(path) => save(from, capture, path, &args.way, &interrupt)?,
    };
    let file = to.named(damage.is_some());
    if let Some(file) = &file {
        let file = file.to_string_lossy().into_owned();
        if common.json {
            let saved = Saved { file, bytes, partial: damage.clone() };
            let stdout = Common { output: None, ..common.clone() };
            output::write_json(&stdout, &Sourced { source: Source::new(&target, via), answer: saved })?;
        } else {
            let stdout = Common { output: None, ..common.clone() };
            output::write(&stdout, |out| {
                writeln!(out, "{}", crate::report::printable::printable_str(&file))
            })?;
        }
    }
    if interrupt.is_pending() {
        return Err(Error::Interrupted);
    }
    if let Some(damage) = damage {
        let name = file.map_or_else(|| to.to_string(), |f| f.display().to_string());
        return Err(Error::Partial(format!("{name} is not whole: {damage}")));
    }
    match (open, to, capture.tool()) {
        (true, Destination::File(path), Some(tool)) => show(tool, &path, &target),
        _ => Ok(()),
    }
}

/// Where the bytes come from.
enum From {
    Agent(Connection),
    /// The file that a process executes.
    File(Executable),
}

fn source(
    capture: Capture,
    target: &Found,
    way: &WayArgs,
    common: &Common,
) -> Result<(&'static str, From), Error> {
    if capture != Capture::Binary {
        return Ok(("agent", From::Agent(agent_only(target, way, capture.signal())?)));
    }
    let probe = |process: &Process| Ok(process.executable()?);
    Ok(match choose(target, way, common, probe)? {
        Chosen::Probe(executable) => ("probe", From::File(executable)),
        Chosen::Agent(connection) => ("agent", From::Agent(connection)),
    })
}

/// Why bytes could not be copied.
enum Failed {
    /// The output is to blame.
    Output(io::Error),
    Other(Error),
}

impl Failed {
    fn about(self, to: &str) -> Error {
        match self {
            Failed::Output(source) => Error::Output { to: to.to_owned(), source },
            Failed::Other(error) => error,
        }
    }
}

impl From {
    /// Copies them; says how many there were, and why that is not all.
    fn copy(
        self,
        capture: Capture,
        out: &mut dyn Write,
        way: &WayArgs,
        interrupt: &Interrupt,
    ) -> Result<(u64, Option<String>), Failed> {
        let signal = capture.signal();
        let mut progress = Progress::new(signal.command(), signal.measures_for());
        let mut watch = |bytes| {
            progress.tick(bytes);
            if interrupt.is_pending() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match self {
            From::File(executable) => copy_file(&executable, out, &mut watch),
            From::Agent(connection) => {
                let peer = connection.peer().to_owned();
                let mut checked = Checked::new(capture.payload(), out);
                let limits = Limits::of(signal, way.timeout);
                let answer = connection.ask(&Request::Plain(signal), &limits, &mut checked, &mut watch);
                let answer = answer.and_then(|answer| {
                    // What was interrupted before it began is no garbage.
                    let none = matches!(answer.end, End::Stopped) && answer.bytes < 16;
                    let damage = if none { None } else { checked.finish().map_err(agent::Error::Sink)? };
                    Ok((if none { 0 } else { answer.bytes }, answer.end.reason().or(damage)))
                });
                answer.map_err(|error| match (error, checked.refused()) {
                    (_, Some(begins)) => {
                        let expected = capture.payload().name();
                        Failed::Other(agent::Error::Garbage { peer, expected, begins }.into())
                    }
                    (agent::Error::Sink(e), None) => Failed::Output(e),
                    (error, None) => Failed::Other(error.into()),
                })
            }
        }
    }
}

fn copy_file(
    executable: &Executable,
    out: &mut dyn Write,
    watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<(u64, Option<String>), Failed> {
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    while at < executable.len() {
        if watch(at).is_break() {
            return Ok((at, End::Stopped.reason()));
        }
        let size = usize::try_from(executable.len() - at).map_or(BUFFER, |left| left.min(BUFFER));
        let part = buffer.get_mut(..size).unwrap_or_default();
        if !executable.read_at(at, part) {
            return Ok((at, Some("the executable cannot be read to its end".to_owned())));
        }
        out.write_all(part).map_err(Failed::Output)?;
        at += size as u64;
    }
    out.flush().map_err(Failed::Output)?;
    Ok((at, None))
}

/// Where a file goes.
enum Destination {
    Stdout,
    /// Something that exists and is no regular file: it is written as it is.
    Device(PathBuf),
    File(PathBuf),
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Destination::Stdout => f.write_str("what was written to standard output"),
            Destination::Device(path) | Destination::File(path) => path.display().fmt(f),
        }
    }
}

impl Destination {
    fn choose(capture: Capture, target: &AgentTarget, common: &Common) -> Result<Self, Error> {
        match common.output.as_deref() {
            Some(path) if path == Path::new("-") => {
                if common.json {
                    return Err(Error::Usage("--json and -o - both want standard output".to_owned()));
                }
                if io::stdout().is_terminal() {
                    return Err(Error::Usage(format!(
                        "{} is binary and does not go to a terminal: use -o FILE, or redirect the output",
                        capture.payload().name()
                    )));
                }
                Ok(Destination::Stdout)
            }
            Some(path) => Ok(match fs::metadata(path) {
                Ok(meta) if !meta.is_file() => Destination::Device(path.to_owned()),
                _ => Destination::File(path.to_owned()),
            }),
            None => Ok(Destination::File(free_name(capture, target))),
        }
    }

    /// The file that was written, if it is one.
    fn named(&self, partial: bool) -> Option<PathBuf> {
        match self {
            Destination::File(path) => Some(if partial { partial_name(path) } else { path.clone() }),
            _ => None,
        }
    }
}

/// A name that says what is in the file, and that no file has: `gops-4711-heap-20261125T120000Z.pb.gz`.
fn free_name(capture: Capture, target: &AgentTarget) -> PathBuf {
    let of = match target {
        AgentTarget::Process(pid) => pid.to_string(),
        AgentTarget::Address(address) => {
            address.to_string().replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "_")
        }
    };
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(['-', ':'], "");
    let (kind, extension) = capture.words();
    let stem = format!("gops-{of}-{kind}-{time}");
    let names = (1..).map(|n| match n {
        1 => PathBuf::from(format!("{stem}{extension}")),
        n => PathBuf::from(format!("{stem}-{n}{extension}")),
    });
    let free =
        |path: &PathBuf| [path.clone(), partial_name(path)].iter().all(|p| p.symlink_metadata().is_err());
    names.take(1000).find(free).unwrap_or_else(|| PathBuf::from(stem))
}

/// What a file is called until it is whole.
fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Writes a file under another name, which it keeps where it is not whole.
fn save(
    from: From,
    capture: Capture,
    path: &Path,
    way: &WayArgs,
    interrupt: &Interrupt,
) -> Result<(u64, Option<String>), Error> {
    let partial = partial_name(path);
    // Never through a link that somebody else put there.
    let _ = fs::remove_file(&partial);
    let created = OpenOptions::new().write(true).create_new(true).open(&partial);
    let file = created.map_err(|e| unwritable(&partial, e))?;
    let mut out = BufWriter::with_capacity(BUFFER, file);
    let copied = from.copy(capture, &mut out, way, interrupt).and_then(|copied| {
        out.flush().map_err(Failed::Output)?;
        Ok(copied)
    });
    let result = match copied {
        Ok((bytes, None)) => {
            return fs::rename(&partial, path).map(|()| (bytes, None)).map_err(|e| unwritable(path, e));
        }
        Ok((0, Some(_))) if interrupt.is_pending() => Err(Error::Interrupted),
        Ok(kept) => return Ok(kept),
        Err(failed) => Err(failed.about(&partial.display().to_string())),
    };
    // Nothing of it is worth keeping.
    let _ = fs::remove_file(&partial);
    result
}

fn unwritable(path: &Path, source: io::Error) -> Error {
    Error::Output { to: path.display().to_string(), source }
}

/// Shows a file with the tools of Go.
fn show(tool: &str, path: &Path, target: &AgentTarget) -> Result<(), Error> {
    let mut command = Command::new("go");
    command.args(["tool", tool]);
    if let (AgentTarget::Process(pid), "pprof") = (target, tool) {
        // With the program at hand it also shows source and assembly. Its path may mean something else to us.
        let program = format!("/proc/{pid}/exe");
        if File::open(&program).is_ok() {
            command.arg(program);
        }
    }
    // A name that begins with a dash is still a file.
    let file = if path.is_absolute() { path.to_owned() } else { Path::new(".").join(path) };
    let status = command.arg(&file).status().map_err(|e| {
        Error::Failed(format!(
            "cannot run `go tool {tool}` ({e}); {} is there to be looked at",
            path.display()
        ))
    })?;
    if status.success() { Ok(()) } else { Err(Error::Failed(format!("`go tool {tool}` failed: {status}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_is_in_a_file() {
        let target = AgentTarget::Process("4711".parse().unwrap());
        let name = free_name(Capture::Heap, &target).display().to_string();
        assert!(name.starts_with("gops-4711-heap-2") && name.ends_with("Z.pb.gz"), "{name}");
        assert_eq!(name.len(), "gops-4711-heap-20261125T120000Z.pb.gz".len());
        let target = AgentTarget::Address("[::1]:6060".parse().unwrap());
        let name = free_name(Capture::Trace, &target).display().to_string();
        assert!(name.starts_with("gops-___1__6060-trace-2"), "{name}");
        assert_eq!(partial_name(Path::new("a/b.pb.gz")), Path::new("a/b.pb.gz.partial"));
    }
}
