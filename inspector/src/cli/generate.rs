//! What is made from the definition of the command line.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::CommandFactory as _;

use super::args::{Cli, Common, DECLARATIONS, Generate, GenerateArgs};
use super::output;
use crate::Error;

pub(super) fn run(args: &GenerateArgs, common: &Common) -> Result<(), Error> {
    match &args.what {
        Generate::Man { command } => {
            let page = man(command.as_deref())?;
            output::write(common, |out| page.render(out))
        }
        Generate::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "gops-probe", &mut script);
            output::write(common, |out| out.write_all(&script))
        }
        Generate::CommandsTable => output::write(common, |out| write_table(out)),
    }
}

fn man(command: Option<&str>) -> Result<clap_mangen::Man, Error> {
    let mut program = Cli::command();
    // Gives the commands the program's options too.
    program.build();
    let Some(name) = command else { return Ok(clap_mangen::Man::new(program)) };
    let command = program
        .find_subcommand(name)
        .filter(|c| !c.is_hide_set())
        .ok_or_else(|| Error::Usage(format!("there is no command {name}")))?;
    let title = format!("gops-probe-{name}");
    Ok(clap_mangen::Man::new(command.clone().display_name(&title)).title(title.to_uppercase()))
}

fn write_table(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(commands_table().as_bytes())
}

/// The table of commands as the README has it, in Markdown.
pub fn commands_table() -> String {
    let mut program = Cli::command();
    // Gives the commands their arguments.
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

    /// The README holds the table between two markers.
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

    #[test]
    fn man_pages_and_completions() {
        let mut page = Vec::new();
        man(None).unwrap().render(&mut page).unwrap();
        assert!(String::from_utf8(page).unwrap().contains("Exit codes"));
        let mut page = Vec::new();
        man(Some("version")).unwrap().render(&mut page).unwrap();
        assert!(String::from_utf8(page).unwrap().contains("tier 0 look"));
        assert!(man(Some("generate")).is_err());
    }
}
