//! Durations on the command line, written as Go's are.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

/// Units of `time.ParseDuration`, in nanoseconds. Both letters of micro are in use.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses what `time.ParseDuration` does, without a sign: `1m30s`, `500ms`, `1.5h`, `0`. `None` for anything else, and
/// for more than Go's durations hold.
fn parse_go(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(unit_at);
        let unit_end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let unit = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        if !fraction.is_empty() {
            let fraction: f64 = format!("0.{fraction}").parse().ok()?;
            total = total.checked_add((fraction * unit as f64) as u64)?;
        }
        rest = behind;
    }
    (!text.is_empty() && i64::try_from(total).is_ok()).then(|| Duration::from_nanos(total))
}

/// Parses `20ms`, `1s`, `500us`, `1m30s` as Go's durations are written; a plain number is milliseconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let plain = || text.parse::<f64>().ok().and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok());
    parse_go(text).or_else(plain).ok_or_else(|| format!("{text:?} is not a duration such as 20ms or 1m30s"))
}

/// A period as gops takes it: a Go duration, or a whole number of seconds. It is shown as Go shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Period(Duration);

impl Period {
    /// How long it is.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = || {
            let seconds = text.parse::<u64>().ok().map(Duration::from_secs)?;
            i64::try_from(seconds.as_nanos()).is_ok().then_some(seconds)
        };
        parse_go(text).or_else(seconds).map(Period).ok_or_else(|| {
            format!("{text:?} is not a duration such as 500ms or 1m30s, nor a number of seconds")
        })
    }
}

impl fmt::Display for Period {
    /// As `time.Duration.String`: `1m30s`, `1.5s`, `500ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let fraction = |value: u128, unit: u128| {
            let mut text = (value / unit).to_string();
            let rest = value % unit;
            if rest > 0 {
                let digits = unit.ilog10() as usize;
                let _ = write!(text, ".{}", format!("{rest:0digits$}").trim_end_matches('0'));
            }
            text
        };
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", fraction(nanos, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", fraction(nanos, 1_000_000)),
            _ => {
                let minutes = nanos / 60_000_000_000;
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write!(f, "{}s", fraction(nanos % 60_000_000_000, 1_000_000_000))
            }
        }
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
        assert_eq!(parse_duration("7"), Ok(Duration::from_millis(7)));
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in
            ["fast", "3 weeks", "", "-1s", "s", ".s", "1..2s", "99999999999999999999999s", "9999999h"]
        {
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
