//! The runtimes of a process that answer: all that it has, or the one that is chosen.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use super::args::{Common, Via, WayArgs};
use super::output;
use crate::process::{self, Process};
use crate::report::runtimes::{FailedRuntime, write_heading, write_json};
use crate::runtime::open::{Opened, RuntimeName, Runtimes, open_all, open_chosen};
use crate::{Error, process::Pid};

/// Which runtime of a process.
#[derive(Debug, Clone, Default, Args)]
pub struct RuntimeArgs {
    /// Only this Go runtime of a process that has several, as one with Go libraries built for C has: the path of its module,
    /// or that file's name
    #[arg(long, value_name = "MODULE")]
    pub runtime: Option<String>,
}

impl RuntimeArgs {
    /// What was chosen.
    pub(super) fn chosen(&self) -> Option<&str> {
        self.runtime.as_deref()
    }

    /// Who may answer: an agent speaks for the runtime that it is in.
    pub(super) fn way(&self, way: WayArgs) -> Result<WayArgs, Error> {
        match way.via {
            _ if self.runtime.is_none() => Ok(way),
            Via::Agent => Err(Error::Usage("an agent cannot do --runtime: use --via probe".to_owned())),
            Via::Auto | Via::Probe => Ok(WayArgs { via: Via::Probe, ..way }),
        }
    }
}

/// What the runtimes of a process answer.
#[derive(Debug)]
pub(super) struct Answers<T> {
    pid: Pid,
    each: Vec<(RuntimeName, T)>,
    failed: Vec<(RuntimeName, Error)>,
    /// They are several, none of which was chosen.
    several: bool,
}

/// Asks the chosen runtime, or each.
///
/// # Errors
/// Where none answers: why the first one does not.
pub(super) fn ask<T>(
    process: &Process,
    chosen: Option<&str>,
    mut look: impl FnMut(Opened) -> Result<T, Error>,
) -> Result<Answers<T>, Error> {
    let runtimes = match chosen {
        None => open_all(process)?,
        Some(_) => Runtimes { opened: vec![open_chosen(process, chosen)?], failed: Vec::new() },
    };
    let several = runtimes.are_several();
    let mut answers = Answers { pid: process.pid(), each: Vec::new(), failed: runtimes.failed, several };
    for opened in runtimes.opened {
        let name = opened.name.clone();
        match look(opened) {
            Ok(answer) => answers.each.push((name, answer)),
            Err(error) if !several || is_gone(&error) => return Err(error),
            Err(error) => answers.failed.push((name, error)),
        }
    }
    if answers.each.is_empty() && !answers.failed.is_empty() {
        return Err(answers.failed.swap_remove(0).1);
    }
    Ok(answers)
}

/// Whether there is nothing left to ask.
fn is_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::Interrupted | Error::Process(process::Error::Exited(_) | process::Error::Executed(_))
    )
}

impl<T> Answers<T> {
    /// Whether the answer has to say which runtime it is of.
    pub(super) fn are_several(&self) -> bool {
        self.several
    }

    /// The answers, with the names of their runtimes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&RuntimeName, &T)> {
        self.each.iter().map(|(name, answer)| (name, answer))
    }

    /// The same, to be kept.
    pub(super) fn into_each(self) -> Vec<(RuntimeName, T)> {
        self.each
    }

    /// Writes them one after the other, each below its runtime where there are several.
    pub(super) fn write_text(
        &self,
        out: &mut dyn Write,
        mut write: impl FnMut(&T, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        for (index, (name, answer)) in self.iter().enumerate() {
            if self.several {
                if index > 0 {
                    writeln!(out)?;
                }
                write_heading(name, out)?;
            }
            write(answer, out)?;
        }
        Ok(())
    }

    /// Writes them as JSON: the only one as it is.
    pub(super) fn write_json(
        &self,
        common: &Common,
        mut write: impl FnMut(&T, &mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        let failed: Vec<FailedRuntime> =
            self.failed.iter().map(|(name, error)| FailedRuntime::new(name, error.to_string())).collect();
        output::write_escaped(common, |out| match self.each.as_slice() {
            [(_, only)] if !self.several => write(only, out),
            _ => write_json(self.pid, self.iter(), &failed, write, out),
        })
    }

    /// Names the runtimes that do not answer, where others do.
    pub(super) fn conclude(&self) -> Result<(), Error> {
        let texts: Vec<String> = self
            .failed
            .iter()
            .map(|(name, error)| format!("the Go runtime of {name} does not answer: {error}"))
            .collect();
        if texts.is_empty() { Ok(()) } else { Err(Error::Partial(texts.join("; "))) }
    }
}

/// An answer as JSON, with a line end behind it.
pub(super) fn pretty<T: Serialize>(answer: &T, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, answer)?;
    writeln!(out)
}
