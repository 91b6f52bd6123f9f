//! From a process to its agent: the port file that names a port, and the proof that the process listens there.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use symbols::program::GoProgram;

use super::Error;
use super::port_file::{self, PortFile, Problem};
use super::sockets::{self, Listener, Ownership};
use crate::process::Process;

/// A gops agent that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMark {
    /// Its TCP port, in the network namespace of the process.
    pub port: u16,
    /// The file that says so, as seen from the process where it is in another mount namespace.
    pub port_file: PathBuf,
    /// The listening socket was found among the open files of the process. False where those may not be seen.
    pub confirmed: bool,
}

/// An agent that may be asked: the process was seen to listen there.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The file that named the port.
    pub port_file: PathBuf,
    /// The socket of the process.
    pub listener: Listener,
}

/// The port files where gops looks for them.
#[derive(Debug, Default)]
pub(crate) struct OwnPortFiles {
    dir: Option<PathBuf>,
    /// What was there: one look at the directory instead of one for each process.
    names: HashSet<OsString>,
}

impl OwnPortFiles {
    /// Lists them; none where there is no such directory.
    pub(crate) fn list() -> Self {
        let dir = port_file::own_dir();
        let entries = dir.as_ref().and_then(|dir| std::fs::read_dir(dir).ok());
        let names = entries.into_iter().flatten().filter_map(|e| Some(e.ok()?.file_name())).collect();
        OwnPortFiles { dir, names }
    }

    /// Looks for the agent of a process: where gops looks, and where the process itself would have written the port
    /// file. A file whose port the process does not listen on was left behind, or forged.
    pub(crate) fn agent_of(&self, process: &Process, program: &GoProgram) -> Option<AgentMark> {
        let theirs = may_have_one(program).then(|| Self::place_in(process, self.dir.as_ref())).flatten();
        self.place_of_ours(process).into_iter().chain(theirs).find_map(|place| {
            let port = place.read(process).ok()?.port;
            let confirmed = match sockets::ownership(process, port) {
                Ownership::Process(_) => true,
                Ownership::Unknown => false,
                Ownership::Nobody | Ownership::Others(_) | Ownership::Shared(_) => return None,
            };
            Some(AgentMark { port, port_file: place.path, confirmed })
        })
    }

    /// Where the port file of a process can be: in our own directory where that has such a file, and in its own.
    fn places(&self, process: &Process) -> impl Iterator<Item = Place> {
        self.place_of_ours(process).into_iter().chain(Self::place_in(process, self.dir.as_ref()))
    }

    fn place_of_ours(&self, process: &Process) -> Option<Place> {
        let name = OsString::from(process.pid().to_string());
        let dir = self.dir.as_ref().filter(|_| self.names.contains(&name))?;
        Some(Place { path: dir.join(&name), ours: true })
    }

    /// Where the process itself would write it, unless that is our own place, as that of processes beside us is.
    fn place_in(process: &Process, ours: Option<&PathBuf>) -> Option<Place> {
        let dir = port_file::dir_of(process).filter(|dir| Some(dir) != ours || !process.is_beside_us())?;
        // The name is the pid that it has in its own pid namespace.
        let pids = process.status().map(|s| s.ns_pids).unwrap_or_default();
        let pid = pids.last().copied().unwrap_or(process.pid());
        Some(Place { path: dir.join(pid.to_string()), ours: false })
    }
}

/// Whether a program can have an agent in it: most say by their modules that they have not, and looking for it in each
/// would take longer than all the rest of the list.
fn may_have_one(program: &GoProgram) -> bool {
    const MODULE: &str = "github.com/google/gops";
    let Some((info, main)) = program.build_info.as_ref().and_then(|b| Some((b, b.main.as_ref()?))) else {
        return true;
    };
    main.path == MODULE || info.deps.iter().any(|module| module.path == MODULE)
}

/// Where a port file can be.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// The path is ours, not that of the process.
    ours: bool,
}

impl Place {
    fn read(&self, process: &Process) -> Result<PortFile, Problem> {
        if self.ours { port_file::read(&self.path) } else { port_file::read_in_root(process, &self.path) }
    }
}

/// Finds the agent of a process.
///
/// # Errors
/// What was found instead, the most telling of it.
pub fn find(process: &Process) -> Result<Endpoint, Error> {
    let pid = process.pid();
    let own = OwnPortFiles::list();
    let mut worst: Option<Error> = None;
    let mut looked: Vec<PathBuf> = own.dir.iter().map(|dir| dir.join(pid.to_string())).collect();
    for place in own.places(process) {
        if !looked.contains(&place.path) {
            looked.push(place.path.clone());
        }
        let problem = match place.read(process) {
            Ok(file) => match judge(process, &place, &file) {
                Ok(listener) => return Ok(Endpoint { port_file: place.path, listener }),
                Err(error) => error,
            },
            Err(Problem::Missing) => continue,
            Err(problem) => Error::PortFile { pid, path: place.path, problem },
        };
        if worst.as_ref().is_none_or(|w| weight(&problem) > weight(w)) {
            worst = Some(problem);
        }
    }
    Err(worst.unwrap_or_else(|| {
        let blind = process.read("environ", "read the environment").is_err();
        Error::None { pid, looked, blind }
    }))
}

/// Which of two problems says more.
fn weight(error: &Error) -> u8 {
    match error {
        Error::Shared { .. } => 4,
        Error::Unconfirmed { .. } => 3,
        Error::Impostor { .. } => 2,
        Error::Stale { .. } => 1,
        _ => 0,
    }
}

/// Whether the process listens on the port of a file.
fn judge(process: &Process, place: &Place, file: &PortFile) -> Result<Listener, Error> {
    let (pid, port, path) = (process.pid(), file.port, place.path.clone());
    let earlier = || written_before(process, file.modified);
    match sockets::ownership(process, port) {
        Ownership::Process(listener) => Ok(listener),
        Ownership::Shared(_) => Err(Error::Shared { pid, port }),
        Ownership::Unknown => Err(Error::Unconfirmed { pid, port }),
        Ownership::Nobody => Err(Error::Stale { pid, path, port, earlier: earlier() }),
        Ownership::Others(other) => {
            let owner = sockets::owner(other.inode);
            Err(Error::Impostor { pid, path, port, owner, earlier: earlier() })
        }
    }
}

/// Whether a file is clearly older than the process. Only for saying so: clocks are set.
fn written_before(process: &Process, modified: Option<SystemTime>) -> bool {
    const CLEARLY: Duration = Duration::from_secs(2);
    let begun = || {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let boot: u64 = stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
        let since_boot = process.pinned_stat().start_time.checked_div(u64::try_from(ticks).ok()?)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(boot.checked_add(since_boot)?))
    };
    match (modified, begun()) {
        (Some(modified), Some(begun)) => modified.checked_add(CLEARLY).is_some_and(|m| m < begun),
        _ => false,
    }
}
