//! Search for Go processes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fs::Dir;
use rustix::io::Errno;
use symbols::program::GoProgram;

use super::access::Denial;
use super::crew::{self, Outcome};
use super::executable::Budget;
use super::facts::{Stat, Status};
use super::maps::Mapping;
use super::programs::{Executables, NotGo, RecognisedProgram, recognise};
use super::{Error, Namespace, Pid, Process, pin, proc};

/// Process that runs Go code.
#[derive(Debug)]
pub struct GoProcess {
    /// Process id in our pid namespace.
    pub pid: Pid,
    /// Contents of /proc/PID/stat.
    pub stat: Stat,
    /// Contents of /proc/PID/status. Empty for [`Detail::Text`].
    pub status: Status,
    /// Name of the main thread, completed from the command line if the kernel cut it off.
    pub name: String,
    /// Path of the executable in the mount namespace of the process.
    pub path: Vec<u8>,
    /// True if no file has that path any more.
    pub deleted: bool,
    /// Facts from the executable.
    pub program: Arc<GoProgram>,
    /// Path of the shared object that holds the Go code, if the executable is no Go program.
    pub shared_object: Option<Vec<u8>>,
    /// Further Go runtimes in the process: those of shared objects that were built for other
    /// languages.
    pub other_runtimes: Vec<OtherRuntime>,
    /// True if the program is position-independent.
    pub position_independent: bool,
    /// Container id from the cgroup of the process.
    pub container: Option<String>,
    /// Namespaces that the process does not share with us.
    pub other_namespaces: Vec<Namespace>,
}

/// Go runtime beside the first one of a process.
#[derive(Debug)]
pub struct OtherRuntime {
    /// Path of the shared object that holds the runtime, in the mount namespace of the process.
    pub module: Vec<u8>,
    /// Facts from the shared object.
    pub program: Arc<GoProgram>,
}

/// Result of a search. Each Go process is represented as [`search`] was told to.
#[derive(Debug)]
pub struct FoundProcesses<P = GoProcess> {
    /// Go processes by pid.
    pub processes: Vec<P>,
    /// Number of processes that were looked at, without kernel threads. For [`Detail::Text`], only
    /// processes with more than one thread count.
    pub looked_at: usize,
    /// Number of processes that could not be inspected.
    pub unreadable: usize,
    /// Pid and name of some of the processes that could not be inspected; at most
    /// [`NAMED_UNREADABLE`].
    pub some_unreadable: Vec<(Pid, String)>,
    /// Reason why one process could not be inspected.
    pub denial: Option<Denial>,
    /// True if /proc hides the processes of other users (`hidepid`). No number of this result counts
    /// them.
    pub hides_others: bool,
    /// Processes that were not looked at, or not completely: the limits for all together were
    /// reached ([`TIME`], [`BYTES`], [`BYTES_OF_ONE`]), or they do not answer. Sorted.
    pub not_looked_at: Vec<Pid>,
    /// Processes of `not_looked_at` whose memory or files did not arrive. Sorted.
    pub unanswered: Vec<Pid>,
    /// Number of different executables.
    pub executables: usize,
    /// Number of bytes read from the executables.
    pub bytes_read: u64,
}

impl<P> Default for FoundProcesses<P> {
    fn default() -> Self {
        FoundProcesses {
            processes: Vec::new(),
            looked_at: 0,
            unreadable: 0,
            some_unreadable: Vec::new(),
            denial: None,
            hides_others: false,
            not_looked_at: Vec::new(),
            unanswered: Vec::new(),
            executables: 0,
            bytes_read: 0,
        }
    }
}

/// Maximum number of named processes that could not be inspected.
pub const NAMED_UNREADABLE: usize = 32;

/// Amount of facts to find about each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Facts that the text columns show.
    Text,
    /// All facts: also user, tracer, container and namespaces.
    All,
}

/// Maximum time of a search of all processes. Processes with slow or huge files do not prevent an
/// answer about others.
pub const TIME: Duration = Duration::from_secs(10);
/// Maximum number of bytes read from all executables: many times what the executables of a machine
/// need.
pub const BYTES: u64 = 8 << 30;
/// Maximum number of bytes read from one executable: enough to search the largest Go programs.
pub const BYTES_OF_ONE: u64 = 1 << 30;

/// Looks at all processes, without touching any of them.
///
/// # Errors
/// Returns [`Error::Proc`] if /proc cannot be listed. Processes that cannot be inspected are
/// counted.
pub fn all(detail: Detail) -> Result<FoundProcesses, Error> {
    matching(detail, |_| true)
}

/// Looks at the processes for which `filter` returns true, as [`all`] does. Other processes are not
/// counted.
///
/// # Errors
/// Returns [`Error::Proc`] if /proc cannot be listed.
pub fn matching(
    detail: Detail,
    filter: impl Fn(&Process) -> bool + Send + Sync + 'static,
) -> Result<FoundProcesses, Error> {
    search(detail, filter, |_, found| found)
}

/// Looks at the processes for which `filter` returns true, as [`matching`] does. Each Go process is
/// mapped by `describe`. The thread that has looked at the process calls `describe`, while others
/// look at other processes.
///
/// # Errors
/// Returns [`Error::Proc`] if /proc cannot be listed.
pub fn search<P: Send + 'static>(
    detail: Detail,
    filter: impl Fn(&Process) -> bool + Send + Sync + 'static,
    describe: impl Fn(&Process, GoProcess) -> P + Send + Sync + 'static,
) -> Result<FoundProcesses<P>, Error> {
    let proc = proc::open()?;
    let pids = pids_in(proc)?;
    let search = Arc::new(Search {
        proc,
        detail,
        filter: Box::new(filter),
        describe: Box::new(describe),
        cache: Executables::within(Budget::new(TIME, BYTES, BYTES_OF_ONE)),
        denial: OnceLock::new(),
    });
    let ours = Arc::clone(&search);
    let Outcome { results, left_out } = crew::for_all(workers(proc), pids, move |pid| ours.look(pid));
    let mut found = FoundProcesses { hides_others: proc::hides_others(proc), ..FoundProcesses::default() };
    let mut processes = Vec::new();
    let left_out = left_out.into_iter().map(Seen::Unanswered);
    for seen in results.into_iter().chain(left_out) {
        match seen {
            Seen::Nothing => continue,
            Seen::Other => {}
            Seen::Unreadable(pid, name) => {
                found.unreadable += 1;
                if found.some_unreadable.len() < NAMED_UNREADABLE {
                    found.some_unreadable.push((pid, name));
                }
            }
            Seen::Unfinished(pid) => {
                found.not_looked_at.push(pid);
                continue;
            }
            Seen::Unanswered(pid) => {
                found.not_looked_at.push(pid);
                found.unanswered.push(pid);
                continue;
            }
            Seen::Go(pid, process) => processes.push((pid, *process)),
        }
        found.looked_at += 1;
    }
    processes.sort_by_key(|(pid, _)| *pid);
    found.processes = processes.into_iter().map(|(_, process)| process).collect();
    found.not_looked_at.sort_unstable();
    found.unanswered.sort_unstable();
    (found.executables, found.bytes_read) = search.cache.cost();
    found.denial = search.denial.get().cloned();
    Ok(found)
}

/// Children of the given processes, and their descendants, as far as all processes in between still
/// run.
///
/// # Errors
/// Returns [`Error::Proc`] if /proc cannot be listed.
pub fn descendants(of: &[Process]) -> Result<Vec<Pid>, Error> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for pid in pids()? {
        // A process that has just ended is left out.
        if let Some(parent) = Process::open(pid).ok().and_then(|process| process.pinned_stat().parent) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next: Vec<Pid> = of.iter().map(Process::pid).collect();
    while let Some(pid) = next.pop() {
        // Removed, so that the loop ends even if pids were reused meanwhile.
        let its = children.remove(&pid).unwrap_or_default();
        next.extend(&its);
        found.extend(its);
    }
    Ok(found)
}

/// Looks at one process.
///
/// # Errors
/// Returns the [`Error`] that prevents recognising the process as a Go process.
pub fn one(process: &Process) -> Result<GoProcess, Error> {
    let known = recognise(process.executable()?, None);
    let cache = Executables::default();
    let found = match &known.result {
        Ok(program) => {
            let mut found = describe(process, Arc::clone(program), &known, Detail::All)?;
            found.other_runtimes = beside_executable(process, &known, &cache)?;
            found
        }
        Err(NotGo::NoGo) => in_shared_object(process, &cache, Detail::All)?.0.ok_or_else(|| {
            let reason = "neither its executable nor what it loaded has build info or a Go function table";
            process.foreign_go().unwrap_or_else(|| process.not_go(reason))
        })?,
        Err(NotGo::Image(e)) => return Err(process.unusable(e)),
    };
    process.check()?;
    Ok(found)
}

/// Number of threads that look at processes. Starting one costs as much as looking at some dozen
/// processes.
#[allow(clippy::useless_conversion, reason = "the field has 32 bits on some machines")]
fn workers(proc: &OwnedFd) -> usize {
    // The link count of /proc is a few of its own plus one for each process (proc_root_getattr in
    // Linux's fs/proc/root.c).
    let processes = rustix::fs::fstat(proc).map_or(0, |stat| u64::from(stat.st_nlink));
    // The standard library's count also reads what the cgroup allows, from several files.
    let cores = rustix::thread::sched_getaffinity(None).map_or(1, |set| u64::from(set.count()));
    cores.min(processes / PROCESSES_PER_WORKER).clamp(1, MAX_WORKERS) as usize
}

const PROCESSES_PER_WORKER: u64 = 40;
const MAX_WORKERS: u64 = 16;

/// Pids of all processes, sorted.
///
/// # Errors
/// Returns [`Error::Proc`] if /proc cannot be listed.
pub(crate) fn pids() -> Result<Vec<Pid>, Error> {
    pids_in(proc::open()?)
}

fn pids_in(proc: &OwnedFd) -> Result<Vec<Pid>, Error> {
    let mut pids: Vec<Pid> = Dir::read_from(proc)
        .map_err(|e| Error::Proc(e.into()))?
        .filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse().ok())
        .collect();
    if pids.is_empty() {
        return Err(Error::Proc(io::Error::other("it is not mounted")));
    }
    pids.sort_unstable();
    Ok(pids)
}

enum Seen<P> {
    /// Gone, or a kernel thread.
    Nothing,
    Other,
    Unreadable(Pid, String),
    /// The limits for all processes together were reached.
    Unfinished(Pid),
    /// The memory or the files of the process do not arrive.
    Unanswered(Pid),
    Go(Pid, Box<P>),
}

type Describe<P> = Box<dyn Fn(&Process, GoProcess) -> P + Send + Sync>;

/// State that the searching threads share.
struct Search<P> {
    /// Open directory /proc.
    proc: &'static OwnedFd,
    detail: Detail,
    filter: Box<dyn Fn(&Process) -> bool + Send + Sync>,
    /// Function that maps a Go process to its result.
    describe: Describe<P>,
    cache: Executables,
    /// Reason of one denial. Finding the reason takes longer than looking at a process, so it is
    /// done once.
    denial: OnceLock<Denial>,
}

impl<P> Search<P> {
    fn look(&self, pid: Pid) -> Seen<P> {
        let Search { cache, detail, .. } = self;
        // Most processes of most machines have one thread, as do kernel threads; one system call
        // shows it.
        if *detail == Detail::Text {
            match pin::threads_of(self.proc, pid) {
                Ok(FEWEST_OF_A_PROGRAM..) => {}
                // A hidden process is reported below.
                Err(Errno::ACCESS | Errno::PERM) => {}
                _ => return Seen::Other,
            }
        }
        let process = match Process::open(pid) {
            Ok(process) => process,
            Err(Error::Denied { denial, .. }) => {
                // Another thread may have set the reason first.
                let _ = self.denial.set(denial);
                return Seen::Unreadable(pid, "hidden".to_owned());
            }
            Err(_) => return Seen::Nothing,
        };
        let stat = process.pinned_stat();
        if stat.kernel_thread {
            return Seen::Nothing;
        }
        if stat.is_zombie() {
            return Seen::Other;
        }
        if !(self.filter)(&process) {
            return Seen::Nothing;
        }
        if cache.is_spent() {
            return Seen::Unfinished(pid);
        }
        let known = match cache.of(&process) {
            Ok(known) => known,
            Err(e) => return self.unreadable(&process, e),
        };
        let Some(known) = known.get() else { return Seen::Unanswered(pid) };
        let Ok(program) = &known.result else {
            if known.cut_short {
                return Seen::Unfinished(pid);
            }
            // Go's runtime always has some threads, and the search for it costs more than
            // everything else.
            if stat.threads < FEWEST_WITH_LOADED_CODE {
                return Seen::Other;
            }
            return match in_shared_object(&process, cache, *detail) {
                Ok((Some(found), _)) => self.described(&process, found),
                Ok((None, true)) => Seen::Unfinished(pid),
                _ => Seen::Other,
            };
        };
        let found = describe(&process, Arc::clone(program), known, *detail);
        let Ok(mut found) = found else { return Seen::Nothing };
        // The shared objects cannot always be listed, for example of another user's process.
        found.other_runtimes = beside_executable(&process, known, cache).unwrap_or_default();
        self.described(&process, found)
    }

    fn described(&self, process: &Process, found: GoProcess) -> Seen<P> {
        Seen::Go(process.pid(), Box::new((self.describe)(process, found)))
    }

    fn unreadable(&self, process: &Process, error: io::Error) -> Seen<P> {
        if !matches!(Errno::from_io_error(&error), Some(Errno::ACCESS | Errno::PERM)) {
            return Seen::Nothing;
        }
        if self.denial.get().is_none() {
            let Error::Denied { denial, .. } = process.explain_executable(error) else {
                return Seen::Nothing;
            };
            // Another thread may have set the reason first.
            let _ = self.denial.set(denial);
        }
        Seen::Unreadable(process.pid(), process.name().to_owned())
    }
}

/// Minimum number of threads of a Go program: `runtime.main` starts a thread for `sysmon` before
/// all other code, in each release. A program with a single thread is about to begin, to end, or to
/// execute another program.
const FEWEST_OF_A_PROGRAM: u64 = 2;
/// Minimum number of threads of a C program with loaded Go code: its main thread, the thread that
/// started the runtime, and `sysmon`.
const FEWEST_WITH_LOADED_CODE: u64 = 3;

/// Looks for Go code in the shared objects of a process. Returns the first with Go code; the others
/// are its further runtimes. The flag is true if not all objects could be looked at.
fn in_shared_object(
    process: &Process,
    cache: &Executables,
    detail: Detail,
) -> Result<(Option<GoProcess>, bool), Error> {
    let mut first: Option<GoProcess> = None;
    let mut cut_short = false;
    for mapping in process.shared_objects()? {
        // An object that cannot be opened does not end the search.
        if cache.is_spent() {
            return Ok((first, true));
        }
        let Ok(known) = cache.of_mapping(process, &mapping) else { continue };
        let Some(known) = known.get() else {
            cut_short = true;
            continue;
        };
        let Ok(program) = &known.result else {
            cut_short |= known.cut_short;
            continue;
        };
        match &mut first {
            None => {
                let mut found = describe(process, Arc::clone(program), known, detail)?;
                found.shared_object = Some(mapping.path);
                first = Some(found);
            }
            Some(found) if !matches!(build_mode(program), Some("plugin" | "shared")) => {
                let program = Arc::clone(program);
                found.other_runtimes.push(OtherRuntime { module: mapping.path, program });
            }
            Some(_) => {}
        }
    }
    Ok((first, cut_short))
}

/// Finds the runtimes of libraries that a Go program loaded. Plugins share the runtime of the
/// program. Without reading memory, only the build info tells them apart.
fn beside_executable(
    process: &Process,
    executable: &RecognisedProgram,
    cache: &Executables,
) -> Result<Vec<OtherRuntime>, Error> {
    // Programs without an interpreter load nothing.
    if !executable.interpreted {
        return Ok(Vec::new());
    }
    let other = |mapping: Mapping| {
        let known = cache.of_mapping(process, &mapping).ok()?;
        let RecognisedProgram { result: Ok(program), .. } = known.get()? else { return None };
        let program = (build_mode(program) == Some("c-shared")).then(|| Arc::clone(program))?;
        Some(OtherRuntime { module: mapping.path, program })
    };
    Ok(process.shared_objects()?.into_iter().take_while(|_| !cache.is_spent()).filter_map(other).collect())
}

/// Build mode of a program (`go help buildmode`), if its build info has it.
fn build_mode(program: &GoProgram) -> Option<&str> {
    program.build_info.as_ref()?.setting("-buildmode")
}

fn describe(
    process: &Process,
    program: Arc<GoProgram>,
    known: &RecognisedProgram,
    detail: Detail,
) -> Result<GoProcess, Error> {
    let status = match detail {
        Detail::Text => Status::default(),
        Detail::All => process.status()?,
    };
    let mut path = process.exe_path()?;
    const DELETED: &[u8] = b" (deleted)";
    // The kernel appends the suffix to the path, but it may also be part of a name.
    let deleted = known.deleted && path.ends_with(DELETED);
    if deleted {
        path.truncate(path.len() - DELETED.len());
    }
    let other_namespaces = match detail {
        Detail::Text => Vec::new(),
        Detail::All => {
            let other = |k: &Namespace| process.is_in_other_namespace(*k) == Some(true);
            Namespace::ALL.into_iter().filter(other).collect()
        }
    };
    Ok(GoProcess {
        pid: process.pid(),
        name: full_name(process),
        stat: process.pinned_stat().clone(),
        path,
        deleted,
        program,
        shared_object: None,
        other_runtimes: Vec::new(),
        position_independent: known.position_independent,
        container: if detail == Detail::All { process.container() } else { None },
        other_namespaces,
        status,
    })
}

/// Full name of a process. The kernel keeps 15 bytes of a name. As in gops, the rest is taken from
/// the command line if it begins with the same bytes.
pub(crate) fn full_name(process: &Process) -> String {
    let name = process.name();
    if name.len() >= 15
        && let Ok(cmdline) = process.read("cmdline", "read the command line")
        && let Some(first) = cmdline.split(|&b| b == 0).next()
        && let Some(base) = Path::new(OsStr::from_bytes(first)).file_name()
        && base.as_bytes().starts_with(name.as_bytes())
    {
        return String::from_utf8_lossy(base.as_bytes()).into_owned();
    }
    name.to_owned()
}
