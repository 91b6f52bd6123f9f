//! Durations on the command line.

use std::time::Duration;

/// Parses `20ms`, `1s`, `500us`, `1.5s` as Go's durations are written; a plain number is milliseconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is not a duration such as 20ms"))?;
    let seconds = match unit {
        "" | "ms" => number / 1e3,
        "us" | "µs" => number / 1e6,
        "ns" => number / 1e9,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(format!("{unit:?} is not a unit of time: ns, us, ms, s, m")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
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
        assert!(
            parse_duration("fast").is_err()
                && parse_duration("3 weeks").is_err()
                && parse_duration("").is_err()
        );
        assert!(parse_duration("99999999999999999999999s").is_err());
    }
}
