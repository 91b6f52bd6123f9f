//! `docs/kernels.md`, made of what ran.

use std::fmt::Write as _;
use std::time::Duration;

use crate::guest::SUBTESTS;
use crate::outcome::{Outcome, Verdict};
use crate::suite::{Report, Run};

/// One line for each sub-test, one column for each kernel.
#[must_use]
pub fn overview(report: &Report) -> String {
    let mut text = String::from("| Sub-test |");
    for run in &report.runs {
        let _ = write!(text, " {} |", name(run));
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(report.runs.len()));
    text.push('\n');
    for (n, subtest) in SUBTESTS.iter().enumerate() {
        let _ = write!(text, "| `{}`: {} |", subtest.name, subtest.what);
        for outcome in report.runs.iter().filter_map(|run| run.outcomes.get(n)) {
            let word = match outcome.verdict {
                Verdict::Pass => "passed",
                Verdict::Fail => "**FAILED**",
                Verdict::Skip => "did not run",
            };
            let _ = write!(text, " {word} |");
        }
        text.push('\n');
    }
    let time = |what: &str, of: &dyn Fn(&Run) -> Option<Duration>| {
        let cells: String = report.runs.iter().fold(String::new(), |mut cells, run| {
            let _ = match of(run) {
                Some(time) => write!(cells, " {:.1} s |", time.as_secs_f64()),
                None => write!(cells, " |"),
            };
            cells
        });
        format!("| {what} |{cells}\n")
    };
    text.push_str(&time("until the first sub-test", &|run| run.boot));
    text.push_str(&time("in all", &|run| Some(run.total)));
    text
}

/// What each sub-test saw, in its own words.
#[must_use]
pub fn details(run: &Run) -> String {
    run.outcomes.iter().fold(String::new(), |mut text, Outcome { name, verdict, detail }| {
        let _ = writeln!(text, "* `{name}` {}: {detail}", verdict.word());
        text
    })
}

/// The whole page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut text = String::from(
        "# Kernels and privileges\n\n\
         Made by `UPDATE_KERNELS=1 scripts/vm-tests` of what ran: the same programs on each kernel, Debian's in\n\
         emulated machines (QEMU without virtualisation, which makes them slow), the other one natively. What a\n\
         kernel lacks did not run there, and the reason is below. Kernels before 6.1 are not tested: the distribution\n\
         has none; one of your own is tested by `scripts/vm-tests PATH-OF-VMLINUZ`.\n\n",
    );
    text.push_str(&overview(report));
    for run in &report.runs {
        let _ = write!(text, "\n## {}\n\n{}", name(run), details(run));
    }
    text
}

fn name(run: &Run) -> String {
    if run.host { format!("{} (no emulator)", run.kernel) } else { run.kernel.clone() }
}
