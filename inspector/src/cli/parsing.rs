//! Parser of the command line, with the shortcuts of gops.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser as _};

use super::args::Cli;
use super::duration::Period;
use super::target::TargetArgument;
use crate::operations::list;
use crate::printable::printable_str;

/// Parses the words of the command line.
///
/// As in gops, a target in place of a command means `process`.
pub(super) fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let arguments = with_joined_wait(arguments);
    let error = match Cli::try_parse_from(&arguments) {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    let (ErrorKind::InvalidSubcommand, Some(ContextValue::String(given))) =
        (error.kind(), error.get(ContextKind::InvalidSubcommand))
    else {
        return Err(error);
    };
    if given.parse::<TargetArgument>().is_err() {
        return Err(name_of_a_process(given).unwrap_or(error));
    }
    // The same text may be the value of an earlier option; then the command is still missing.
    for (at, _) in arguments.iter().enumerate().skip(1).filter(|(_, argument)| *argument == given.as_str()) {
        let mut with_command = arguments.clone();
        with_command.insert(at, "process".into());
        match Cli::try_parse_from(with_command) {
            Err(e) if e.kind() == ErrorKind::InvalidSubcommand => {}
            other => return other,
        }
    }
    Err(error)
}

/// Joins `--wait 1s` into one word. The option's duration may be left out: clap accepts only `--wait=1s`.
///
/// A plain number stays separate: it may be a pid.
fn with_joined_wait(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::with_capacity(arguments.len());
    let mut options_end = false;
    for argument in arguments {
        let is_duration = argument
            .to_str()
            .is_some_and(|text| text.parse::<Period>().is_ok() && text.parse::<TargetArgument>().is_err());
        match joined.last_mut() {
            Some(before) if before == "--wait" && is_duration && !options_end => {
                before.push("=");
                before.push(argument);
            }
            _ => {
                options_end |= argument == "--";
                joined.push(argument);
            }
        }
    }
    joined
}

/// Makes the error for a word that is no command, but part of a running Go process's name.
fn name_of_a_process(given: &str) -> Option<clap::Error> {
    const MOST: usize = 3;
    if given.is_empty() {
        return None;
    }
    let found = list::named(given).ok()?;
    let some: Vec<String> = found
        .processes
        .iter()
        .take(MOST)
        .map(|process| format!("{} ({})", process.pid, printable_str(&process.name)))
        .collect();
    if some.is_empty() {
        return None;
    }
    let more = if found.processes.len() > MOST { ", and others" } else { "" };
    let message = format!(
        "unrecognized subcommand '{given}'\n\n  tip: to look at the Go process of that name, write name:{given}; there is {}{more}",
        some.join(", ")
    );
    Some(Cli::command().error(ErrorKind::InvalidSubcommand, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Command;

    #[test]
    fn a_target_alone() {
        let parsed = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            match parse(words).map(|cli| cli.command) {
                Ok(Some(Command::Process(args))) => {
                    format!("{:?} {:?}", args.target.target, args.period.map(|p| p.to_string()))
                }
                Ok(other) => panic!("{line}: {other:?}"),
                Err(e) => e.to_string(),
            }
        };
        let same = |line: &str, whole: &str| assert_eq!(parsed(line), parsed(whole), "{line}");
        same("gops-probe 4711", "gops-probe process 4711");
        same("gops-probe 4711 10", "gops-probe pid 4711 10s");
        same("gops-probe --json -o 7 7 1m", "gops-probe proc 7 60");
        same("gops-probe name:x --wait=3s", "gops-probe process name:x");
        same("gops-probe name:x --wait 3s 5", "gops-probe process name:x --wait=3s 5s");
        assert!(
            parsed("gops-probe 4711 soon").contains("is not a duration"),
            "{}",
            parsed("gops-probe 4711 soon")
        );
        assert!(
            parsed("gops-probe lsit").contains("unrecognized subcommand"),
            "{}",
            parsed("gops-probe lsit")
        );
    }
}
