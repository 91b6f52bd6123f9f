//! Measures what `docs/performance.md` says, and writes it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a front end")]

mod document;
mod listing;
mod run;
mod stacks;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Measures gops-probe against the gops agent and the runtime's own ways, side by side")]
struct Cli {
    /// Few repetitions, and no 100,000 goroutines: to see that it works
    #[arg(long)]
    quick: bool,
    /// Only `list`, `tree` and `process`: prints their part of the document
    #[arg(long, conflicts_with_all = ["output", "big"])]
    listing: bool,
    /// Where to write the document
    #[arg(long, default_value = "docs/performance.md")]
    output: PathBuf,
    /// A running Go program with a large executable, to measure the time to the first output
    #[arg(long, value_name = "PID")]
    big: Option<u32>,
}

fn main() -> ExitCode {
    match measure(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(cli: &Cli) -> Result<(), Box<dyn std::error::Error>> {
    // Builds gops-probe where that has to be done.
    fixtures::binary()?;
    let pairs = if cli.quick { 5 } else { 30 };
    if cli.listing {
        // They are short, and their goals near.
        print!("{}", document::listing(&listing::measure(4 * pairs)?));
        return Ok(());
    }
    let load_before = fixtures::machine::load();
    let stacks = stacks::measure(cli.quick)?;
    let memory = if cli.quick { None } else { Some(stacks::peak_memory()?) };
    let listing = listing::measure(pairs)?;
    let first = cli.big.map(run::first_output).transpose()?;
    let text = document::write(&document::Results { load_before, stacks, memory, listing, first });
    std::fs::write(&cli.output, text)?;
    eprintln!("written: {}", cli.output.display());
    Ok(())
}
