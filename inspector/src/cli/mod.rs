//! The command line: what is parsed, dispatched, printed and returned. Nothing below this module prints or exits.

mod agent;
pub mod args;
mod capture;
mod duration;
mod generate;
mod interrupt;
mod list;
mod output;
mod progress;
mod serve;
mod stack;
mod style;
mod version;
mod via;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::Error;
use args::{Cli, Command};
use capture::Capture;
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
        Some(Command::Version(args)) => version::run(args, &cli.common),
        Some(Command::Stack(args)) => stack::run(args, &cli.common),
        Some(Command::Gc(args)) => agent::gc(args, &cli.common),
        Some(Command::Setgc(args)) => agent::set_gc(args, &cli.common),
        Some(Command::Memstats(args)) => agent::mem_stats(args, &cli.common),
        Some(Command::Stats(args)) => agent::stats(args, &cli.common),
        Some(Command::Trace(args)) => capture::run(Capture::Trace, &args.capture, args.open, &cli.common),
        Some(Command::PprofHeap(args)) => capture::run(Capture::Heap, &args.capture, args.open, &cli.common),
        Some(Command::PprofCpu(args)) => capture::run(Capture::Cpu, &args.capture, args.open, &cli.common),
        Some(Command::Binary(args)) => capture::run(Capture::Binary, args, false, &cli.common),
        Some(Command::Serve(args)) => serve::run(args, &cli.common),
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
