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
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// How long each pair samples, in milliseconds
    #[arg(long, default_value_t = 400)]
    window: u64,
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
    let window = Duration::from_millis(cli.window);
    // Before anybody stays on one processor.
    let (machine, before) = (machine::description(), machine::load());
    let mut measured = Vec::new();
    for subject in measure::SUBJECTS {
        eprintln!("{subject:?}");
        measured.push(measure::measure(subject, rounds, window)?);
    }
    let text =
        document::write(&measured, rounds, window.as_secs_f64(), &machine, (&before, &machine::load()));
    std::fs::write(&cli.output, text)?;
    eprintln!("written: {}", cli.output.display());
    Ok(())
}
