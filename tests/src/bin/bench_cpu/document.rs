//! The document.

use std::fmt::Write as _;

use fixtures::machine;
use fixtures::paired::ratio;

use super::measure::{Counted, Measured, RATES, Subject, WAYS, Way};

const INTRODUCTION: &str = "\
# Performance: CPU profiles

Written by `cargo run --release -p gops-probe-tests --bin bench_cpu` (a release build of everything; as root; on an idle
machine, for other jobs falsify it).

What is measured is how many operations a stripped Go 1.27.4 program does in a second *of its own CPU time*, while it is sampled and while it
is not. Each pair are two windows one after the other, and which comes first alternates; pairs of all ways are interleaved. The interrupts of
sampling come out of the CPU time of the program that they interrupt, so this is what sampling takes from it; samples are read meanwhile.

";

/// The document as Markdown.
pub(crate) fn write(measured: &[Measured], rounds: usize, window: f64, load: (String, String)) -> String {
    let mut out = String::from(INTRODUCTION);
    let machine = machine::description();
    let _ = writeln!(
        out,
        "The machine: {machine}, virtual; load average {} before and {} after. {rounds} pairs of \
         {window} s for each row.\n",
        load.0, load.1
    );
    for of in measured {
        let title = match of.subject {
            Subject::Loop => "A loop that writes and reads JSON",
            Subject::Server => "An HTTP server",
        };
        let _ = writeln!(out, "## {title}\n\n| | slow-down, median | 95 % interval | |\n|---|---|---|---|");
        for (way, pairs) in WAYS.iter().zip(&of.pairs) {
            let (middle, low, high) = ratio(pairs);
            let cost = |ratio: f64| 100.0 * (1.0 - ratio);
            let (least, most) = (cost(high), cost(low));
            let _ = writeln!(
                out,
                "| {} | {:.2} % | {least:.2} to {most:.2} % | {} |",
                name(*way),
                cost(middle),
                verdict(*way, least, most)
            );
        }
        out.push_str(
            "\nWhat the kernel counts of our program (`bpf_stats_enabled`), which no other job disturbs:\n\n",
        );
        out.push_str("| samples/s | runs | each, µs | share of the target's CPU time | reading the samples, of a CPU |\n|---|---|---|---|---|\n");
        for (rate, counted) in RATES.iter().zip(&of.counted) {
            let Counted { runs, time, target, ours } = counted;
            let each = time.as_secs_f64() * 1e6 / (*runs).max(1) as f64;
            let share = 100.0 * time.as_secs_f64() / target.as_secs_f64().max(1e-9);
            let reading = 100.0 * ours.as_secs_f64() / (5.0 * window);
            let _ = writeln!(out, "| {rate} | {runs} | {each:.2} | {share:.3} % | {reading:.2} % |");
        }
        out.push('\n');
    }
    out
}

fn name(way: Way) -> String {
    match way {
        Way::Bpf(rate) => format!("`pprof-cpu --rate {rate}`"),
        Way::Inside => "`runtime/pprof`, inside, 100 Hz".to_owned(),
    }
}

/// Whether the goal of half a percent at 99 samples a second is met.
fn verdict(way: Way, least: f64, most: f64) -> &'static str {
    match way {
        Way::Bpf(99) if most <= 0.5 => "the goal of 0.5 % is met",
        Way::Bpf(99) if least > 0.5 => "the goal of 0.5 % is MISSED",
        Way::Bpf(99) => "inconclusive: the interval holds the goal of 0.5 %",
        _ if least <= 0.0 && most >= 0.0 => "not to be told from nothing",
        _ => "",
    }
}
