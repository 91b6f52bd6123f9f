//! Answers that can be written in several ways.

use std::fmt;
use std::io::{self, Write};

use crate::operations::profile::Taken;
use crate::operations::stack::Seen;
use crate::profile::{Profile, pprof};
use crate::report::stack::{Counts, Filter, StackReport, WrittenGoroutine};
use crate::report::traceback::Level;
use crate::runtime::snapshot::Consistency;

/// The goroutines of a process, as [`Target::stack`](crate::Target::stack) saw them.
#[derive(Debug)]
pub struct Goroutines {
    seen: Seen,
    filter: Filter,
    level: Level,
}

impl Goroutines {
    pub(super) fn new(seen: Seen, system: bool) -> Self {
        let level = if system { Level::System } else { Level::User };
        Goroutines { seen, filter: Filter::default(), level }
    }

    fn report(&self) -> StackReport<'_> {
        StackReport::new(&self.seen.view, &self.seen.snapshot, &self.filter, self.level)
    }

    /// Each of them, in the order in which Go prints them.
    pub fn iter(&self) -> impl Iterator<Item = WrittenGoroutine<'_>> {
        self.report().goroutines()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.report().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How they hold together.
    pub fn consistency(&self) -> Consistency {
        self.seen.snapshot.consistency
    }

    /// Whether the program is being brought down by a panic, a fatal error or a signal; `None` where that is not known.
    pub fn is_panicking(&self) -> Option<bool> {
        self.seen.panicking
    }

    /// Writes them as Go itself prints them.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<Counts> {
        self.report().write_text(out)
    }

    /// Writes them as `gops-probe stack --json` does.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<Counts> {
        self.report().write_json(self.seen.pid, &self.seen.cost(), self.seen.panicking, out)
    }
}

/// As Go itself prints them.
impl fmt::Display for Goroutines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.write_text(&mut text).map_err(|_| fmt::Error)?;
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// A profile, and what has to be known of it.
pub struct ProfileAnswer {
    taken: Taken,
}

impl ProfileAnswer {
    pub(super) fn new(taken: Taken) -> Self {
        ProfileAnswer { taken }
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.taken.profile
    }

    /// The file that `go tool pprof` reads, with all names in it.
    pub fn to_pprof(&self) -> Vec<u8> {
        pprof::write(&self.taken.profile)
    }

    /// What is missing in it.
    pub fn missing(&self) -> Option<&str> {
        self.taken.missing.as_deref()
    }

    /// What its reader has to know.
    pub fn notes(&self) -> &[String] {
        &self.taken.notes
    }
}

impl fmt::Debug for ProfileAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileAnswer")
            .field("samples", &self.taken.profile.samples.len())
            .field("missing", &self.taken.missing)
            .field("notes", &self.taken.notes)
            .finish_non_exhaustive()
    }
}
