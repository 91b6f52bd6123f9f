//! Properties of commands that the command line has to know.

use std::time::Duration;

use super::args::Common;
use super::confinement::{INSPECTING, Work};
use crate::Error;

/// Command with its arguments. A new command overrides the methods whose default does not fit.
pub(super) trait Run {
    /// Runs the command: gets the answer and prints it.
    ///
    /// # Errors
    /// Returns the error with which the program ends.
    fn run(&self, common: &Common) -> Result<(), Error>;

    /// Returns the work that only some commands do. It decides which rights are kept.
    fn work(&self) -> Work {
        INSPECTING
    }

    /// Returns the maximum time of waiting for others.
    fn patience(&self) -> Patience {
        Patience::default()
    }

    /// Returns true if the command may stop threads. The watchdog can then end the program.
    fn stops(&self) -> bool {
        true
    }

    /// Returns the name of a command that stops the process but could answer without stopping it
    /// (`--no-pause`). `None` for other commands.
    fn unpaused(&self) -> Option<&'static str> {
        None
    }
}

/// Maximum total time that a command waits for what others provide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// No watch: the command reads nothing of others.
    Unwatched,
    /// No limit: the command runs until it is interrupted.
    Endless,
    /// Limit of the total time.
    Limited(Duration),
}

/// Default limit of the total time.
const LIMIT: Duration = Duration::from_secs(60);

impl Default for Patience {
    fn default() -> Self {
        Patience::Limited(LIMIT)
    }
}

impl Patience {
    /// Makes the limit from the option `--timeout`.
    pub(super) fn given(timeout: Option<Duration>) -> Self {
        Patience::Limited(timeout.unwrap_or(LIMIT))
    }
}
