//! What of an outcome is compared. Each thing that is left out has its reason here.

use std::sync::LazyLock;

use fixtures::pprof;
use regex::{Captures, Regex};

use crate::run::Outcome;

/// How much of an outcome must be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// All but what a look costs and when it was.
    Exact,
    /// As [`Form::Exact`], but for the values of numbers: to ask an agent allocates in its process, and a busy process counts on.
    Numbers,
    /// Names of fields in JSON, and standard error without values of numbers: what was sampled is another each time.
    Names,
}

struct Left {
    pattern: Regex,
    by: &'static str,
}

/// What is left out everywhere: pattern, replacement.
static LEFT_OUT: LazyLock<Vec<Left>> = LazyLock::new(|| {
    [
        // When a file was written is in its name.
        (r"\b\d{8}T\d{6}Z", "TIME"),
        // When and for how long a profile was taken.
        (r#"("(?:time_unix_ns|duration_ns)": ?)\d+"#, "${1}N"),
        (r"(?m)^((?:Time|Duration): ).*$", "${1}N"),
        (r"(two readings )\S+( apart)", "${1}N${2}"),
        // How long threads were stopped, and how much was read: the machine's load, and what became cheaper. Both programs are
        // among the processes that a list looks at.
        (
            r#"("(?:stopped_us|until_stopped_us|threads_stopped|bytes_read|read_calls|file_bytes_read)": ?)\d+"#,
            "${1}N",
        ),
        (r"(?m)^(cost:\t).*$", "${1}N"),
        // A packed profile is longer or shorter with the time in it.
        (r#"("file": "[^"]*\.pb\.gz",\s*"bytes": )\d+"#, "${1}N"),
        // Shares of a process's lifetime, and that itself.
        (r#"("(?:elapsed_seconds|cpu_percent|cpu_seconds)": ?)[\d.e-]+"#, "${1}N"),
        (r"(?m)^((?:elapsed time|cpu usage.*):\t).*$", "${1}N"),
        // All processes of the cgroup have a part in that.
        (r#"("memory_used_bytes": ?)\d+"#, "${1}N"),
        (r"(, )\d+( bytes used)", "${1}N${2}"),
    ]
    .into_iter()
    .filter_map(|(pattern, by)| Some(Left { pattern: Regex::new(pattern).ok()?, by }))
    .collect()
});

/// Lines on standard error that say what a look cost, or how long a collection took.
static COST: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?m)^(?:cost|done|samples): .*$").ok());
static NUMBER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"0x[0-9a-f]+|\d+(?:\.\d+)?(?:e-?\d+)?").ok());
static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#""([A-Za-z_]+)":"#).ok());

/// An outcome as a text to compare.
pub(crate) fn comparable(outcome: &Outcome, form: Form) -> String {
    let mut text = format!("-- end: {}\n-- standard output:\n", outcome.end);
    text += &content(&outcome.stdout, form);
    text += "\n-- standard error:\n";
    let stderr = without_costs(&unmoved(&String::from_utf8_lossy(&outcome.stderr)));
    text += &if form == Form::Exact { stderr } else { without_numbers(&stderr) };
    for (name, mode, bytes) in &outcome.files {
        text += &format!("\n-- file {}, mode {mode:o}:\n", unmoved(name));
        text += &content(bytes, form);
    }
    text
}

fn content(bytes: &[u8], form: Form) -> String {
    // The order of rows and names in a profile says nothing; when it was taken, and for how long, is left out.
    let text = match pprof::parse(bytes) {
        Some(profile) => format!("{profile:#?}"),
        None => String::from_utf8_lossy(bytes).into_owned(),
    };
    let text = unmoved(&text);
    match form {
        Form::Exact => text,
        Form::Numbers => without_numbers(&text),
        Form::Names => names(&text),
    }
}

fn unmoved(text: &str) -> String {
    LEFT_OUT.iter().fold(text.to_owned(), |text, left| left.pattern.replace_all(&text, left.by).into_owned())
}

fn without_costs(text: &str) -> String {
    let Some(lines) = COST.as_ref() else { return text.to_owned() };
    lines.replace_all(text, |line: &Captures<'_>| without_numbers(&line[0])).into_owned()
}

fn without_numbers(text: &str) -> String {
    NUMBER.as_ref().map_or_else(|| text.to_owned(), |number| number.replace_all(text, "N").into_owned())
}

/// The fields that a JSON text has, each once.
fn names(text: &str) -> String {
    let Some(name) = NAME.as_ref() else { return text.to_owned() };
    let names: std::collections::BTreeSet<&str> =
        name.captures_iter(text).filter_map(|c| Some(c.get(1)?.as_str())).collect();
    names.into_iter().collect::<Vec<_>>().join("\n")
}
