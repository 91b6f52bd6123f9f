//! Command line: parsing, dispatch, printing and exit codes. No module outside of this one prints or exits.

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
use command::Run;
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
    cli.with_command(|command| run(command, &cli.common))
}

fn run(command: &dyn Run, common: &Common) -> ExitCode {
    confinement::enter(command.work());
    if command.stops() {
        stop::witness::start();
    }
    // The watching thread gives up the same rights as the first thread.
    deadline::watch(command.patience(), common);
    match command.run(common) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has seen enough of it.
        Err(e) if e.is_closed_pipe() => ExitCode::SUCCESS,
        Err(e) => {
            report(&e, command.unpaused(), common);
            ExitCode::from(e.kind().exit_code())
        }
    }
}

/// Hides the tables of releases, to test releases without tables: `GOPS_PROBE_WITHOUT_TABLES=26,27` hides
/// those of Go 1.26 and 1.27. Release builds ignore the variable.
#[cfg(debug_assertions)]
fn withhold_tables() {
    let minors = std::env::var("GOPS_PROBE_WITHOUT_TABLES").unwrap_or_default();
    let minors: Vec<u32> = minors.split(',').filter_map(|minor| minor.parse().ok()).collect();
    symbols::layout::withhold(&minors);
}

/// Reports an error on standard error, with advice.
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
        // With one `-v` the answer has more; the log begins with the second.
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
    // Fails only if a logger is set already. That logger is then used.
    let _ = tracing::subscriber::set_global_default(logger);
}
