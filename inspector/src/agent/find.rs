//! Finds the agent of a process: the port file that names a port, and the proof that the process
//! listens on it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use symbols::program::GoProgram;

use super::Error;
use super::port_file::{self, PortFile, Problem};
use super::sockets::{self, Listener, Ownership};
use crate::process::Process;

/// Listening gops agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMark {
    /// TCP port, in the network namespace of the process.
    pub port: u16,
    /// Path of the port file, as the process sees it if the file is in another mount namespace.
    pub port_file: PathBuf,
    /// True if the listening socket was found among the open files of the process. False if they
    /// may not be seen.
    pub confirmed: bool,
}

/// Agent that may be asked: the process was seen to listen on the port.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Path of the file that named the port.
    pub port_file: PathBuf,
    /// Listening socket of the process.
    pub listener: Listener,
}

/// Port files in the directory where gops looks for them.
#[derive(Debug, Default)]
pub(crate) struct OwnPortFiles {
    dir: Option<PathBuf>,
    /// File names in the directory: it is listed once instead of once for each process.
    names: HashSet<OsString>,
}

impl OwnPortFiles {
    /// Lists the directory; empty if it does not exist.
    pub(crate) fn list() -> Self {
        let dir = port_file::own_dir();
        let entries = dir.as_ref().and_then(|dir| std::fs::read_dir(dir).ok());
        let names = entries.into_iter().flatten().filter_map(|e| Some(e.ok()?.file_name())).collect();
        OwnPortFiles { dir, names }
    }

    /// Finds the agent of a process: in the directory of gops, and in the directory in which the
    /// process itself would write the port file. A file whose port the process does not listen on
    /// is stale or forged.
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

    /// Possible places of a process's port file: our own directory if it has such a file, and the
    /// directory of the process.
    fn places(&self, process: &Process) -> impl Iterator<Item = Place> {
        self.place_of_ours(process).into_iter().chain(Self::place_in(process, self.dir.as_ref()))
    }

    fn place_of_ours(&self, process: &Process) -> Option<Place> {
        let name = OsString::from(process.pid().to_string());
        let dir = self.dir.as_ref().filter(|_| self.names.contains(&name))?;
        Some(Place { path: dir.join(&name), ours: true })
    }

    /// Place in which the process itself would write the file. `None` if that is our own directory,
    /// as for processes that share our user, namespaces and root.
    fn place_in(process: &Process, ours: Option<&PathBuf>) -> Option<Place> {
        let dir = port_file::dir_of(process).filter(|dir| Some(dir) != ours || !process.is_beside_us())?;
        // The file name is the pid in the process's own pid namespace.
        let pids = process.status().map(|s| s.ns_pids).unwrap_or_default();
        let pid = pids.last().copied().unwrap_or(process.pid());
        Some(Place { path: dir.join(pid.to_string()), ours: false })
    }
}

/// Returns true if a program can contain an agent. The modules of most programs show that they do
/// not. Looking for an agent in each process would take longer than all the rest of the list.
fn may_have_one(program: &GoProgram) -> bool {
    const MODULE: &str = "github.com/google/gops";
    let Some((info, main)) = program.build_info.as_ref().and_then(|b| Some((b, b.main.as_ref()?))) else {
        return true;
    };
    main.path == MODULE || info.deps.iter().any(|module| module.path == MODULE)
}

/// Possible place of a port file.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// True if the path is ours, false if it is a path of the process.
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
/// Returns the most telling [`Error`] of all places.
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

/// Rank of a problem: a higher one says more.
fn weight(error: &Error) -> u8 {
    match error {
        Error::Shared { .. } => 4,
        Error::Unconfirmed { .. } => 3,
        Error::Impostor { .. } => 2,
        Error::Stale { .. } => 1,
        _ => 0,
    }
}

/// Checks that the process listens on the port of a file.
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

/// Returns true if a file is clearly older than the process. Used only in messages, as clocks can
/// be set.
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
