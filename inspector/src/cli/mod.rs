//! The command line: what is parsed, dispatched, printed and returned. Nothing below this module prints or exits.

pub mod args;
pub mod duration;
mod generate;
mod list;
mod output;
mod process;
mod stack;
mod style;
mod tree;
mod version;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::Error;
use args::{Cli, Command};
pub use generate::commands_table;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.common.verbose);
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough of it.
        Err(e) if e.is_closed_pipe() => ExitCode::SUCCESS,
        Err(e) => {
            report(&e, &cli);
            ExitCode::from(e.kind().exit_code())
        }
    }
}

fn run(cli: &Cli) -> Result<(), Error> {
    match &cli.command {
        None | Some(Command::List) => list::run(&cli.common),
        Some(Command::Tree) => tree::run(&cli.common),
        Some(Command::Process(args)) => process::run(args, &cli.common),
        Some(Command::Version(args)) => version::run(args, &cli.common),
        Some(Command::Stack(args)) => stack::run(args, &cli.common),
        Some(Command::Generate(args)) => generate::run(args, &cli.common),
    }
}

/// Says on standard error what failed, and what to do about it.
fn report(error: &Error, cli: &Cli) {
    use crate::report::printable::printable_str;
    let style = style::Style::for_stderr(cli.common.color);
    let mut err = std::io::stderr().lock();
    // Names in messages come from the target. Nothing can be done where this fails too.
    let _ = writeln!(err, "{} {}", style.error("error:"), printable_str(&error.to_string()));
    if let Some(hint) = error.hint() {
        let _ = writeln!(err, "{} {}", style.hint("hint:"), printable_str(&hint));
    }
}

fn start_logging(verbose: u8) {
    use tracing_subscriber::filter::LevelFilter;
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let logger = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .finish();
    // Fails only where a logger is set already, which then is the one to use.
    let _ = tracing::subscriber::set_global_default(logger);
}
