//! Runs the sub-tests on the kernel that it is on: as its first process, or as a program on any machine.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use caps::Capability;
use clap::{Parser, Subcommand};
use vm_tests::guest::{self, Failure, Machine, identity, init};

#[derive(Debug, Parser)]
#[command(about = "Runs the sub-tests of gops-probe on the kernel that it is on")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs what does not change this machine, with the programs in a folder.
    Host { folder: PathBuf },
    /// Becomes a user with exactly these capabilities, and then another program.
    As {
        uid: u32,
        #[arg(long, value_delimiter = ',')]
        capabilities: Vec<String>,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return as_first_process();
    }
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<(), Failure> {
    match task {
        Task::Host { folder } => {
            guest::run_all(&Machine::new(&folder, false), &mut io::stdout().lock())?;
            Ok(())
        }
        Task::As { uid, capabilities, command } => {
            let names = capabilities.iter().filter(|name| !name.is_empty());
            let capabilities = names.map(|name| name.parse::<Capability>()).collect::<Result<Vec<_>, _>>()?;
            let (program, arguments) = command.split_first().ok_or("no command")?;
            let mut command = Command::new(program);
            command.args(arguments);
            Err(identity::become_program(uid, &capabilities, command))
        }
    }
}

/// A machine whose first process ends panics, which is noticed outside.
fn as_first_process() -> ExitCode {
    let done = init::set_up()
        .and_then(|()| Ok(guest::run_all(&Machine::new(Path::new("/"), true), &mut io::stdout().lock())?))
        .and_then(|()| init::power_off());
    if let Err(error) = done {
        let _ = writeln!(io::stdout(), "the runner failed: {error}");
    }
    ExitCode::FAILURE
}
