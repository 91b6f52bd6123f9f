//! Answers of several Go runtimes in one process, one after the other.

use std::io::{self, Write};

use serde::Serialize;

use crate::printable::printable_str;
use crate::process::Pid;
use crate::runtime::open::RuntimeName;

/// Version of the JSON with answers of several runtimes. Each inner answer has the version that it has alone.
pub const SCHEMA_OF_SEVERAL: u32 = 2;

/// Answers of several Go runtimes in one process. `answer` is the answer of the command for one runtime.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Several<T> {
    /// Version of the JSON format: 2. An answer of one runtime stands alone, with version 1.
    pub schema: u32,
    /// Process id in our pid namespace.
    pub pid: i32,
    /// Source of the answer: always `probe` (read from outside).
    pub via: &'static str,
    /// Answers: first of the executable, then of shared objects.
    pub runtimes: Vec<OfRuntime<T>>,
    /// Runtimes that could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedRuntime>,
}

/// Answer of one runtime.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OfRuntime<T> {
    /// Path of the module that holds the runtime, as the process knows it. The option `--runtime` takes this
    /// value.
    pub module: String,
    /// Go release that built the module, as far as it is known.
    pub release: String,
    /// Answer of the runtime.
    pub answer: T,
}

/// Runtime that could not be read.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailedRuntime {
    /// Path of the module that holds the runtime, as the process knows it.
    pub module: String,
    /// Go release that built the module, as far as it is known.
    pub release: String,
    /// Reason why the runtime could not be read.
    pub error: String,
}

impl FailedRuntime {
    /// Makes an entry from the runtime's name and the error.
    pub fn new(name: &RuntimeName, error: String) -> Self {
        FailedRuntime { module: name.module.clone(), release: name.release.clone(), error }
    }
}

/// Writes the heading line above the text of a runtime, and an empty line.
///
/// # Errors
/// Returns an error if writing to `out` fails.
pub fn write_heading(name: &RuntimeName, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "runtime {}:\n", printable_str(&name.to_string()))
}

/// Writes [`Several`] without having all answers in memory at once. `write` writes the JSON of one answer.
///
/// # Errors
/// Returns an error if writing to `out` fails, or the error of `write`.
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
