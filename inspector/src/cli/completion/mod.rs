//! Completions. A shell's script asks this program what can follow: the program can name the running
//! processes.

mod bash;
mod targets;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::CommandFactory as _;
use clap_complete::env::{CompleteEnv, Elvish, EnvCompleter, Fish, Powershell, Shells, Zsh};

use self::bash::Bash;
use super::args::Cli;
pub(super) use targets::targets;

/// Environment variable by which a shell's script asks. Its value names the shell.
const VARIABLE: &str = "GOPS_PROBE_COMPLETE";
const PROGRAM: &str = "gops-probe";
const SHELLS: Shells<'static> = Shells(&[&Bash, &Elvish, &Fish, &Powershell, &Zsh]);

/// Answers the question of a shell's script. Returns false if no script asked.
///
/// # Errors
/// Returns an error if the question cannot be answered: the shell may be unknown, for example.
pub(super) fn answer(arguments: &[OsString]) -> Result<bool, clap::Error> {
    let directory = std::env::current_dir().ok();
    let completer = CompleteEnv::with_factory(|| Cli::command().disable_help_subcommand(true));
    completer
        .var(VARIABLE)
        .bin(PROGRAM)
        .completer(PROGRAM)
        .shells(SHELLS)
        .try_complete(arguments.iter().cloned(), directory.as_deref())
}

/// Writes the script of the shell called `name`.
///
/// # Errors
/// Returns an error if writing to `out` fails, and [`io::ErrorKind::Unsupported`] for an unknown shell.
pub(super) fn write_script(name: &str, out: &mut dyn Write) -> io::Result<()> {
    let shell: &dyn EnvCompleter = SHELLS.completer(name).ok_or(io::ErrorKind::Unsupported)?;
    shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, out)?;
    if name == "zsh" {
        // As a file in `fpath`, the script is the body of the completing function, and the first to complete.
        writeln!(out, "[[ $funcstack[1] != _gops-probe ]] || _clap_dynamic_completer_gops_probe \"$@\"")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_all_shells() {
        for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let mut script = Vec::new();
            write_script(shell, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains(VARIABLE) && script.contains(PROGRAM), "{shell}: {script}");
        }
        assert!(write_script("csh", &mut Vec::new()).is_err());
    }
}
