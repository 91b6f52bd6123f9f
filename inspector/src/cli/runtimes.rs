//! Option `--runtime`, and JSON answers of several runtimes.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use super::args::{Common, WayArgs};
use super::output;
use crate::Error;
use crate::operations::runtimes::Answers;
use crate::report::runtimes::{FailedRuntime, write_json};

/// Which runtime of a process.
#[derive(Debug, Clone, Default, Args)]
pub struct RuntimeArgs {
    /// Only this one of several Go runtimes in the process (such as a C program with Go libraries has): the path or the file
    /// name of the module that contains it
    #[arg(long, value_name = "MODULE")]
    pub runtime: Option<String>,
}

impl RuntimeArgs {
    /// Returns the chosen runtime.
    pub(super) fn chosen(&self) -> Option<&str> {
        self.runtime.as_deref()
    }

    /// Returns who may answer. An agent answers only for its own runtime.
    pub(super) fn way(&self, way: WayArgs) -> Result<WayArgs, Error> {
        way.without_agent(self.runtime.is_some().then_some("--runtime"))
    }
}

/// Writes an answer as indented JSON, with a line end.
pub(super) fn pretty<T: Serialize>(answer: &T, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, answer)?;
    writeln!(out)
}

impl<T> Answers<T> {
    /// Writes the answers as JSON. A single answer stands alone.
    pub(super) fn write_json(
        &self,
        common: &Common,
        mut write: impl FnMut(&T, &mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        let failed: Vec<FailedRuntime> =
            self.failed.iter().map(|(name, error)| FailedRuntime::new(name, error.to_string())).collect();
        output::write_escaped(common, |out| match self.only() {
            Some(only) => write(only, out),
            None => write_json(self.pid, self.iter(), &failed, write, out),
        })
    }
}
