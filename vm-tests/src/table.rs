//! `docs/kernels.md`, made of what ran.

use std::fmt::Write as _;
use std::time::Duration;

use crate::guest::SUBTESTS;
use crate::needs::Need;
use crate::outcome::{Outcome, Verdict};
use crate::suite::{Report, Run};

/// One line for each sub-test, one column for each kernel, and how long they took.
#[must_use]
pub fn overview(report: &Report) -> String {
    let runs: Vec<&Run> = report.runs.iter().collect();
    let mut text = verdicts(&runs, |run| run.kernel.clone());
    let mut time = |what: &str, of: &dyn Fn(&Run) -> Option<Duration>| {
        let _ = write!(text, "| {what} |");
        for run in &runs {
            let _ = match of(run) {
                Some(time) => write!(text, " {:.1} s |", time.as_secs_f64()),
                None => write!(text, " |"),
            };
        }
        text.push('\n');
    };
    time("until the first sub-test", &|run| run.boot);
    time("in all", &|run| Some(run.total));
    text
}

fn verdicts(runs: &[&Run], name: impl Fn(&Run) -> String) -> String {
    let mut text = String::from("| Sub-test |");
    for run in runs {
        let _ = write!(text, " {} |", name(run));
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(runs.len()));
    for subtest in SUBTESTS {
        let _ = write!(text, "| `{}`: {} |", subtest.name, subtest.what);
        for run in runs {
            let outcome = run.outcomes.iter().find(|outcome| outcome.name == subtest.name);
            let word = match outcome.map(|outcome| outcome.verdict) {
                Some(Verdict::Pass) => "passed",
                Some(Verdict::Fail) => "**FAILED**",
                Some(Verdict::Skip) | None => "did not run",
            };
            let _ = write!(text, " {word} |");
        }
        text.push('\n');
    }
    text
}

/// With which capabilities commands worked; what is the same on all kernels has one line.
fn capabilities(runs: &[&Run]) -> String {
    let mut rows: Vec<(&Need, Vec<String>)> = Vec::new();
    for run in runs {
        for need in &run.needs {
            match rows.iter_mut().find(|(other, _)| *other == need) {
                Some((_, kernels)) => kernels.push(series(run)),
                None => rows.push((need, vec![series(run)])),
            }
        }
    }
    let mut text =
        String::from("| Command | User | Capabilities | Result | Kernels |\n|---|---|---|---|---|\n");
    for (Need { command, user, capabilities, result }, kernels) in rows {
        let kernels = kernels.join(", ");
        let _ = writeln!(text, "| `{command}` | {user} | {capabilities} | {result} | {kernels} |");
    }
    text
}

/// Where the part of the page ends that is the same whenever all is well.
pub const END: &str = "## The run that this page is of\n";

/// What is the same whenever all is well.
#[must_use]
pub fn lasting(report: &Report) -> String {
    let runs: Vec<&Run> = report.runs.iter().filter(|run| run.series.is_some()).collect();
    format!(
        "# Kernels and privileges\n\n\
         Made by `UPDATE_KERNELS=1 scripts/vm-tests` of what ran, and held against each run of it: the same static\n\
         programs on each of Debian's kernels, in machines that are emulated. Kernels before 6.1 are not tested: the\n\
         distribution has none. One of your own is tested by `scripts/vm-tests PATH-OF-VMLINUZ`.\n\n\
         {}\n\
         ## Capabilities\n\n\
         How commands about a Go process went: for its `owner`, for `another user` and for a `root` that has been\n\
         deprived of its rights, each with exactly the capabilities named, none of Yama's restrictions\n\
         (`kernel.yama.ptrace_scope` 0; the sub-tests `yama-...` have the others). Debian's kernels begin with\n\
         `kernel.perf_event_paranoid` 3, at which they deny perf events, and so BPF programs that sample, to all that\n\
         have not CAP_SYS_ADMIN; `pprof-cpu` takes samples by the best of `bpf`, `perf` and `ptrace` that is left.\n\n\
         {}\n",
        verdicts(&runs, |run| format!("Debian's {}", series(run))),
        capabilities(&runs),
    )
}

/// The whole page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut text = lasting(report);
    let _ = write!(text, "{END}\n{}", overview(report));
    for run in &report.runs {
        let host = if run.host { " (this kernel runs by itself, without an emulator)" } else { "" };
        let _ = write!(text, "\n### {}{host}\n\n", run.kernel);
        for Outcome { name, verdict, detail } in &run.outcomes {
            let _ = writeln!(text, "* `{name}` {}: {detail}", verdict.word());
        }
    }
    text
}

fn series(run: &Run) -> String {
    run.series.clone().unwrap_or_else(|| run.kernel.clone())
}
