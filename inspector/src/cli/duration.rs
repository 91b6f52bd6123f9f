//! Durations on the command line, in Go's notation.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::fmt::friendly::SpanParser;

use crate::report::go_text;

static PARSER: SpanParser = SpanParser::new();

/// Longest duration that Go can represent.
const LONGEST: Duration = Duration::from_nanos(i64::MAX as u64);

/// Parses a duration with its unit: `1m30s`, `500ms`, `1.5h`. `0` needs no unit. Returns `None` for other
/// text, and for durations beyond Go's maximum.
fn parse_with_unit(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    // The library also accepts ISO 8601 (`PT5S`) and signs in words. Here a duration begins with a digit or a
    // point.
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    PARSER.parse_unsigned_duration(text).ok().filter(|duration| *duration <= LONGEST)
}

/// Returns true if the text is a number without a unit.
fn is_plain_number(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(|number| number.is_finite() && number >= 0.0)
        && text.starts_with(|c: char| c.is_ascii_digit() || c == '.')
}

/// Parses the duration of an option for which seconds and milliseconds are both likely: `20ms`, `1s`,
/// `500us`, `1m30s`. Refuses a plain number: its unit would be unclear.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    parse_with_unit(text).ok_or_else(|| {
        if is_plain_number(text) {
            format!("{text:?} has no unit: write {text}s for seconds, or {text}ms for milliseconds")
        } else {
            format!("{text:?} is not a duration such as 20ms or 1m30s")
        }
    })
}

/// Period in the notation of gops: a Go duration, or a whole number of seconds. Shown in Go's notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Period {
    duration: Duration,
    /// True if it was written as a number of seconds, without a unit.
    is_plain: bool,
}

impl Period {
    /// Returns the length of the period.
    pub fn duration(self) -> Duration {
        self.duration
    }

    /// Returns the number of seconds, if the period was written as a number without a unit.
    pub fn plain_seconds(self) -> Option<u64> {
        self.is_plain.then_some(self.duration.as_secs())
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(duration) = parse_with_unit(text) {
            return Ok(Period { duration, is_plain: false });
        }
        let seconds = text.parse::<u64>().ok().map(Duration::from_secs).filter(|seconds| *seconds <= LONGEST);
        seconds.map(|duration| Period { duration, is_plain: true }).ok_or_else(|| {
            format!("{text:?} is not a duration such as 500ms or 1m30s, nor a number of seconds")
        })
    }
}

impl fmt::Display for Period {
    /// Formats the period as `time.Duration.String` does: `1m30s`, `1.5s`, `500ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&go_text::duration(u64::try_from(self.duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for plain in ["7", "60", "1.5"] {
            let error = parse_duration(plain).unwrap_err();
            assert!(error.contains(&format!("{plain}s")) && error.contains(&format!("{plain}ms")), "{error}");
        }
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in [
            "fast",
            "3 fortnights",
            "",
            "-1s",
            "+1s",
            "s",
            ".s",
            "1..2s",
            "1s ago",
            "PT5S",
            "inf",
            "99999999999999999999999s",
            "9999999h",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn periods_are_shown_as_go_does() {
        let shown = |text: &str| text.parse::<Period>().map(|p| p.to_string());
        for (text, expected) in [
            ("1m30s", "1m30s"),
            ("90", "1m30s"),
            ("90s", "1m30s"),
            ("0.5s", "500ms"),
            ("1500ms", "1.5s"),
            ("2h", "2h0m0s"),
            ("1us", "1µs"),
            ("1.25µs", "1.25µs"),
            ("7ns", "7ns"),
            ("0", "0s"),
            ("100.5ms", "100.5ms"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected));
        }
        for wrong in ["-1", "1.5", "soon", "9223372037", ""] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }
}
