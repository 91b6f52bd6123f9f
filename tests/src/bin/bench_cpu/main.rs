//! Measures what `docs/performance-cpu.md` says, and writes it: what CPU profiles take from the program that is sampled,
//! beside what its own profiler takes.

#![allow(clippy::print_stderr, reason = "a front end")]

mod document;
mod measure;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use fixtures::machine;

#[derive(Debug, Parser)]
#[command(about = "Measures CPU profiles by BPF against runtime/pprof, in interleaved pairs")]
struct Cli {
    /// Few pairs: to see that it works
    #[arg(long)]
    quick: bool,
    /// Pairs of each kind
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// Where to write the document
    #[arg(long, default_value = "docs/performance-cpu.md")]
    output: PathBuf,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn std::error::Error>> {
    let rounds = if cli.quick { 3 } else { cli.rounds };
    let window = Duration::from_millis(1000);
    let before = machine::load();
    let mut measured = Vec::new();
    for subject in measure::SUBJECTS {
        eprintln!("{subject:?}");
        measured.push(measure::measure(subject, rounds, window)?);
    }
    let text = document::write(&measured, rounds, window.as_secs_f64(), (before, machine::load()));
    std::fs::write(&cli.output, text)?;
    eprintln!("written: {}", cli.output.display());
    Ok(())
}
