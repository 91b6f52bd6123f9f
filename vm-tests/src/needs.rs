//! With which capabilities a command worked, as a line on a console and back.

use std::fmt;

/// How a command went for a user with some capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The command.
    pub command: String,
    /// Who asked: in relation to the process.
    pub user: String,
    /// All capabilities of the user.
    pub capabilities: String,
    /// What became of it; the same whenever it is the same.
    pub result: String,
}

const MARK: &str = "NEEDS ";
const BETWEEN: &str = " | ";

impl Need {
    /// Reads a line of a console; other lines are none.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(MARK)?;
        let mut parts = rest.trim_end().split(BETWEEN).map(str::to_owned);
        let mut next = || parts.next();
        let need = Self { command: next()?, user: next()?, capabilities: next()?, result: next()? };
        next().is_none().then_some(need)
    }
}

/// The line, without its end.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, user, capabilities, result } = self;
        write!(f, "{MARK}{}", [command.as_str(), user, capabilities, result].join(BETWEEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let word = str::to_owned;
        let need = Need {
            command: word("stack --no-pause"),
            user: word("another user"),
            capabilities: word("none"),
            result: word("works"),
        };
        assert_eq!(Need::parse(&format!("[ 1.5] {need}\r")).as_ref(), Some(&need));
        for other in ["", "NEEDS", "NEEDS a | b | c", "NEEDS a | b | c | d | e", "RESULT list pass"] {
            assert_eq!(Need::parse(other), None, "{other}");
        }
    }
}
