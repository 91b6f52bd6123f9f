//! Measures what `docs/performance-memory.md` says, and writes it: what `memstats` and the profiles cost the target,
//! beside what the ways inside of it cost.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a front end")]

mod document;
mod measure;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(
    about = "Measures memstats and profiles against the gops agent and the runtime's own ways, side by side"
)]
struct Cli {
    /// Few repetitions and goroutines: to see that it works
    #[arg(long)]
    quick: bool,
    /// Where to write the document
    #[arg(long, default_value = "docs/performance-memory.md")]
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
    fixtures::binary()?;
    let (goroutines, rounds) = if cli.quick { (10_000, 3) } else { (100_000, 30) };
    let measured = measure::measure(goroutines, rounds)?;
    std::fs::write(&cli.output, document::write(&measured))?;
    eprintln!("written: {}", cli.output.display());
    Ok(())
}
