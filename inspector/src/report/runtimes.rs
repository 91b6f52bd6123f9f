//! Answers of several Go runtimes in one process: what each of them answers by itself, one after the other.

use std::io::{self, Write};

use serde::Serialize;

use crate::printable::printable_str;
use crate::process::Pid;
use crate::runtime::open::RuntimeName;

/// Version of the JSON that has the answers of several runtimes. Each of them is in the version that it has alone.
pub const SCHEMA_OF_SEVERAL: u32 = 2;

/// The answers of several runtimes. `answer` is what the command says of a process with one.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Several<T> {
    /// Version of this format: 2. Where there is one runtime, it is 1, and the answer stands alone.
    pub schema: u32,
    /// The process.
    pub pid: i32,
    /// Who answered: `probe`.
    pub via: &'static str,
    /// The answers: of the executable first, then of shared objects.
    pub runtimes: Vec<OfRuntime<T>>,
    /// Runtimes that could not be looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedRuntime>,
}

/// The answer of one runtime.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OfRuntime<T> {
    /// Which one, for `--runtime`: the path of the module that holds it, as the process knows it.
    pub module: String,
    /// The Go release that built it, as far as it is known.
    pub release: String,
    /// What it answers.
    pub answer: T,
}

/// A runtime that could not be looked at.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailedRuntime {
    /// Which one.
    pub module: String,
    /// The Go release that built it, as far as it is known.
    pub release: String,
    /// Why not.
    pub error: String,
}

impl FailedRuntime {
    /// Why a runtime could not be looked at.
    pub fn new(name: &RuntimeName, error: String) -> Self {
        FailedRuntime { module: name.module.clone(), release: name.release.clone(), error }
    }
}

/// The line above what a runtime answers in text, and an empty one.
///
/// # Errors
/// Those of `out`.
pub fn write_heading(name: &RuntimeName, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "runtime {}:\n", printable_str(&name.to_string()))
}

/// Writes [`Several`] without having all answers at once: `write` writes the JSON of one.
///
/// # Errors
/// Those of `out` and of `write`.
pub fn write_json<'a, T: 'a>(
    pid: Pid,
    answers: impl Iterator<Item = (&'a RuntimeName, &'a T)>,
    failed: &[FailedRuntime],
    mut write: impl FnMut(&T, &mut dyn Write) -> io::Result<()>,
    out: &mut dyn Write,
) -> io::Result<()> {
    write!(
        out,
        "{{\"schema\":{SCHEMA_OF_SEVERAL},\"pid\":{},\"via\":\"probe\",\"runtimes\":[",
        pid.as_raw()
    )?;
    for (index, (name, answer)) in answers.enumerate() {
        let (module, release) = (serde_json::to_string(&name.module)?, serde_json::to_string(&name.release)?);
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\n{{\"module\":{module},\"release\":{release},\"answer\":")?;
        write(answer, out)?;
        out.write_all(b"}")?;
    }
    out.write_all(b"]")?;
    if !failed.is_empty() {
        write!(out, ",\"failed\":{}", serde_json::to_string(failed)?)?;
    }
    writeln!(out, "}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_described() {
        let name = |module: &str| RuntimeName { module: module.to_owned(), release: "go1.24.13".to_owned() };
        let (a, b) = (name("/lib/\"a\".so"), name("/lib/b.so"));
        let failed = vec![FailedRuntime::new(&b, "why".to_owned())];
        let answers = [(&a, &1), (&b, &2)];
        let write = |answer: &i32, out: &mut dyn Write| write!(out, "{answer}");
        let mut written = Vec::new();
        let pid = "7".parse().unwrap();
        write_json(pid, answers.into_iter(), &failed, write, &mut written).unwrap();
        let of = |name: &RuntimeName, answer| OfRuntime {
            module: name.module.clone(),
            release: name.release.clone(),
            answer,
        };
        let runtimes = vec![of(&a, 1), of(&b, 2)];
        let whole = Several { schema: SCHEMA_OF_SEVERAL, pid: 7, via: "probe", runtimes, failed };
        let written: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(written, serde_json::to_value(whole).unwrap());
    }
}
