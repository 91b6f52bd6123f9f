//! Messages on standard error beside an answer: a coloured title and a line of text.

use std::fmt::{self, Display};
use std::io::{IsTerminal as _, Write as _};

use super::args::{Color, Common};
use crate::printable::printable_str;

/// Kind of a line on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// Reason why there is no answer, or no complete one.
    Error,
    /// Advice, or progress.
    Hint,
    /// Fact about the making of the answer.
    Note,
    /// Warning of harm or of a misleading answer.
    Warning,
    /// Fact that could not be determined.
    Unknown,
    /// Evidence for a fact.
    Known,
    /// Cost of the answer for the process.
    Cost,
    /// Data written into the process.
    Wrote,
    /// Data that would be written into the process.
    WouldWrite,
    /// Completion of a change.
    Done,
    /// Method of sampling.
    Samples,
    /// Start of serving requests.
    Serving,
}

impl Notice {
    /// Writes a line, with characters escaped that could act on a terminal: names in it come from the target.
    /// Never fails: the answer is complete even if standard error cannot be written.
    pub(super) fn tell(self, common: &Common, text: impl Display) {
        let text = text.to_string();
        let line = format!("{} {}\n", self.title(is_colored(common.color)), printable_str(&text));
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    /// Writes a line for a user who waits: only on a terminal.
    pub(super) fn tell_on_terminal(self, common: &Common, text: impl Display) {
        if std::io::stderr().is_terminal() {
            self.tell(common, text);
        }
    }

    /// Returns the title, coloured in bold red or cyan by one sequence: `anstyle` would write two.
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

/// Returns true if standard error takes colour. clap's own library determines the wishes of environment and
/// terminal.
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
