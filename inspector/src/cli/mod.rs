//! The command line: what is parsed, dispatched, printed and returned. Nothing below this module prints or exits.

mod agent;
pub mod args;
mod capture;
mod command;
mod completion;
mod confinement;
mod deadline;
mod destination;
pub mod duration;
mod enable;
mod generate;
mod guard;
mod heap;
mod interrupt;
mod knobs;
mod list;
mod man;
mod memstats;
mod notices;
mod opening;
mod output;
mod panicking;
mod parsing;
mod pattern;
mod place;
mod process;
mod profile;
mod progress;
pub mod runtimes;
mod serve;
mod sink;
mod stack;
mod stats;
pub mod target;
mod top;
mod transport;
mod tree;
mod turn;
mod version;
mod via;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::{Error, stop};
use args::Common;
pub use generate::commands_table;
use notices::Notice;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if completion::answer(&arguments).unwrap_or_else(|e| e.exit()) {
        return ExitCode::SUCCESS;
    }
    #[cfg(debug_assertions)]
    withhold_tables();
    let cli = parsing::parse(arguments).unwrap_or_else(|e| e.exit());
    start_logging(cli.common.verbose);
    let command = cli.asked();
    confinement::enter(command.work());
    if command.stops() {
        stop::witness::start();
    }
    // Its thread gives up what the first one has given up.
    deadline::watch(command.patience(), &cli.common);
    match command.run(&cli.common) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough of it.
        Err(e) if e.is_closed_pipe() => ExitCode::SUCCESS,
        Err(e) => {
            report(&e, command.unpaused(), &cli.common);
            ExitCode::from(e.kind().exit_code())
        }
    }
}

/// For tests of what can be said of a release that has no tables yet: `GOPS_PROBE_WITHOUT_TABLES=26,27` makes those of
/// Go 1.26 and 1.27 as good as not there. What is published does not heed it.
#[cfg(debug_assertions)]
fn withhold_tables() {
    let minors = std::env::var("GOPS_PROBE_WITHOUT_TABLES").unwrap_or_default();
    let minors: Vec<u32> = minors.split(',').filter_map(|minor| minor.parse().ok()).collect();
    symbols::layout::withhold(&minors);
}

/// Says on standard error what failed, and what to do about it.
fn report(error: &Error, unpaused: Option<&str>, common: &Common) {
    Notice::Error.tell(common, error);
    if let Error::Unattached { known, unknown, .. } = error
        && common.verbose > 0
    {
        known.iter().for_each(|known| Notice::Known.tell(common, known));
        unknown.iter().for_each(|unknown| Notice::Unknown.tell(common, unknown));
        return;
    }
    if let Some(hint) = error.hint_for(unpaused) {
        Notice::Hint.tell(common, hint);
    }
}

fn start_logging(verbose: u8) {
    use tracing_subscriber::filter::LevelFilter;
    let level = match verbose {
        // With one, the answer says more; the log begins with the second.
        0 | 1 => LevelFilter::WARN,
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
