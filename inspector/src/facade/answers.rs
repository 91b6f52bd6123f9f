//! Answers that can be written in several formats.

use std::fmt;
use std::io::{self, Write};

use crate::operations::profile::Taken;
use crate::operations::stack::Seen;
use crate::profile::{Profile, pprof};
use crate::report::stack::{Counts, Filter, StackReport, WrittenGoroutine};
use crate::report::traceback::Level;
use crate::runtime::snapshot::Consistency;

/// Goroutines of a process, as returned by [`Target::stack`](crate::Target::stack).
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

    /// Returns the goroutines in the order in which Go prints them.
    pub fn iter(&self) -> impl Iterator<Item = WrittenGoroutine<'_>> {
        self.report().goroutines()
    }

    /// Returns the number of goroutines.
    pub fn len(&self) -> usize {
        self.report().len()
    }

    /// Returns true if there are no goroutines.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the consistency of the goroutines with each other.
    pub fn consistency(&self) -> Consistency {
        self.seen.snapshot.consistency
    }

    /// Returns true if a panic, a fatal error or a signal is ending the program. `None` if unknown.
    pub fn is_panicking(&self) -> Option<bool> {
        self.seen.panicking
    }

    /// Writes the goroutines in the format of Go itself.
    ///
    /// # Errors
    /// Returns an error if writing to `out` fails.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<Counts> {
        self.report().write_text(out)
    }

    /// Writes the goroutines in the format of `gops-probe stack --json`.
    ///
    /// # Errors
    /// Returns an error if writing to `out` fails.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<Counts> {
        self.report().write_json(self.seen.pid, &self.seen.cost(), self.seen.panicking, out)
    }
}

/// Text in the format of Go itself.
impl fmt::Display for Goroutines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.write_text(&mut text).map_err(|_| fmt::Error)?;
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// Profile, with notes about it.
pub struct ProfileAnswer {
    taken: Taken,
}

impl ProfileAnswer {
    pub(super) fn new(taken: Taken) -> Self {
        ProfileAnswer { taken }
    }

    /// Returns the profile.
    pub fn profile(&self) -> &Profile {
        &self.taken.profile
    }

    /// Returns the file that `go tool pprof` reads, with all names in it.
    pub fn to_pprof(&self) -> Vec<u8> {
        pprof::write(&self.taken.profile)
    }

    /// Describes data missing in the profile. `None` if it is complete.
    pub fn missing(&self) -> Option<&str> {
        self.taken.missing.as_deref()
    }

    /// Returns notes that a reader of the profile has to know.
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
