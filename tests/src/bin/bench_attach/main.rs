//! Measures how long it takes to attach to a Go process, in this process: what `docs/performance.md` says of it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a front end")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use fixtures::paired::figures;
use inspector::process::{Pid, Process};
use inspector::runtime::memstats::Sources;
use inspector::runtime::{known, open};
use rustix::time::{ClockId, clock_gettime};

#[derive(Debug, Parser)]
#[command(about = "Measures the time of attaching to running Go programs, new ones and known ones in turn")]
struct Cli {
    /// Rounds, each with every way once
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// The running Go programs
    #[arg(value_name = "PID", required = true)]
    pids: Vec<Pid>,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match measure(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What our thread has taken of a processor, in microseconds.
fn used() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Time that passed, and what of it we took of a processor: on a busy machine the second one says more.
fn attach(pid: Pid, with_sources: bool) -> Outcome<(f64, f64)> {
    let (begun, before) = (Instant::now(), used());
    let process = Process::pin(pid)?;
    let (view, cost) = open::open(&process)?;
    if with_sources {
        black_box(Sources::find(&view)?);
    }
    black_box((view, cost));
    Ok((begun.elapsed().as_secs_f64() * 1e6, used() - before))
}

fn measure(cli: &Cli) -> Outcome<()> {
    println!(
        "| process | way | µs, shortest / median | of a processor, shortest / median |\n|---|---|---|---|"
    );
    for &pid in &cli.pids {
        let mut times: [Vec<(f64, f64)>; 4] = Default::default();
        for _ in 0..cli.rounds {
            for (way, times) in times.iter_mut().enumerate() {
                let (known, with_sources) = (way % 2 == 1, way >= 2);
                if !known {
                    known::forget();
                }
                times.push(attach(pid, with_sources)?);
            }
        }
        let names =
            ["new", "known", "new, with the places of memstats", "known, with the places of memstats"];
        for (name, times) in names.iter().zip(&times) {
            let (wall, cpu): (Vec<f64>, Vec<f64>) = times.iter().copied().unzip();
            let shown = |values: &[f64]| {
                let shortest = values.iter().copied().fold(f64::INFINITY, f64::min);
                format!("{shortest:.0} / {:.0}", figures(values).median)
            };
            println!("| {pid} | {name} | {} | {} |", shown(&wall), shown(&cpu));
        }
    }
    Ok(())
}
