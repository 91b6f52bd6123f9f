//! Files made from the definition of the command line.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::CommandFactory as _;

use super::args::{Cli, Common, DECLARATIONS, Generate, GenerateArgs};
use super::command::{Patience, Run};
use super::confinement::{LOOKING, Work};
use super::{completion, man, output};
use crate::Error;
use crate::report::schemas::SCHEMAS;

impl Run for GenerateArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        run(self, common)
    }

    fn work(&self) -> Work {
        LOOKING
    }

    fn patience(&self) -> Patience {
        Patience::Unwatched
    }

    fn stops(&self) -> bool {
        false
    }
}

fn run(args: &GenerateArgs, common: &Common) -> Result<(), Error> {
    match &args.what {
        Generate::Man { command } => {
            let page = man::page(command.as_deref());
            let name = command.as_deref().unwrap_or_default();
            let page = page.ok_or_else(|| Error::Usage(format!("there is no command {name}")))?;
            output::write(common, |out| page.write(out))
        }
        Generate::Completions { shell } => {
            let mut script = Vec::new();
            completion::write_script(&shell.to_string(), &mut script)
                .map_err(|source| Error::Output { to: "the script".to_owned(), source })?;
            output::write(common, |out| out.write_all(&script))
        }
        Generate::Schema { name } => write_schema(name.as_deref(), common),
        Generate::CommandsTable => output::write(common, |out| write_table(out)),
    }
}

fn write_schema(name: Option<&str>, common: &Common) -> Result<(), Error> {
    let names = || SCHEMAS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let Some(name) = name else {
        let all: serde_json::Map<String, serde_json::Value> = SCHEMAS
            .iter()
            .filter_map(|(name, text)| Some(((*name).to_owned(), serde_json::from_str(text).ok()?)))
            .collect();
        return output::write_json(common, &all);
    };
    // Answers of all profile commands have the same format.
    let name = if name.starts_with("pprof-") { "profile" } else { name };
    let found = SCHEMAS.iter().find(|(known, _)| *known == name);
    let (_, text) =
        found.ok_or_else(|| Error::Usage(format!("there is no schema {name}; there are {}", names())))?;
    output::write(common, |out| out.write_all(text.as_bytes()))
}

fn write_table(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(commands_table().as_bytes())
}

/// Returns the table of commands for the README, in Markdown.
pub fn commands_table() -> String {
    let mut program = Cli::command().disable_help_subcommand(true);
    // `build` gives the commands their arguments.
    program.build();
    let mut table = String::from("| Command | What it answers | Intrusion | Needs |\n|---|---|---|---|\n");
    for command in program.get_subcommands().filter(|c| !c.is_hide_set()) {
        let name = command.get_name();
        let mut usage = format!("gops-probe {name}");
        for argument in command.get_positionals() {
            for value in argument.get_value_names().unwrap_or_default() {
                let needed = argument.is_required_set();
                let _ = if needed { write!(usage, " <{value}>") } else { write!(usage, " [{value}]") };
            }
        }
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let declaration = DECLARATIONS.iter().find(|d| d.name == name);
        let (tier, needs) = declaration.map_or_else(Default::default, |d| (d.tier.to_string(), d.needs));
        let _ = writeln!(table, "| `{usage}` | {about} | {tier} | {needs} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_declares_what_it_does() {
        let program = Cli::command();
        let named: Vec<_> =
            program.get_subcommands().filter(|c| !c.is_hide_set()).map(|c| c.get_name()).collect();
        let declared: Vec<_> = DECLARATIONS.iter().map(|d| d.name).collect();
        assert_eq!(named, declared);
    }

    /// Check that the README has the table between its two markers.
    #[test]
    fn the_readme_has_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let Ok(readme) = std::fs::read_to_string(path) else { return };
        let Some((_, rest)) = readme.split_once("<!-- commands:begin -->\n") else { return };
        let (table, _) = rest.split_once("<!-- commands:end -->").expect("an end marker");
        assert_eq!(
            table.trim(),
            commands_table().trim(),
            "write what `gops-probe generate commands-table` prints between the markers"
        );
    }

    /// Check that the program accepts the examples of help and man pages.
    #[test]
    fn examples_can_be_written_so() {
        for declaration in DECLARATIONS {
            assert!(declaration.examples.len() >= 2, "{}", declaration.name);
            for (line, _) in declaration.examples {
                let line = line.split(" | ").next().unwrap().trim_start_matches("sudo ");
                let words: Vec<std::ffi::OsString> = words(line).into_iter().map(Into::into).collect();
                let parsed = crate::cli::parsing::parse(words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.err().unwrap());
            }
        }
    }

    /// Splits a line into words, with quotes as in a shell.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for letter in line.chars() {
            match letter {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                _ => words.last_mut().unwrap().push(letter),
            }
        }
        words
    }

    #[test]
    fn schemas_are_those_of_the_documentation() {
        for (name, text) in SCHEMAS {
            let schema: serde_json::Value = serde_json::from_str(text).unwrap();
            assert!(schema["properties"]["schema"].is_object(), "{name}");
        }
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema");
        let Ok(files) = std::fs::read_dir(folder) else { return };
        let mut files: Vec<_> = files.map(|f| f.unwrap().path()).collect();
        files.sort();
        let names: Vec<_> = files.iter().map(|file| file.file_stem().unwrap().to_str().unwrap()).collect();
        let known: Vec<_> = SCHEMAS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, known);
        for (file, (_, text)) in files.iter().zip(SCHEMAS) {
            assert_eq!(std::fs::read_to_string(file).unwrap(), *text, "inspector/schema is not docs/schema");
        }
    }
}
