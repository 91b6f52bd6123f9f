//! Results of the matrix test, kept between runs, and the table made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::dump::Comparison;
use crate::error::Result;
use crate::journal;
use crate::matrix::{Cell, Program, TOOLCHAINS, Variant};

/// Maximum number of differences that a record describes.
const SHOWN: usize = 3;

/// Result of one check of one cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Go version without the `go`.
    pub toolchain: String,
    /// Build variant of the target.
    pub variant: Variant,
    /// Program of the target.
    pub program: Program,
    /// Name of the check.
    pub check: String,
    /// True if every difference has an explanation.
    pub passed: bool,
    /// Number of goroutines with the same text, byte for byte.
    pub equal: usize,
    /// Number of goroutines that ran meanwhile.
    pub moved: usize,
    /// Number of goroutines that differ without an explanation.
    pub different: usize,
    /// Description of the problem; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

impl Record {
    /// Creates the record of a comparison.
    #[must_use]
    pub fn of(cell: Cell, check: &str, comparison: &Comparison) -> Self {
        let mut problem = String::new();
        for difference in comparison.different.iter().take(SHOWN) {
            let _ = write!(
                problem,
                "goroutine {}:\n--- the target says\n{}\n--- found\n{}\n",
                difference.id, difference.expected, difference.found
            );
        }
        if !comparison.same_order {
            problem.push_str("the goroutines come in another order\n");
        }
        if comparison.equal == 0 {
            problem.push_str("no goroutine is the same\n");
        }
        Self {
            passed: comparison.accepted(),
            equal: comparison.equal,
            moved: comparison.moved.len() + comparison.running.len(),
            different: comparison.different.len(),
            ..Self::failed(cell, check, problem)
        }
    }

    /// Creates the record of a check that failed before it could compare.
    #[must_use]
    pub fn failed(cell: Cell, check: &str, problem: String) -> Self {
        Self {
            toolchain: cell.toolchain.to_owned(),
            variant: cell.variant,
            program: cell.program,
            check: check.to_owned(),
            passed: false,
            equal: 0,
            moved: 0,
            different: 0,
            problem,
        }
    }

    fn key(&self) -> (Program, &str, &str, Variant) {
        (self.program, &self.check, &self.toolchain, self.variant)
    }
}

const JOURNAL: &str = "matrix.jsonl";

/// Appends records to those of earlier runs.
///
/// # Errors
///
/// Returns an error if the file cannot be written.
pub fn append(records: &[Record]) -> Result<()> {
    journal::append(JOURNAL, records)
}

/// Reads the latest record of each check of each cell.
///
/// # Errors
///
/// Returns an error if the file is missing or has other contents.
pub fn read() -> Result<Vec<Record>> {
    let records: Vec<Record> = journal::read(JOURNAL)?;
    let latest: BTreeMap<_, _> = records.iter().map(|record| (record.key(), record)).collect();
    Ok(latest.into_values().cloned().collect())
}

/// Formats the page of results: one table for each program and check, with a row for each toolchain.
#[must_use]
pub fn table(records: &[Record]) -> String {
    let mut page = String::from(HEAD);
    let tables: BTreeSet<(Program, &str)> =
        records.iter().map(|record| (record.program, record.check.as_str())).collect();
    for (program, check) in tables {
        let of_table = |record: &&Record| record.program == program && record.check == check;
        let records: Vec<&Record> = records.iter().filter(of_table).collect();
        let variants: BTreeSet<Variant> = records.iter().map(|record| record.variant).collect();
        let _ = write!(page, "\n## `{program}`: {check}\n\n| Go |");
        for variant in &variants {
            let _ = write!(page, " {variant} |");
        }
        let _ = write!(page, "\n|---|{}\n", "---|".repeat(variants.len()));
        for &toolchain in TOOLCHAINS {
            let of_row: Vec<&&Record> =
                records.iter().filter(|record| record.toolchain == toolchain).collect();
            if of_row.is_empty() {
                continue;
            }
            let _ = write!(page, "| {toolchain} |");
            for variant in &variants {
                let entry = of_row.iter().find(|record| record.variant == *variant);
                let _ = write!(page, " {} |", entry.map_or(String::new(), |record| summary(record)));
            }
            page.push('\n');
        }
    }
    let passed = records.iter().filter(|record| record.passed).count();
    let equal: usize = records.iter().map(|record| record.equal).sum();
    let moved: usize = records.iter().map(|record| record.moved).sum();
    let _ = write!(
        page,
        "\n{passed} of {} checks passed; {equal} goroutines were the same, {moved} ran meanwhile.\n",
        records.len()
    );
    page
}

const HEAD: &str = "\
# The matrix

Generated by `cargo run -p gops-probe-tests --bin fixtures -- table` from what the matrix test recorded
(`GOPS_PROBE_MATRIX=quick|spread|full cargo test -p gops-probe-tests --test matrix`): an empty field did not run.

Each number counts the goroutines whose text from outside is, byte for byte, what the target itself says;
`+n` more differ between two dumps of the target itself, because they ran in between. The goroutine that
writes the target's own dump is left out. `✗` means that something differs without such an explanation.
";

fn summary(record: &Record) -> String {
    let mut text = String::new();
    if !record.passed {
        text.push_str("✗ ");
    }
    match record.equal {
        0 if record.passed => text.push('✓'),
        equal => {
            let _ = write!(text, "{equal}");
        }
    }
    if record.moved > 0 {
        let _ = write!(text, " +{}", record.moved);
    }
    if record.different > 0 {
        let _ = write!(text, ", {} differ", record.different);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::{NEWEST, newest_of};

    #[test]
    fn the_table_shows_what_ran() {
        let cell = Cell::new(NEWEST, Variant::Pie, Program::States);
        let same = Comparison { equal: 130, moved: vec![3], same_order: true, ..Comparison::default() };
        let failed = Record::failed(
            Cell::new(newest_of(18), Variant::Stripped, Program::States),
            "stack",
            "no answer".to_owned(),
        );
        let page = table(&[Record::of(cell, "stack", &same), failed]);
        assert!(page.contains(&format!("| {NEWEST} |  | 130 +1 |")), "{page}");
        assert!(page.contains("| 1.18.10 | ✗ 0 |  |"), "{page}");
        assert!(page.contains("1 of 2 checks passed"), "{page}");
    }

    #[test]
    fn records_survive_their_file_format() {
        let cell = Cell::new(NEWEST, Variant::NoBuildInfo, Program::HttpServer);
        let record = Record::failed(cell, "stack", "text\nwith lines".to_owned());
        let line = serde_json::to_string(&record).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }
}
