//! Selection of one process by its pid, name or container.

use std::fmt;
use std::time::{Duration, Instant};

use regex::bytes::Regex;

use super::find::{self, Detail};
use super::{Error, Pid, Process};

/// Criterion that selects a process.
#[derive(Debug, Clone)]
pub enum Selector {
    /// Process id.
    Pid(Pid),
    /// Pattern for the process name, as the list shows it.
    Name(Regex),
    /// Prefix of the container id.
    Container(String),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Pid(pid) => write!(f, "process {pid}"),
            Selector::Name(regex) => write!(f, "name:{regex}"),
            Selector::Container(id) => write!(f, "container:{id}"),
        }
    }
}

impl Selector {
    fn fits(&self, process: &Process) -> bool {
        match self {
            Selector::Pid(pid) => process.pid() == *pid,
            Selector::Name(regex) => regex.is_match(find::full_name(process).as_bytes()),
            Selector::Container(id) => process.container().is_some_and(|c| c.starts_with(id.as_str())),
        }
    }

    /// Pins the one Go process that matches. With a pid, pins any process.
    ///
    /// # Errors
    /// Returns [`Error::NoMatch`] or [`Error::Ambiguous`]; for a pid, the errors of
    /// [`Process::pin`].
    pub fn pin(&self) -> Result<Process, Error> {
        if let Selector::Pid(pid) = self {
            return Process::pin(*pid);
        }
        let selector = self.clone();
        let found = find::matching(Detail::Text, move |process| selector.fits(process))?;
        if !found.not_looked_at.is_empty() {
            tracing::warn!("{} processes that may match were not inspected", found.not_looked_at.len());
        }
        let (wanted, unreadable, denial) = (self.to_string(), found.unreadable, found.denial);
        match found.processes.as_slice() {
            [] => Err(Error::NoMatch { wanted, unreadable, denial }),
            [one] => {
                let process = Process::pin(one.pid)?;
                // The pid may have been reused meanwhile.
                if process.pinned_stat().start_time != one.stat.start_time {
                    return Err(Error::Exited(one.pid));
                }
                Ok(process)
            }
            several => Err(Error::Ambiguous {
                wanted,
                candidates: several.iter().map(|p| (p.pid, p.name.clone())).collect(),
            }),
        }
    }

    /// Pins a process as [`Selector::pin`] does. If none matches, looks again until one does, for
    /// at most `limit`.
    ///
    /// # Errors
    /// Returns the errors of [`Selector::pin`]; [`Error::NoMatch`] if no process matches until the
    /// time is over.
    pub fn wait(&self, limit: Duration) -> Result<Process, Error> {
        let end = Instant::now().checked_add(limit);
        loop {
            let begun = Instant::now();
            match self.pin() {
                // A process that has just begun may end, or execute another program, before it is
                // pinned.
                Err(
                    Error::NoMatch { .. } | Error::NoSuchProcess(_) | Error::Exited(_) | Error::Executed(_),
                ) if end.is_none_or(|end| Instant::now() < end) => {}
                other => return other,
            }
            // A look at very many processes takes long. It must never use more than a fifth of a
            // core.
            let pause = INTERVAL.max(begun.elapsed() * 4);
            let left = end.map_or(pause, |end| end.saturating_duration_since(Instant::now()));
            std::thread::sleep(pause.min(left));
        }
    }
}

/// Interval between looks for a process that does not exist yet.
const INTERVAL: Duration = Duration::from_millis(50);
