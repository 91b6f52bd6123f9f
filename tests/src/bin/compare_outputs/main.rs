//! Compares what two `gops-probe` programs answer about the same processes: standard output, standard error, exit code and the
//! files that they write, of every command. `scripts/compare-outputs` runs it, in a PID namespace of its own.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a front end")]

mod cases;
mod forms;
mod run;
mod targets;

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use cases::Case;
use clap::Parser;
use fixtures::copy_program;
use run::Program;

/// What moves in a live process may move between the two programs: so often is a case tried until they agree.
const TRIES: usize = 5;

#[derive(Debug, Parser)]
#[command(about = "Compares the outputs of two gops-probe programs about the same live processes")]
struct Cli {
    /// The program of the commit before
    old: PathBuf,
    /// The program of this commit; without it, what cargo builds
    new: Option<PathBuf>,
    /// Only cases whose command line has this in it
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

fn main() -> ExitCode {
    match compare(&Cli::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs every case, prints the differences and returns how many cases differ.
fn compare(cli: &Cli) -> Result<usize, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    // Users without rights run the programs too.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let new = match &cli.new {
        Some(new) => new.as_path(),
        None => fixtures::binary()?,
    };
    // Both have the same name: it stands in messages about usage.
    let old = program(folder.path(), "old", &cli.old)?;
    let new = program(folder.path(), "new", new)?;

    let mut targets = targets::start(folder.path())?;
    let all = cases::all(&targets.pids());
    let wanted = |case: &&Case| cli.only.as_ref().is_none_or(|only| case.line().contains(only.as_str()));
    let cases: Vec<&Case> = all.iter().filter(wanted).collect();
    let mut different = Vec::new();
    let mut repeated = 0;
    for case in &cases {
        let (difference, tries) = first_agreement(case, &old, &new, folder.path())?;
        repeated += usize::from(tries > 1);
        if let Some(difference) = difference {
            println!("== {}\n{difference}", case.line());
            different.push(case.line());
        }
    }
    targets.assert_untouched()?;
    println!("{} cases, {repeated} of them tried more than once, {} differ", cases.len(), different.len());
    Ok(different.len())
}

fn program(folder: &Path, name: &str, from: &Path) -> Result<Program, Box<dyn Error>> {
    let folder = folder.join(name);
    fs::create_dir(&folder)?;
    let path = folder.join("gops-probe");
    copy_program(from, &path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(Program { path })
}

/// The difference of a case, if both programs never agreed, and how often it was tried.
fn first_agreement(
    case: &Case,
    old: &Program,
    new: &Program,
    folder: &Path,
) -> Result<(Option<String>, usize), Box<dyn Error>> {
    let mut difference = None;
    for number in 1..=TRIES {
        let outcomes = [old.run(case, folder)?, new.run(case, folder)?];
        let [before, after] = outcomes.map(|outcome| forms::comparable(&outcome, case.form));
        if before == after {
            return Ok((None, number));
        }
        difference = Some(diff(&before, &after, folder)?);
    }
    Ok((difference, TRIES))
}

/// What `diff` says about two texts.
fn diff(before: &str, after: &str, folder: &Path) -> Result<String, Box<dyn Error>> {
    let (old, new) = (folder.join("old.txt"), folder.join("new.txt"));
    fs::write(&old, before)?;
    fs::write(&new, after)?;
    let output =
        Command::new("diff").args(["-U1", "--label", "old", "--label", "new"]).args([old, new]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
