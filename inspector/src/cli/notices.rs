//! What is said on standard error beside an answer: a title in colour, and a line of text.

use std::fmt::{self, Display};
use std::io::{IsTerminal as _, Write as _};

use super::args::{Color, Common};
use crate::printable::printable_str;

/// The kind of a line on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// Why there is no answer, or no whole one.
    Error,
    /// What to do, or what goes on.
    Hint,
    /// How the answer came about.
    Note,
    /// What may harm or mislead.
    Warning,
    /// What could not be found out.
    Unknown,
    /// How a fact is known.
    Known,
    /// What the answer cost the process.
    Cost,
    /// What was written into the process.
    Wrote,
    /// What would be written into it.
    WouldWrite,
    /// That it was done.
    Done,
    /// How samples were taken.
    Samples,
    /// That requests are answered.
    Serving,
}

impl Notice {
    /// Writes a line, with what could act on a terminal escaped: names in it come from the target. Nothing is lost of the
    /// answer where standard error cannot be written, so that this cannot fail.
    pub(super) fn tell(self, common: &Common, text: impl Display) {
        let text = text.to_string();
        let line = format!("{} {}\n", self.title(is_colored(common.color)), printable_str(&text));
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    /// Writes a line that is for somebody who waits: only on a terminal.
    pub(super) fn tell_on_terminal(self, common: &Common, text: impl Display) {
        if std::io::stderr().is_terminal() {
            self.tell(common, text);
        }
    }

    /// Bold red or cyan in one sequence: `anstyle` would write two.
    fn title(self, colored: bool) -> String {
        let code = if self == Notice::Error { "1;31" } else { "1;36" };
        if colored { format!("\x1b[{code}m{self}\x1b[0m") } else { self.to_string() }
    }
}

impl Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Notice::Error => "error:",
            Notice::Hint => "hint:",
            Notice::Note => "note:",
            Notice::Warning => "warning:",
            Notice::Unknown => "unknown:",
            Notice::Known => "known:",
            Notice::Cost => "cost:",
            Notice::Wrote => "wrote:",
            Notice::WouldWrite => "would write:",
            Notice::Done => "done:",
            Notice::Samples => "samples:",
            Notice::Serving => "serving:",
        })
    }
}

/// Whether standard error takes colour. What the environment and the terminal want is found out by clap's own library.
fn is_colored(color: Color) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        assert_eq!(Notice::WouldWrite.title(false), "would write:");
        assert_eq!(Notice::Error.title(true), "\x1b[1;31merror:\x1b[0m");
        assert_eq!(Notice::Cost.title(true), "\x1b[1;36mcost:\x1b[0m");
    }
}
