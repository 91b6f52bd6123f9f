//! Destination of an answer that is a file: a file, with a temporary name until it is complete, or standard
//! output.

use std::fs::Permissions;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::args::Common;
use super::interrupt::Interrupt;
use super::output;
use super::place::{Entry, Place, open_special};
use super::sink::NewFile;
use crate::Error;
use crate::agent::AgentTarget;
use crate::operations::binary::{Sink, Stream};
use crate::report::answers::{Asked, Saved, Source, Sourced};
use crate::report::sampling::Sampling;
use crate::report::stack::AnswerCost;

/// Kind of content to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    /// Part of a file's name for this content: `heap`.
    pub(super) kind: &'static str,
    /// Extension of a file's name: `.pb.gz`.
    pub(super) extension: &'static str,
    pub(super) form: Form,
}

/// Form of the content, which decides on its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Binary data, never written to a terminal. The text is its name in messages.
    Binary(&'static str),
    /// Text written to a file by default, though a terminal is possible.
    Document,
    /// Text written to standard output by default.
    Text,
    /// JSON as `--json` asks for, written to standard output by default.
    Json,
}

/// Facts about a written answer beside its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) asked: &'a Asked,
    pub(super) via: &'static str,
    pub(super) cost: Option<AnswerCost>,
    pub(super) sampling: Option<&'a Sampling>,
}

/// Number of bytes written, and the reason if these are not all.
pub(super) type Written = (u64, Option<String>);

/// Error of copying bytes.
pub(super) enum Failed {
    /// Error of the output.
    Output(io::Error),
    Other(Error),
}

impl Failed {
    fn about(self, to: &str) -> Error {
        match self {
            Failed::Output(source) => Error::Output { to: to.to_owned(), source },
            Failed::Other(error) => error,
        }
    }
}

/// Destination of an answer.
#[derive(Debug)]
pub(super) enum Destination {
    Stdout,
    /// Existing object that is no regular file. It is written to directly.
    Device(PathBuf, Place),
    File(NewFileAt),
}

/// File to be created.
#[derive(Debug)]
pub(super) struct NewFileAt {
    path: PathBuf,
    entry: Entry,
    /// True if the user did not give the name. An existing file is then never replaced.
    fresh: bool,
    /// True if the owner may execute the file.
    program: bool,
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Destination::Stdout => f.write_str("what was written to standard output"),
            Destination::Device(path, _) | Destination::File(NewFileAt { path, .. }) => path.display().fmt(f),
        }
    }
}

impl Destination {
    /// Chooses the destination. Call before work that takes time.
    ///
    /// With `--json`, standard output is reserved for the answer that names the file.
    pub(super) fn choose(content: Content, asked: &Asked, common: &Common) -> Result<Self, Error> {
        match common.output.as_deref() {
            Some(path) if path == Path::new("-") => {
                if common.json && content.form != Form::Json {
                    return Err(Error::Usage(
                        "--json and -o - cannot be combined: both use standard output".to_owned(),
                    ));
                }
                not_to_terminal(content, &io::stdout())?;
                Ok(Destination::Stdout)
            }
            Some(path) => match Place::find(path).map_err(|e| unwritable(path, e))? {
                Place::Entry(entry) => Ok(Destination::file_at(path.to_owned(), entry, false)),
                place => {
                    if let Place::Inherited(fd) = &place {
                        not_to_terminal(content, fd)?;
                    }
                    Ok(Destination::Device(path.to_owned(), place))
                }
            },
            None if content.form == Form::Json || (content.form == Form::Text && !common.json) => {
                Ok(Destination::Stdout)
            }
            None => {
                let path = free_name(content, asked);
                match Place::find(&path).map_err(|e| unwritable(&path, e))? {
                    Place::Entry(entry) => Ok(Destination::file_at(path, entry, true)),
                    _ => Err(unwritable(&path, io::ErrorKind::AlreadyExists.into())),
                }
            }
        }
    }

    fn file_at(path: PathBuf, entry: Entry, fresh: bool) -> Self {
        Destination::File(NewFileAt { path, entry, fresh, program: false })
    }

    /// Marks the file as a program, which its owner can execute.
    pub(super) fn of_program(mut self) -> Self {
        if let Destination::File(file) = &mut self {
            file.program = true;
        }
        self
    }

    /// Returns the path of the file, if the destination is one.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Destination::File(file) => Some(&file.path),
            _ => None,
        }
    }

    /// Writes the content by calling `copy`, names the file on standard output, and reports missing data.
    ///
    /// # Errors
    /// Returns an error if the content cannot be written, [`Error::Partial`] if it is incomplete, and
    /// [`Error::Interrupted`] if the user interrupted.
    pub(super) fn deliver(
        &self,
        about: &About<'_>,
        common: &Common,
        interrupt: &Interrupt,
        copy: impl FnOnce(&mut dyn Sink) -> Result<Written, Failed>,
    ) -> Result<(), Error> {
        let mut file = self.file().map(Path::to_owned);
        let (bytes, damage) = match self {
            Destination::Stdout => {
                copy(&mut Stream(io::stdout().lock())).map_err(|e| e.about("standard output"))?
            }
            Destination::Device(path, place) => {
                let out = open_device(place).map_err(|e| unwritable(path, e))?;
                copy(&mut Stream(out)).map_err(|e| e.about(&path.display().to_string()))?
            }
            Destination::File(new) => {
                let (written, path) = save(new, interrupt, copy)?;
                file = Some(path);
                written
            }
        };
        if let Some(file) = &file {
            let file = file.to_string_lossy().into_owned();
            let stdout = Common { output: None, ..common.clone() };
            if common.json {
                let sampling = about.sampling.cloned();
                let answer = Saved { file, bytes, partial: damage.clone(), cost: about.cost, sampling };
                let source = Source::of(about.asked, about.via);
                output::write_json(&stdout, &Sourced { source, answer })?;
            } else {
                output::write(&stdout, |out| writeln!(out, "{}", crate::printable::printable_str(&file)))?;
            }
        }
        if interrupt.is_pending() {
            return Err(Error::Interrupted);
        }
        if let Some(damage) = damage {
            let name = file.map_or_else(|| self.to_string(), |f| f.display().to_string());
            return Err(Error::Partial(format!("{name} is not whole: {damage}")));
        }
        Ok(())
    }
}

/// Returns an unused file name that describes the content: `gops-4711-heap-20261125T120000Z.pb.gz`.
fn free_name(content: Content, asked: &Asked) -> PathBuf {
    let of = match asked {
        Asked::One(AgentTarget::Process(pid)) => pid.to_string(),
        Asked::One(AgentTarget::Address(address)) => {
            address.to_string().replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "_")
        }
        Asked::Several(pids) => match pids.first() {
            Some(first) => format!("{first}-and-{}", pids.len() - 1),
            None => "none".to_owned(),
        },
        Asked::Machine => "machine".to_owned(),
    };
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(['-', ':'], "");
    let Content { kind, extension, .. } = content;
    let stem = format!("gops-{of}-{kind}-{time}");
    let names = (1..).map(|n| match n {
        1 => PathBuf::from(format!("{stem}{extension}")),
        n => PathBuf::from(format!("{stem}-{n}{extension}")),
    });
    let free =
        |path: &PathBuf| [path.clone(), partial_name(path)].iter().all(|p| p.symlink_metadata().is_err());
    names.take(1000).find(free).unwrap_or_else(|| PathBuf::from(stem))
}

/// Returns the name of a file until it is complete.
fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Writes a file under a temporary name, and renames it once it is complete. An incomplete file keeps the
/// temporary name. Returns the path.
fn save(
    new: &NewFileAt,
    interrupt: &Interrupt,
    copy: impl FnOnce(&mut dyn Sink) -> Result<Written, Failed>,
) -> Result<(Written, PathBuf), Error> {
    let unfinished = new.entry.begin().map_err(|e| unwritable(&new.path, e))?;
    let mut out = NewFile::new(&unfinished.file);
    let copied = copy(&mut out).and_then(|copied| {
        out.finish().map_err(Failed::Output)?;
        Ok(copied)
    });
    // After an early return, the file is worth nothing.
    match copied.map_err(|failed| failed.about(&new.path.display().to_string()))? {
        written @ (_, None) => {
            if new.program {
                let executable = Permissions::from_mode(0o700);
                unfinished.file.set_permissions(executable).map_err(|e| unwritable(&new.path, e))?;
            }
            unfinished.keep(new.fresh).map_err(|e| unwritable(&new.path, e))?;
            Ok((written, new.path.clone()))
        }
        (0, Some(_)) if interrupt.is_pending() => Err(Error::Interrupted),
        kept => Ok((kept, new.path.with_file_name(unfinished.keep_partial()))),
    }
}

fn open_device(place: &Place) -> io::Result<std::fs::File> {
    match place {
        Place::Inherited(fd) => Ok(fd.try_clone()?.into()),
        Place::Special(found) => open_special(found),
        Place::Entry(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

fn not_to_terminal(content: Content, out: &impl AsFd) -> Result<(), Error> {
    match content.form {
        Form::Binary(name) if out.as_fd().is_terminal() => Err(Error::Usage(format!(
            "{name} is binary and does not go to a terminal: use -o FILE, or redirect the output"
        ))),
        _ => Ok(()),
    }
}

fn unwritable(path: &Path, source: io::Error) -> Error {
    Error::Output { to: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_is_in_a_file() {
        let content = |kind, extension| Content { kind, extension, form: Form::Document };
        let target = AgentTarget::Process("4711".parse().unwrap()).into();
        let name = free_name(content("heap", ".pb.gz"), &target).display().to_string();
        assert!(name.starts_with("gops-4711-heap-2") && name.ends_with("Z.pb.gz"), "{name}");
        assert_eq!(name.len(), "gops-4711-heap-20261125T120000Z.pb.gz".len());
        let target = AgentTarget::Address("[::1]:6060".parse().unwrap()).into();
        let name = free_name(content("trace", ".trace"), &target).display().to_string();
        assert!(name.starts_with("gops-___1__6060-trace-2"), "{name}");
        let pids = ["7", "8", "9"].map(|pid| pid.parse().unwrap()).to_vec();
        let name = free_name(content("cpu", ".svg"), &Asked::Several(pids)).display().to_string();
        assert!(name.starts_with("gops-7-and-2-cpu-2"), "{name}");
        assert_eq!(partial_name(Path::new("a/b.pb.gz")), Path::new("a/b.pb.gz.partial"));
    }
}
