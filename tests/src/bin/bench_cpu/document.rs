//! The document.

use std::fmt::Write as _;

use fixtures::matrix::NEWEST;
use fixtures::paired::ratio;

use super::measure::{COUNTED, Counted, Measured, RATES, Subject, WAYS, Way};

const INTRODUCTION: &str = "\
# Performance: CPU profiles

Written by `cargo run --release -p gops-probe-tests --bin bench_cpu` (a release build of everything; as root; on an idle
machine, for other jobs falsify it).

What is measured is how many operations a stripped Go NEWEST program does in a second *of its own CPU time*, while it is sampled and while it
is not. A pair is half a window, a window that is sampled, and half a window again, so that what drifts is the same on both sides; pairs of all
ways are interleaved. Target and sampler have a processor each. The interrupts of sampling come out of the CPU time of the program that
they interrupt, so this is what sampling takes from it; samples are read meanwhile.

Of the slow-down by BPF a part is the timer's, whatever its program does: in a virtual machine each interrupt leaves to the host and comes
back. The row of a timer alone (a perf event with nothing attached) tells it. As the difference that 99 samples in a second make is small
beside what other guests of the host do to such a machine, it is also told from the row of 999: a tenth of that, and the time that each run
takes longer at 99, by the kernel's own count.

";

/// The document as Markdown.
pub(crate) fn write(
    measured: &[Measured],
    rounds: usize,
    window: f64,
    machine: &str,
    load: (&str, &str),
) -> String {
    let mut out = INTRODUCTION.replace("NEWEST", NEWEST);
    let _ = writeln!(
        out,
        "The machine: {machine}, virtual; load average {} before and {} after. {rounds} pairs of \
         {window} s for each row.\n",
        load.0, load.1
    );
    for of in measured {
        let title = match of.subject {
            Subject::Arithmetic => "A loop of arithmetic",
            Subject::Json => "A loop that writes and reads JSON",
            Subject::Server => "An HTTP server",
        };
        let _ = writeln!(out, "## {title}\n\n| | slow-down, median | 95 % interval | |\n|---|---|---|---|");
        for (way, pairs) in WAYS.iter().zip(&of.pairs) {
            let cost = Cost::of(pairs);
            let _ = writeln!(out, "| {} | {} | {} |", name(*way), cost.cells(), verdict(*way, cost));
        }
        if let Some(cost) = less_often(of) {
            let _ = writeln!(out, "| 99 Hz, from the row of 999 Hz | {} | {} |", cost.cells(), goal(cost));
        }
        if let Some(saved) = against_inside(of) {
            let (cells, verdict) = (saved.cells(), lower(saved));
            let _ = writeln!(out, "| `--rate 99` less than `runtime/pprof` by | {cells} | {verdict} |");
        }
        out.push_str(
            "\nWhat the kernel counts of our program (`bpf_stats_enabled`), which no other job disturbs:\n\n",
        );
        out.push_str("| samples/s | runs | each, µs | share of the target's CPU time | reading the samples, of a CPU |\n|---|---|---|---|---|\n");
        for (rate, counted) in RATES.iter().zip(&of.counted) {
            let Counted { runs, time, target, ours } = counted;
            let each = counted.each() * 1e6;
            let share = 100.0 * time.as_secs_f64() / target.as_secs_f64().max(1e-9);
            let reading = 100.0 * ours.as_secs_f64() / COUNTED.as_secs_f64();
            let _ = writeln!(out, "| {rate} | {runs} | {each:.2} | {share:.3} % | {reading:.2} % |");
        }
        out.push('\n');
    }
    out
}

fn name(way: Way) -> String {
    match way {
        Way::Bpf(rate) => format!("`pprof-cpu --rate {rate}`"),
        Way::Timer(rate) => format!("a timer, {rate} Hz, and nothing else"),
        Way::Inside => "`runtime/pprof`, inside, 100 Hz".to_owned(),
    }
}

/// A slow-down in percent, with its 95 % interval.
#[derive(Debug, Clone, Copy)]
struct Cost {
    middle: f64,
    least: f64,
    most: f64,
}

impl Cost {
    fn of(pairs: &[(f64, f64)]) -> Self {
        let (middle, low, high) = ratio(pairs);
        let percent = |ratio: f64| 100.0 * (1.0 - ratio);
        Self { middle: percent(middle), least: percent(high), most: percent(low) }
    }

    fn map(self, to: impl Fn(f64) -> f64) -> Self {
        Self { middle: to(self.middle), least: to(self.least), most: to(self.most) }
    }

    fn cells(self) -> String {
        format!("{:.2} % | {:.2} to {:.2} %", self.middle, self.least, self.most)
    }
}

fn pairs(of: &Measured, way: Way) -> Option<&[(f64, f64)]> {
    let at = WAYS.iter().position(|&other| other == way)?;
    of.pairs.get(at).map(Vec::as_slice)
}

/// What 99 samples in a second cost by what 999 cost: a tenth, and what each takes longer when it finds colder caches, as
/// the kernel counts it.
fn less_often(of: &Measured) -> Option<Cost> {
    let [rare, often] = of.counted.as_slice() else { return None };
    let colder = 100.0 * 99.0 * (rare.each() - often.each()).max(0.0);
    Some(Cost::of(pairs(of, Way::Bpf(999))?).map(|cost| cost * 99.0 / 999.0 + colder))
}

/// The target's speed while we sample against its speed while it samples itself, each against the windows around it.
fn against_inside(of: &Measured) -> Option<Cost> {
    let speed = |pair: &(f64, f64)| pair.0 / pair.1;
    let both: Vec<_> =
        pairs(of, Way::Inside)?.iter().map(speed).zip(pairs(of, Way::Bpf(99))?.iter().map(speed)).collect();
    Some(Cost::of(&both))
}

fn verdict(way: Way, cost: Cost) -> &'static str {
    match way {
        Way::Bpf(99) => goal(cost),
        _ if cost.least <= 0.0 && cost.most >= 0.0 => "not to be told from nothing",
        _ => "",
    }
}

/// Whether the goal of half a percent at 99 samples a second is met.
fn goal(cost: Cost) -> &'static str {
    match cost {
        Cost { most, .. } if most <= 0.5 => "the goal of 0.5 % is met",
        Cost { least, .. } if least > 0.5 => "the goal of 0.5 % is MISSED",
        _ => "inconclusive: the interval holds the goal of 0.5 %",
    }
}

/// Whether it is below what the in-process profiler costs.
fn lower(saved: Cost) -> &'static str {
    match saved {
        Cost { least, .. } if least > 0.0 => "the goal, below the in-process profiler's, is met",
        Cost { most, .. } if most < 0.0 => "the goal, below the in-process profiler's, is MISSED",
        _ => "inconclusive: the interval holds zero",
    }
}
