//! What a sub-test came to, as a line on a console and back.

use std::fmt;

/// How a sub-test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was as it should be.
    Pass,
    /// It was not.
    Fail,
    /// It did not run: the machine lacks what it takes.
    Skip,
}

impl Verdict {
    const ALL: [Self; 3] = [Self::Pass, Self::Fail, Self::Skip];

    /// The word on the console and in tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// The result of one sub-test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The sub-test.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Figures, or what was wrong or missing; one line.
    pub detail: String,
}

const MARK: &str = "RESULT ";

impl Outcome {
    /// Reads a line of a console; other lines are none.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        // The kernel may have written to the same line before.
        let (_, rest) = line.split_once(MARK)?;
        let (name, rest) = rest.split_once(' ')?;
        let (word, detail) = rest.split_once(' ').unwrap_or((rest, ""));
        let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.word() == word.trim_end())?;
        Some(Self { name: name.to_owned(), verdict, detail: detail.trim().to_owned() })
    }
}

/// `RESULT name pass|fail|skip detail`, without the line's end.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{} {} ", self.name, self.verdict.word())?;
        // A console is read by lines.
        for (n, line) in self.detail.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
            if n > 0 {
                f.write_str(" / ")?;
            }
            f.write_str(line)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let outcome = Outcome {
            name: "stack".to_owned(),
            verdict: Verdict::Fail,
            detail: "one\n\n two  \nthree".to_owned(),
        };
        let line = outcome.to_string();
        assert_eq!(line, "RESULT stack fail one / two / three");
        let read = Outcome::parse(&format!("[    2.5] clocksource: {line}\r")).unwrap();
        assert_eq!(read, Outcome { detail: "one / two / three".to_owned(), ..outcome });
        assert_eq!(Outcome::parse("RESULT list pass").unwrap().verdict, Verdict::Pass);
        for other in ["", "RESULT", "RESULT list", "RESULT list maybe", "RESULTS list pass"] {
            assert_eq!(Outcome::parse(other), None, "{other}");
        }
    }
}
