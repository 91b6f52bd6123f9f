//! The document.

use std::fmt::Write as _;

use fixtures::machine;
use fixtures::matrix::NEWEST;
use fixtures::paired::{figures, ratio};

use super::measure::{Measured, QUESTIONS, Way, Window};

const INTRODUCTION: &str = "\
# Performance: memory statistics and profiles

Written by `cargo run --release -p gops-probe-tests --bin bench_profiles` (a release build of everything; as root; on an
idle machine, for other jobs falsify it).

The target is a stripped Go NEWEST program with the agent of gops v0.3.28 inside and many parked goroutines. One more computes
and allocates as fast as it can. In each round every way has a window of 0.4 s or one answer,
whichever is longer, in which it asks again and again, and there is one window in which nobody asks.

* **Stall**: the longest gap between two steps of a clock inside the target (a thread that sleeps 0.2 ms at a time), in
  milliseconds, median / maximum of the windows.
* **Throughput**: work done in the window, as a share of that in the window of the same round in which nobody asked:
  median with its 95 % bootstrap interval. The target's collector wants the other core too, so whoever computes anything on
  the machine takes from it.
* **Control**: the same command asked of another process. What asking the target costs beyond its control is what it does to
  the target.
* **Total**: one answer, in milliseconds, median / maximum; inside the target that is the call alone.

The agent has no goroutine profile; its `stack` is what its users ask instead. *Inside* is what `net/http/pprof` calls for a
request (for `memstats`, `runtime.ReadMemStats`).

";

/// The document as Markdown.
pub(crate) fn write(measured: &Measured) -> String {
    let mut out = INTRODUCTION.replace("NEWEST", NEWEST);
    let machine = machine::description();
    let nothing: Vec<Window> = measured.rounds.iter().map(|round| round.0).collect();
    let _ = writeln!(
        out,
        "The machine: {machine}; load average {} before and {} after. {} goroutines, {} rounds. \
         Stall when nobody asks: {}.\n",
        measured.load.0,
        measured.load.1,
        measured.goroutines,
        measured.rounds.len(),
        pair(&nothing, |w| w.stall),
    );
    let mut goals = String::new();
    for (at, (question, ways)) in QUESTIONS.iter().enumerate() {
        let _ = writeln!(out, "## {question}\n\n| | stall | throughput | total |\n|---|---|---|---|");
        let windows = |way: usize| -> Vec<Window> {
            measured.rounds.iter().filter_map(|(_, of)| Some(*of.get(at)?.get(way)?)).collect()
        };
        for (i, way) in ways.iter().enumerate() {
            let windows = windows(i);
            let shares: Vec<(f64, f64)> =
                windows.iter().zip(&nothing).map(|(w, n)| (w.throughput, n.throughput)).collect();
            let (share, low, high) = ratio(&shares);
            let _ = writeln!(
                out,
                "| {} | {} | {share:.3} ({low:.3} to {high:.3}) | {} |",
                name(*way),
                pair(&windows, |w| w.stall),
                pair(&windows, |w| w.total),
            );
        }
        out.push('\n');
        let ours = windows(0);
        // For profiles no stall beyond that of the control; for memstats none beyond that of ReadMemStats.
        let (against, of) = if *question == "memstats" { (3, "ReadMemStats") } else { (1, "its control") };
        let stalls: Vec<(f64, f64)> =
            ours.iter().zip(windows(against)).map(|(a, b)| (a.stall, b.stall)).collect();
        let (median, low, high) = ratio(&stalls);
        let verdict = if low <= 1.0 { "reached" } else { "**not reached**" };
        let _ = writeln!(
            goals,
            "| {question}: stall at most that of {of} | {median:.2} of it ({low:.2} to {high:.2}) | {verdict} |"
        );
    }
    let _ = write!(out, "## Goals\n\n| goal | measured | |\n|---|---|---|\n{goals}");
    out
}

fn name(way: Way) -> String {
    match way {
        Way::Nothing => "nothing".to_owned(),
        Way::Probe(arguments) => format!("`gops-probe {}`", arguments.first().unwrap_or(&"")),
        Way::Elsewhere(_) => "the same of another process (control)".to_owned(),
        Way::Agent(_, command) => format!("gops agent, `{command}`"),
        Way::Inside(_) => "inside".to_owned(),
    }
}

fn pair(windows: &[Window], of: impl Fn(&Window) -> f64) -> String {
    let values: Vec<f64> = windows.iter().map(of).collect();
    let figures = figures(&values);
    format!("{:.2} / {:.2}", figures.median, figures.max)
}
