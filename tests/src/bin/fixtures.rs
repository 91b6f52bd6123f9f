//! Builds the fixtures.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a front end")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use fixtures::build::{Outcome, build};
use fixtures::matrix::{Selection, cells};

#[derive(Debug, Parser)]
#[command(about = "Fixtures of the integration tests")]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build what is missing or outdated
    Build {
        #[command(flatten)]
        which: Which,
        /// Go commands at a time
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Write the table of results from what the matrix test recorded
    Table {
        /// Where to write it
        #[arg(long, default_value = "docs/matrix.md")]
        output: PathBuf,
    },
    /// Write the table of results from what the test of real programs recorded
    TableReal {
        /// Where to write it
        #[arg(long, default_value = "docs/real-programs.md")]
        output: PathBuf,
    },
    /// Name the cells and the paths of their executables
    List {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct Which {
    /// Three toolchains, for daily work
    #[arg(long)]
    quick: bool,
    /// All toolchains with all variants
    #[arg(long)]
    full: bool,
}

impl Which {
    fn selection(&self) -> Selection {
        match (self.quick, self.full) {
            (true, _) => Selection::Quick,
            (_, true) => Selection::Full,
            _ => Selection::Spread,
        }
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fixtures: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: &Action) -> fixtures::Result<()> {
    match action {
        Action::Build { which, jobs } => {
            let begin = Instant::now();
            let cells = cells(which.selection());
            build(&cells, *jobs, &|cell, outcome| {
                if let Outcome::Built(time) = outcome {
                    println!("{cell} {:.1} s", time.as_secs_f64());
                }
            })?;
            println!("{} fixtures in place after {:.1} s", cells.len(), begin.elapsed().as_secs_f64());
        }
        Action::Table { output } => {
            let records = fixtures::record::read()?;
            write(output, &fixtures::record::table(&records), records.len())?;
        }
        Action::TableReal { output } => {
            let records = fixtures::real::read()?;
            write(output, &fixtures::real::table(&records), records.len())?;
        }
        Action::List { which } => {
            for cell in cells(which.selection()) {
                println!("{cell} {}", cell.path().display());
            }
        }
    }
    Ok(())
}

fn write(output: &Path, page: &str, results: usize) -> fixtures::Result<()> {
    std::fs::write(output, page)
        .map_err(|source| fixtures::Error::File { path: output.to_owned(), source })?;
    println!("{results} results in {}", output.display());
    Ok(())
}
