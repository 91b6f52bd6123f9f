//! The document.

use std::fmt::Write as _;

use super::listing::Pairs;
use super::run::FirstOutput;
use super::stacks::{Group, Row, Way};
use fixtures::machine;
use fixtures::matrix::NEWEST;
use fixtures::paired::{Figures, figures, ratio};

/// All that was measured.
pub(crate) struct Results {
    pub(crate) load_before: String,
    pub(crate) stacks: Vec<Group>,
    pub(crate) memory: Option<i64>,
    pub(crate) listing: Vec<Pairs>,
    pub(crate) first: Option<FirstOutput>,
}

const INTRODUCTION: &str = "\
# Performance

Written by `cargo run --release -p gops-probe-tests --bin bench` (a release build of everything; as root; on an idle
machine, for other jobs falsify it). `--big PID` names a running Go program with a large executable for the last table, and
`--listing` prints the part on `list`, `tree` and `process` alone.

In each round every way takes its turn on the same process: a stripped Go NEWEST program with the agent of gops v0.3.28
inside and N goroutines ten frames deep. *Busy* means 20,000 wake-ups and 300 MB of allocations per second. Times are in
milliseconds, as median / maximum.

* **Stopped**: our own clock, from the first request to stop to the last thread let go; with `--no-pause` the longest that
  a single thread was held.
* **Stall**: the longest gap between two steps of a clock inside the target (a thread that sleeps 0.2 ms at a time). The
  first line, when nobody looks, is what the machine itself contributes.
  The *control* dumps another process of the same size without a pause: it takes the same time on the same cores, and
  can stall this target only by that. What `--no-pause` stalls beyond its control is what it does to the target.
* **Total**: until the program that asks has the whole answer. For the two ways inside the target, the call alone.

Known limits of this measurement, all in our favour or against nobody: our own output goes to the null device while the
agent's crosses a socket; at 100,000 goroutines the agent's answer is cut at 64 MiB (ours is not) and its runs are few;
the baseline's window is 0.3 s whatever the dump took; the 30 Go processes of `list` and `tree` are one executable;
verdicts with an interval are medians of ratios of pairs with 95 % bootstrap intervals, the others have none.

";

/// What stands in the way of the goals that are not reached, as found by profiles of single runs.
const REASONS: &str = "
## What the rest is spent on

* **Total with 1,000 goroutines.** Starting the program takes 2 ms, reading the executable's tables and applying the recipes
  about 6 ms, however few goroutines there are; the agent has all that in memory.
* **Pause of a busy target.** All gs are compared in the stop: 4.8 MB for 10,000, by two readers, about 1.1 ms with caches that
  the target's allocations have emptied; stopping the threads takes 0.1 ms, letting them go as much, and the stacks
  of some hundred goroutines that moved since the last look the rest. Goroutines need not be compared in the stop where
  hardly anything moves: then the pause does not grow with them.
* **`--no-pause` beyond 1 ms.** A stopped thread waits for its core where the target is busy on all of them: the maximum is one
  such wait, the median a tenth of a millisecond.
* **Thousands of threads.** Of stopping 2,000 threads in `read(2)`, 12 µs each are the kernel's and the threads' own work (seizing 1.2,
  interrupting 1.6, waiting and stopping 6, letting go 4), 25 ms in all. Without the higher priority, on a machine with sixteen other tasks
  for each processor, they were stopped for 1,100 to 1,360 ms where 1 ms was allowed, and 1,746 of 2,102 goroutines were unconfirmed. With it,
  under the same load, a stop of all takes 68 to 92 ms (23 to 51 until all had stopped), and `--max-pause 1ms` stops them one by one: the longest
  stood still for 5 to 20 ms (17 ms of 9,000), and none is unconfirmed. To repeat it: `cargo test -p gops-probe-tests --test many_threads --
  --nocapture`.
* **`list`, `tree`, `process`.** Starting and ending the program is 1.0 of the 2.0 ms of `process`, for a process with 16 connections;
  a static program that does nothing takes 0.5 ms. The program that `scripts/release` makes takes two thirds of the time
  of that by `cargo build --release` (0.239, 0.277 and 0.261 of gops' time for `process`, `tree` and `list`): nobody looks for libraries
  and their symbols, the 19,000 addresses that a program has in its data when it can be loaded anywhere are packed, and its code is on
  fewer pages. To write these addresses is still 7 % of the time of `tree`, and the C library's questions to the processor, each of
  which a virtual machine leaves to its host, as much. Linked to one place, as Go links by default, it would take 0.3 ms less and would
  tell an attacker where its code is. The kernel's walk through its table of connections is 0.2 ms by sock_diag for both
  families; gops has it walk for `/proc/PID/net/tcp` and for `tcp6`, 3.4 ms each. Of `list` and `tree` the rest is system calls: one for
  a process with one thread, eight for a Go process, and the reading of `/proc` itself. A second thread gains little more than it costs here.
* **The same program is faster when it has just been copied.** Then the page cache holds it in large pieces, and the kernel finds many
  pages at once: `tree` took 0.18 of gops' time and `process` 0.155. Read from the disk, or unpacked by `tar`, it is held in single
  pages: 0.20 to 0.215, and 0.165 to 0.205. The table is of a program that was read from the disk.
* **These three are of a later run**, of the program of `scripts/release`: `GOPS_PROBE_BIN=target/release-package/…/gops-probe`
  before `bench --listing`. In the run that the rest of this page is of, gops took 70 ms for `list`, 68 ms for `tree` and 20 ms for
  `process`, and `tree` reached its goal with 0.121. Both machines have two cores and the same kernel; what else differs between them is
  not known. The faster gops runs there, the more of our time against it is the start of a program.
* The machine counts: `runtime.Stack(all)` of 10,000 goroutines took 73 ms in another run on a machine of this kind.
";

/// The document as Markdown.
pub(crate) fn write(results: &Results) -> String {
    let mut out = INTRODUCTION.replace("NEWEST", NEWEST);
    let machine = machine::description();
    let _ = writeln!(
        out,
        "The machine: {machine}; load average {} before and {} after.\n",
        results.load_before,
        machine::load()
    );
    for group in &results.stacks {
        stacks_table(&mut out, group);
    }
    listing_table(&mut out, &results.listing);
    if let Some(first) = results.first {
        let _ = writeln!(
            out,
            "## First output\n\n`stack` of a running program with an executable of {} MB: {} ms to the first byte \
             (10 runs).\n",
            first.executable_mb,
            pair(first.milliseconds)
        );
    }
    if let Some(kib) = results.memory {
        let _ = writeln!(
            out,
            "## Memory\n\n`stack` of 100,000 goroutines with 8 KiB of live stack each: {} MiB at its peak.\n",
            kib >> 10
        );
    }
    goals(&mut out, results);
    out.push_str(REASONS);
    out
}

/// The part on `list`, `tree` and `process`, and the rows of their goals.
pub(crate) fn listing(measured: &[Pairs]) -> String {
    let mut out = String::new();
    listing_table(&mut out, measured);
    listing_goals(measured, &mut |text, figures, reached| goal_row(&mut out, text, &figures, reached));
    out
}

fn pair(f: Figures) -> String {
    format!("{:.2} / {:.2}", f.median, f.max)
}

fn stacks_table(out: &mut String, group: &Group) {
    let state = if group.busy { "busy" } else { "parked" };
    let _ = writeln!(out, "## {} goroutines, {state}\n", group.goroutines);
    out.push_str("| | stopped | stall | total | runs |\n|---|---|---|---|---|\n");
    for row in &group.rows {
        let stopped = row.stopped.map(pair).unwrap_or_default();
        let total = if row.way == Way::Nothing { String::new() } else { pair(row.total) };
        let _ = writeln!(
            out,
            "| {} | {stopped} | {} | {total} | {} |",
            row.way.name(),
            pair(row.stall),
            row.runs
        );
    }
    out.push('\n');
}

fn listing_table(out: &mut String, measured: &[Pairs]) {
    out.push_str(
        "## `list`, `tree`, `process`\n\nWith 30 Go processes of 110 that were started for it. That of `process` has the \
         agent inside, and a connection.\n\n",
    );
    out.push_str("| | gops-probe | gops | ratio (95 % interval) | pairs |\n|---|---|---|---|---|\n");
    for Pairs { command, times, .. } in measured {
        let (ours, theirs): (Vec<f64>, Vec<f64>) = times.iter().copied().unzip();
        let (median, low, high) = ratio(times);
        let _ = writeln!(
            out,
            "| `{command}` | {} | {} | {median:.3} ({low:.3} to {high:.3}) | {} |",
            pair(figures(&ours)),
            pair(figures(&theirs)),
            times.len(),
        );
    }
    out.push('\n');
}

fn goal_row(out: &mut String, text: &str, measured: &str, reached: bool) {
    let verdict = if reached { "reached" } else { "**not reached**" };
    let _ = writeln!(out, "| {text} | {measured} | {verdict} |");
}

fn listing_goals(measured: &[Pairs], goal: &mut dyn FnMut(&str, String, bool)) {
    for Pairs { command, allowed, times } in measured {
        let (median, low, high) = ratio(times);
        goal(
            &format!("`{command}` in at most 1/{:.0} of gops' time", 1.0 / allowed),
            format!("{median:.3} ({low:.3} to {high:.3})"),
            high <= *allowed,
        );
    }
}

fn goals(out: &mut String, results: &Results) {
    out.push_str("## Goals\n\n| goal | measured | |\n|---|---|---|\n");
    let mut goal = |text: &str, measured: String, reached: bool| goal_row(out, text, &measured, reached);
    for group in &results.stacks {
        let row = |way| group.rows.iter().find(|r| r.way == way);
        let (Some(paused), Some(limited), Some(unpaused), Some(agent)) =
            (row(Way::Paused), row(Way::Limited), row(Way::Unpaused), row(Way::Agent))
        else {
            continue;
        };
        let name = format!("{}{}", group.goroutines, if group.busy { ", busy" } else { "" });
        let stopped = |r: &Row| r.stopped.unwrap_or_default();
        if group.goroutines >= 10_000 {
            let allowed = if group.goroutines >= 100_000 { 10.0 } else { 1.0 };
            let ours = stopped(paused);
            goal(
                &format!("{name}: pause at most {allowed} ms (median)"),
                format!("{} ms", pair(ours)),
                ours.median <= allowed,
            );
            let share = ours.median / agent.stall.median;
            goal(
                &format!("{name}: pause at most 1/100 of the agent's stall"),
                format!("1/{:.0}", 1.0 / share),
                share <= 0.01,
            );
        }
        if group.goroutines >= 100_000 {
            let limited = stopped(limited);
            goal(
                &format!("{name}: `--max-pause 1ms` at most 1 ms (median)"),
                format!("{} ms", pair(limited)),
                limited.median <= 1.0,
            );
        }
        let share = paused.total.median / agent.total.median;
        goal(
            &format!("{name}: total at most 1/10 of the agent's"),
            format!("1/{:.1}", 1.0 / share),
            share <= 0.1,
        );
        let single = stopped(unpaused);
        goal(
            &format!("{name}: `--no-pause` stops no thread longer than 1 ms"),
            format!("{} ms", pair(single)),
            single.max <= 1.0,
        );
        let (median, low, high) = ratio(&group.unpaused_stalls);
        goal(
            &format!("{name}: stall of `--no-pause` not to be told from that of its control"),
            format!("{median:.2} of it ({low:.2} to {high:.2})"),
            low <= 1.0,
        );
    }
    listing_goals(&results.listing, &mut goal);
    if let Some(first) = results.first {
        goal(
            "first output within 150 ms",
            format!("{} ms", pair(first.milliseconds)),
            first.milliseconds.max <= 150.0,
        );
    }
    if let Some(kib) = results.memory {
        goal("at most 200 MiB of memory", format!("{} MiB", kib >> 10), kib >> 10 <= 200);
    }
}
