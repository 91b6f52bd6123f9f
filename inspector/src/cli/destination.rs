//! Where an answer that is a file goes: which file, under which name until it is whole, or standard output.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::args::Common;
use super::interrupt::Interrupt;
use super::output;
use crate::Error;
use crate::agent::AgentTarget;
use crate::report::answers::{Asked, Saved, Source, Sourced};
use crate::report::sampling::Sampling;
use crate::report::stack::Cost;

const BUFFER: usize = 1 << 20;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    /// What a file of it is named by: `heap`.
    pub(super) kind: &'static str,
    /// Its extension: `.pb.gz`.
    pub(super) extension: &'static str,
    pub(super) form: Form,
}

/// Where it can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Never to a terminal; what it is called in messages.
    Binary(&'static str),
    /// A file by default, though a terminal does no harm.
    Document,
    /// To standard output by default.
    Text,
    /// The same, and it is what `--json` asks for.
    Json,
}

/// What became of it, beside what its file says.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) asked: &'a Asked,
    pub(super) via: &'static str,
    pub(super) cost: Option<Cost>,
    pub(super) sampling: Option<&'a Sampling>,
}

/// How many bytes were written, and why that is not all.
pub(super) type Written = (u64, Option<String>);

/// Why bytes could not be copied.
pub(super) enum Failed {
    /// The output is to blame.
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

/// Where it goes.
#[derive(Debug)]
pub(super) enum Destination {
    Stdout,
    /// Something that exists and is no regular file: it is written as it is.
    Device(PathBuf),
    File(PathBuf),
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Destination::Stdout => f.write_str("what was written to standard output"),
            Destination::Device(path) | Destination::File(path) => path.display().fmt(f),
        }
    }
}

impl Destination {
    /// Chooses, before anything is done that takes time.
    ///
    /// With `--json`, standard output is for the answer that names the file.
    pub(super) fn choose(content: Content, asked: &Asked, common: &Common) -> Result<Self, Error> {
        match common.output.as_deref() {
            Some(path) if path == Path::new("-") => {
                if common.json && content.form != Form::Json {
                    return Err(Error::Usage("--json and -o - both want standard output".to_owned()));
                }
                if let Form::Binary(name) = content.form
                    && io::stdout().is_terminal()
                {
                    return Err(Error::Usage(format!(
                        "{name} is binary and does not go to a terminal: use -o FILE, or redirect the output"
                    )));
                }
                Ok(Destination::Stdout)
            }
            Some(path) => Ok(match fs::metadata(path) {
                Ok(meta) if !meta.is_file() => Destination::Device(path.to_owned()),
                _ => Destination::File(path.to_owned()),
            }),
            None if content.form == Form::Json || (content.form == Form::Text && !common.json) => {
                Ok(Destination::Stdout)
            }
            None => Ok(Destination::File(free_name(content, asked))),
        }
    }

    /// The file, if it is one.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Destination::File(path) => Some(path),
            _ => None,
        }
    }

    /// Has `copy` write it, names the file on standard output, and says what is missing.
    ///
    /// # Errors
    /// Where it cannot be written; [`Error::Partial`] where it is not whole, [`Error::Interrupted`] where somebody wanted
    /// that.
    pub(super) fn deliver(
        &self,
        about: &About<'_>,
        common: &Common,
        interrupt: &Interrupt,
        copy: impl FnOnce(&mut dyn Write) -> Result<Written, Failed>,
    ) -> Result<(), Error> {
        let (bytes, damage) = match self {
            Destination::Stdout => {
                let mut out = io::stdout().lock();
                copy(&mut out).map_err(|e| e.about("standard output"))?
            }
            Destination::Device(path) => {
                let mut out = OpenOptions::new().write(true).open(path).map_err(|e| unwritable(path, e))?;
                copy(&mut out).map_err(|e| e.about(&path.display().to_string()))?
            }
            Destination::File(path) => save(path, interrupt, copy)?,
        };
        let file = self.file().map(|p| if damage.is_some() { partial_name(p) } else { p.to_owned() });
        if let Some(file) = &file {
            let file = file.to_string_lossy().into_owned();
            let stdout = Common { output: None, ..common.clone() };
            if common.json {
                let sampling = about.sampling.cloned();
                let answer = Saved { file, bytes, partial: damage.clone(), cost: about.cost, sampling };
                let source = Source::of(about.asked, about.via);
                output::write_json(&stdout, &Sourced { source, answer })?;
            } else {
                output::write(&stdout, |out| {
                    writeln!(out, "{}", crate::report::printable::printable_str(&file))
                })?;
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

/// A name that says what is in the file, and that no file has: `gops-4711-heap-20261125T120000Z.pb.gz`.
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

/// What a file is called until it is whole.
fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Writes a file under another name, which it keeps where it is not whole.
fn save(
    path: &Path,
    interrupt: &Interrupt,
    copy: impl FnOnce(&mut dyn Write) -> Result<Written, Failed>,
) -> Result<Written, Error> {
    let partial = partial_name(path);
    // Never through a link that somebody else put there.
    let _ = fs::remove_file(&partial);
    let created = OpenOptions::new().write(true).create_new(true).open(&partial);
    let file = created.map_err(|e| unwritable(&partial, e))?;
    let mut out = BufWriter::with_capacity(BUFFER, file);
    let copied = copy(&mut out).and_then(|copied| {
        out.flush().map_err(Failed::Output)?;
        Ok(copied)
    });
    let result = match copied {
        Ok((bytes, None)) => {
            return fs::rename(&partial, path).map(|()| (bytes, None)).map_err(|e| unwritable(path, e));
        }
        Ok((0, Some(_))) if interrupt.is_pending() => Err(Error::Interrupted),
        Ok(kept) => return Ok(kept),
        Err(failed) => Err(failed.about(&partial.display().to_string())),
    };
    // Nothing of it is worth keeping.
    let _ = fs::remove_file(&partial);
    result
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
