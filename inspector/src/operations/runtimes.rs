//! Answers of the Go runtimes of a process: of all, or of the chosen one.

use std::io::{self, Write};

use crate::Error;
use crate::process::{self, Pid, Process};
use crate::report::runtimes::write_heading;
use crate::runtime::open::{Opened, RuntimeName, Runtimes, open_all, open_chosen};

/// Answers of the runtimes of a process.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    /// Process id.
    pub(crate) pid: Pid,
    each: Vec<(RuntimeName, T)>,
    /// Runtimes that did not answer, with the reasons.
    pub(crate) failed: Vec<(RuntimeName, Error)>,
    /// True if there are several runtimes and none was chosen.
    several: bool,
}

/// Asks the chosen runtime, or all of them.
///
/// # Errors
/// Returns the error of the first runtime if none answers.
pub(crate) fn ask<T>(
    process: &Process,
    chosen: Option<&str>,
    mut look: impl FnMut(Opened) -> Result<T, Error>,
) -> Result<Answers<T>, Error> {
    let runtimes = match chosen {
        None => open_all(process)?,
        Some(_) => Runtimes { opened: vec![open_chosen(process, chosen)?], failed: Vec::new() },
    };
    let several = runtimes.are_several();
    let mut answers = Answers {
        pid: process.pid(),
        each: Vec::new(),
        failed: runtimes.failed.into_iter().map(|(name, error)| (name, error.into())).collect(),
        several,
    };
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

/// Returns true if there is nothing left to ask.
fn is_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::Interrupted | Error::Process(process::Error::Exited(_) | process::Error::Executed(_))
    )
}

impl<T> Answers<T> {
    /// Returns true if each answer must name its runtime.
    pub(crate) fn are_several(&self) -> bool {
        self.several
    }

    /// Returns the answer of the only runtime or of the chosen one. `None` if there are several.
    pub(crate) fn only(&self) -> Option<&T> {
        match self.each.as_slice() {
            [(_, only)] if !self.several => Some(only),
            _ => None,
        }
    }

    /// Returns the answers with the names of their runtimes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RuntimeName, &T)> {
        self.each.iter().map(|(name, answer)| (name, answer))
    }

    /// Returns the answers by value, with the names of their runtimes.
    pub(crate) fn into_each(self) -> Vec<(RuntimeName, T)> {
        self.each
    }

    /// Returns an error that names the runtimes without an answer, if there are any.
    pub(crate) fn conclude(&self) -> Result<(), Error> {
        let texts: Vec<String> = self
            .failed
            .iter()
            .map(|(name, error)| format!("the Go runtime of {name} does not answer: {error}"))
            .collect();
        if texts.is_empty() { Ok(()) } else { Err(Error::Partial(texts.join("; "))) }
    }

    /// Writes the answers one after the other, each with its runtime as heading if there are several.
    pub(crate) fn write_text(
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
}
