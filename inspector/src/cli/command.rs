//! What the command line has to know of a command beside what it does.

use std::time::Duration;

use super::args::Common;
use super::confinement::{INSPECTING, Work};
use crate::Error;

/// A command with its arguments. A new one says in its own file whatever is not so for most.
pub(super) trait Run {
    /// Does it: asks, and prints the answer.
    ///
    /// # Errors
    /// What the program ends with.
    fn run(&self, common: &Common) -> Result<(), Error>;

    /// What it does that only some do: which of our rights it keeps.
    fn work(&self) -> Work {
        INSPECTING
    }

    /// How long it waits for others.
    fn patience(&self) -> Patience {
        Patience::default()
    }

    /// Whether it may stop threads, so that it can be ended for that.
    fn stops(&self) -> bool {
        true
    }

    /// Its name, where it stops the process, and could answer without that (`--no-pause`).
    fn unpaused(&self) -> Option<&'static str> {
        None
    }
}

/// How long a command waits for what others have to give, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// It looks at nothing of others.
    Unwatched,
    /// It goes on until somebody interrupts.
    Endless,
    /// So long.
    Limited(Duration),
}

/// What is waited where nothing is said.
const LIMIT: Duration = Duration::from_secs(60);

impl Default for Patience {
    fn default() -> Self {
        Patience::Limited(LIMIT)
    }
}

impl Patience {
    /// What `--timeout` says.
    pub(super) fn given(timeout: Option<Duration>) -> Self {
        Patience::Limited(timeout.unwrap_or(LIMIT))
    }
}

/// Arguments are borrowed from the command line.
impl<T: Run> Run for &T {
    fn run(&self, common: &Common) -> Result<(), Error> {
        T::run(self, common)
    }

    fn work(&self) -> Work {
        T::work(self)
    }

    fn patience(&self) -> Patience {
        T::patience(self)
    }

    fn stops(&self) -> bool {
        T::stops(self)
    }

    fn unpaused(&self) -> Option<&'static str> {
        T::unpaused(self)
    }
}
