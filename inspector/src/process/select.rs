//! Finding the one process that is meant by something else than its pid.

use std::fmt;
use std::time::{Duration, Instant};

use regex::bytes::Regex;

use super::find::{self, Detail};
use super::{Error, Pid, Process};

/// What a process is known by.
#[derive(Debug, Clone)]
pub enum Selector {
    /// Its pid.
    Pid(Pid),
    /// Its name, as the list shows it, matches.
    Name(Regex),
    /// The id of its container begins so.
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

    /// Pins the one Go process that fits; by its pid, any process.
    ///
    /// # Errors
    /// [`Error::NoMatch`], [`Error::Ambiguous`]; for a pid, those of [`Process::pin`].
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
                // Its pid may have got another process meanwhile.
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

    /// As [`Selector::pin`], but where nothing fits, looks again until something does, for at most `limit`.
    ///
    /// # Errors
    /// As [`Selector::pin`]: at the end of the time, that nothing fits.
    pub fn wait(&self, limit: Duration) -> Result<Process, Error> {
        let end = Instant::now().checked_add(limit);
        loop {
            let begun = Instant::now();
            match self.pin() {
                // One that has just begun may end, or execute something else, before it is pinned.
                Err(
                    Error::NoMatch { .. } | Error::NoSuchProcess(_) | Error::Exited(_) | Error::Executed(_),
                ) if end.is_none_or(|end| Instant::now() < end) => {}
                other => return other,
            }
            // A look at very many processes takes long; it shall never take more than a fifth of a core.
            let pause = INTERVAL.max(begun.elapsed() * 4);
            let left = end.map_or(pause, |end| end.saturating_duration_since(Instant::now()));
            std::thread::sleep(pause.min(left));
        }
    }
}

/// How often is looked for a process that is not there yet.
const INTERVAL: Duration = Duration::from_millis(50);
