//! Colour on standard error.

use std::env;
use std::ffi::OsString;
use std::io::IsTerminal as _;

use super::args::Color;

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style(bool);

impl Style {
    pub(super) fn for_stderr(color: Color) -> Self {
        Style(decide(color, std::io::stderr().is_terminal(), |key| env::var_os(key)))
    }

    pub(super) fn error(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    pub(super) fn hint(self, text: &str) -> String {
        self.wrap("1;36", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn decide(color: Color, terminal: bool, var: impl Fn(&str) -> Option<OsString>) -> bool {
    let set = |key| var(key).filter(|v| !v.is_empty());
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if set("NO_COLOR").is_some() => false,
        Color::Auto if set("CLICOLOR_FORCE").is_some_and(|v| v != "0") => true,
        Color::Auto => {
            terminal && set("CLICOLOR").is_none_or(|v| v != "0") && set("TERM").is_none_or(|v| v != "dumb")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conventions_of_the_environment() {
        let with = |color, terminal, key: &'static str, value: &'static str| {
            decide(color, terminal, |k| (k == key).then(|| value.into()))
        };
        assert!(with(Color::Auto, true, "", ""));
        assert!(!with(Color::Auto, false, "", ""));
        assert!(!with(Color::Auto, true, "NO_COLOR", "1"));
        assert!(with(Color::Auto, true, "NO_COLOR", ""));
        assert!(!with(Color::Auto, true, "TERM", "dumb"));
        assert!(!with(Color::Auto, true, "CLICOLOR", "0"));
        assert!(with(Color::Auto, false, "CLICOLOR_FORCE", "1"));
        assert!(with(Color::Always, false, "NO_COLOR", "1"));
        assert!(!with(Color::Never, true, "CLICOLOR_FORCE", "1"));
    }
}
