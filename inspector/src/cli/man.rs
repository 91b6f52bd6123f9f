//! Man pages, made from the definition of the command line, with further sections: examples, environment,
//! files.

use std::io::{self, Write};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use roff::{Roff, bold, italic, roman};

use super::args::{Cli, DECLARATIONS, Declaration, EXIT_CODES};

/// Environment variables with their effects.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("GOPS_CONFIG_DIR", "The folder with the port files of gops agents; as gops has it."),
    (
        "GOPS_PROBE_STATE_DIR",
        "The folder for journals of what must be restored in a process, in place of those in FILES.",
    ),
    ("XDG_CONFIG_HOME, HOME", "Where port files are looked for without GOPS_CONFIG_DIR."),
    ("XDG_RUNTIME_DIR, XDG_STATE_HOME, HOME", "Where journals of users other than root are."),
    ("NO_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM", "Whether messages have colour, unless --color says it."),
    ("TERM", "Where it is empty or dumb, top writes line by line."),
];

/// Files that are read or written beside those of the target.
const FILES: &[(&str, &str)] = &[
    ("/run/gops-probe", "Journals of root: what must be restored in a process if gops-probe is killed."),
    ("$XDG_RUNTIME_DIR/gops-probe, ~/.local/state/gops-probe", "The same of other users."),
    ("~/.config/gops", "Port files of gops agents."),
    ("/usr/lib/debug", "Separate debug files of native code, by build id or name."),
];

/// Examples for the program's own page.
const FIRST_STEPS: &[(&str, &str)] = &[
    ("gops-probe", "the Go processes of this machine"),
    ("sudo gops-probe stack 4711", "every goroutine of one of them"),
    ("sudo gops-probe pprof-cpu -d 10s -o cpu.svg name:orders", "where its time goes, as a flame graph"),
];

/// Makes the page of the program, or of one command. Returns `None` if there is no such command.
pub(super) fn page(command: Option<&str>) -> Option<Page> {
    // The page of `help` is not needed.
    let mut program = Cli::command().disable_help_subcommand(true);
    // `build` also gives the commands the program's options.
    program.build();
    let names: Vec<String> = program
        .get_subcommands()
        .filter(|c| !c.is_hide_set())
        .map(|c| format!("gops-probe-{}", c.get_name()))
        .collect();
    let Some(name) = command else {
        return Some(Page { man: Man::new(program), declaration: None, see_also: names });
    };
    let declaration = DECLARATIONS.iter().find(|d| d.name == name)?;
    let found: &Command = program.find_subcommand(name).filter(|c| !c.is_hide_set())?;
    let title = format!("gops-probe-{}", found.get_name());
    let man = Man::new(found.clone().display_name(&title)).title(title.to_uppercase());
    Some(Page { man, declaration: Some(declaration), see_also: vec!["gops-probe".to_owned()] })
}

/// Man page.
pub(super) struct Page {
    man: Man,
    /// Declaration of the command; `None` for the program.
    declaration: Option<&'static Declaration>,
    see_also: Vec<String>,
}

impl Page {
    /// Writes the page in roff.
    ///
    /// # Errors
    /// Returns an error if writing to `out` fails.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.man.render_title(out)?;
        self.man.render_name_section(out)?;
        self.man.render_synopsis_section(out)?;
        self.man.render_description_section(out)?;
        self.man.render_options_section(out)?;
        let mut rest = Roff::new();
        let examples = match self.declaration {
            Some(declaration) => {
                rest.control("SH", ["INTRUSION"]);
                rest.text([roman(format!("Tier {}: {}.", declaration.tier, declaration.cost))]);
                rest.control("SH", ["NEEDS"]);
                rest.text([roman(format!("{}.", declaration.needs))]);
                declaration.examples
            }
            None => {
                self.man.render_subcommands_section(out)?;
                FIRST_STEPS
            }
        };
        rest.control("SH", ["EXAMPLES"]);
        for (command, about) in examples {
            rest.control("TP", []);
            rest.text([bold(*command)]);
            rest.text([roman(sentence(about))]);
        }
        rest.control("SH", ["EXIT STATUS"]);
        for line in EXIT_CODES.lines().skip(1) {
            let (code, meaning) = line.trim().split_once(' ').unwrap_or((line, ""));
            rest.control("TP", []);
            rest.text([bold(code)]);
            rest.text([roman(sentence(meaning.trim()))]);
        }
        for (title, entries) in [("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)] {
            rest.control("SH", [title]);
            for (name, about) in entries {
                rest.control("TP", []);
                rest.text([italic(*name)]);
                rest.text([roman(*about)]);
            }
        }
        rest.control("SH", ["SEE ALSO"]);
        for (index, name) in self.see_also.iter().enumerate() {
            let end = if index + 1 == self.see_also.len() { "" } else { "," };
            rest.text([bold(name), roman(format!("(1){end}"))]);
        }
        rest.to_writer(out)?;
        match self.declaration {
            Some(_) => Ok(()),
            None => self.man.render_version_section(out),
        }
    }
}

/// Makes a sentence with a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(command: Option<&str>) -> String {
        let mut text = Vec::new();
        page(command).unwrap().write(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn every_page_has_its_sections() {
        let names = DECLARATIONS.iter().map(|d| Some(d.name)).chain([None]);
        for name in names {
            let text = written(name);
            for section in [
                "NAME",
                "SYNOPSIS",
                "OPTIONS",
                "EXAMPLES",
                "\"EXIT STATUS\"",
                "ENVIRONMENT",
                "FILES",
                "\"SEE ALSO\"",
            ] {
                assert!(text.contains(&format!(".SH {section}\n")), "{name:?}: {section} in {text}");
            }
        }
        assert!(
            written(None).contains("gops\\-probe\\-stack") && written(Some("gc")).contains("Tier 3 write")
        );
        assert!(page(Some("generate")).is_none() && page(Some("help")).is_none());
    }
}
