//! The runtimes of a process that answer: all that it has, or the one that is chosen.

use std::io::{self, Write};

use crate::Error;
use crate::process::{self, Pid, Process};
use crate::report::runtimes::write_heading;
use crate::runtime::open::{Opened, RuntimeName, Runtimes, open_all, open_chosen};

/// What the runtimes of a process answer.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    /// The process.
    pub(crate) pid: Pid,
    each: Vec<(RuntimeName, T)>,
    /// Runtimes that do not answer, and why.
    pub(crate) failed: Vec<(RuntimeName, Error)>,
    /// They are several, none of which was chosen.
    several: bool,
}

/// Asks the chosen runtime, or each.
///
/// # Errors
/// Where none answers: why the first one does not.
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

/// Whether there is nothing left to ask.
fn is_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::Interrupted | Error::Process(process::Error::Exited(_) | process::Error::Executed(_))
    )
}

impl<T> Answers<T> {
    /// Whether the answer has to say which runtime it is of.
    pub(crate) fn are_several(&self) -> bool {
        self.several
    }

    /// The answer of the only runtime, or of the one that was chosen.
    pub(crate) fn only(&self) -> Option<&T> {
        match self.each.as_slice() {
            [(_, only)] if !self.several => Some(only),
            _ => None,
        }
    }

    /// The answers, with the names of their runtimes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RuntimeName, &T)> {
        self.each.iter().map(|(name, answer)| (name, answer))
    }

    /// The same, to be kept.
    pub(crate) fn into_each(self) -> Vec<(RuntimeName, T)> {
        self.each
    }

    /// Names the runtimes that do not answer, where others do.
    pub(crate) fn conclude(&self) -> Result<(), Error> {
        let texts: Vec<String> = self
            .failed
            .iter()
            .map(|(name, error)| format!("the Go runtime of {name} does not answer: {error}"))
            .collect();
        if texts.is_empty() { Ok(()) } else { Err(Error::Partial(texts.join("; "))) }
    }

    /// Writes them one after the other, each below its runtime where there are several.
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
