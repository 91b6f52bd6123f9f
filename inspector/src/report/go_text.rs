//! Values as Go prints them; the output of gops consists of these.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Formats a size as `formatBytes` of the gops agent does: `12.50KB (12800 bytes)`.
pub(super) fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["KB", "MB", "GB", "TB", "PB"];
    if value < 1 << 10 {
        return format!("{value} bytes");
    }
    // First unit of which the value is less than 1024, or the last unit.
    let (unit, name) =
        UNITS.iter().enumerate().find(|(i, _)| value < 1 << (10 * (i + 2))).unwrap_or((4, &"PB"));
    format!("{:.2}{name} ({value} bytes)", value as f64 / (1u64 << (10 * (unit + 1))) as f64)
}

/// Formats a duration as `time.Duration.String` does: `1h2m3.5s`, `1.5ms`, `0s`.
pub(crate) fn duration(ns: u64) -> String {
    // A Go duration has a sign.
    let (sign, ns) = if ns > i64::MAX as u64 { ("-", ns.wrapping_neg()) } else { ("", ns) };
    let (unit, per_unit): (_, u64) = match ns {
        0 => return "0s".to_owned(),
        1..1_000 => ("ns", 1),
        1_000..1_000_000 => ("µs", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let (hours, minutes) = (ns / 3_600_000_000_000, ns / 60_000_000_000 % 60);
    let rest = if per_unit == 1_000_000_000 { ns % 60_000_000_000 } else { ns };
    let width = per_unit.ilog10() as usize;
    let fraction = format!("{:0width$}", rest % per_unit);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() || per_unit == 1 { "" } else { "." };
    let fraction = if per_unit == 1 { "" } else { fraction };
    let whole = rest / per_unit;
    let head = match (hours, minutes) {
        (0, 0) => String::new(),
        (0, minutes) => format!("{minutes}m"),
        (hours, minutes) => format!("{hours}h{minutes}m"),
    };
    format!("{sign}{head}{whole}{dot}{fraction}{unit}")
}

/// Formats a float64 as `%v` does: the shortest digits that identify it, with an exponent if it is small or
/// large.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let number: i32 = exponent.parse().unwrap_or(0);
    if (-4..21).contains(&number) {
        return format!("{value}");
    }
    let sign = if number < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", number.unsigned_abs())
}

/// Formats nanoseconds since 1970 as `time.Time.String` does: `2026-11-25 12:00:00.5 +0000 UTC`.
pub(super) fn time(unix_ns: u64, zone: &TimeZone) -> String {
    // The agent also takes the bits for a signed number.
    let time = Timestamp::from_nanosecond(unix_ns.cast_signed().into());
    let time = time.unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone());
    time.strftime("%Y-%m-%d %H:%M:%S%.f %z %Z").to_string()
}

/// Parses a time that [`time`] wrote, into nanoseconds since 1970. Names of time zones are ignored.
pub(super) fn parse_time(text: &str) -> Option<u64> {
    let at = text.match_indices(' ').nth(2).map_or(text.len(), |(at, _)| at);
    let time = jiff::fmt::strtime::parse("%Y-%m-%d %H:%M:%S%.f %z", text.get(..at)?).ok()?;
    u64::try_from(time.to_timestamp().ok()?.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (value, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.00KB (1024 bytes)"),
            (12_800, "12.50KB (12800 bytes)"),
            (1 << 20, "1.00MB (1048576 bytes)"),
            ((1 << 20) - 1, "1024.00KB (1048575 bytes)"),
            (5 << 30, "5.00GB (5368709120 bytes)"),
            (u64::MAX, "16384.00PB (18446744073709551615 bytes)"),
        ] {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn durations() {
        for (ns, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_001, "1.001µs"),
            (12_345_678, "12.345678ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_723_000_000_004, "1h2m3.000000004s"),
            (u64::MAX, "-1ns"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }

    #[test]
    fn floats() {
        for (value, text) in [
            (0.0, "0"),
            (1.5e-5, "1.5e-05"),
            (0.000_123, "0.000123"),
            (0.25, "0.25"),
            (1e21, "1e+21"),
            (123_456_789.0, "123456789"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn times() {
        let ns = 1_795_608_000_500_000_000;
        assert_eq!(time(ns, &TimeZone::UTC), "2026-11-25 12:00:00.5 +0000 UTC");
        assert_eq!(time(ns - 500_000_000, &TimeZone::UTC), "2026-11-25 12:00:00 +0000 UTC");
        for text in ["2026-11-25 12:00:00.5 +0000 UTC", "2026-11-25 13:00:00.5 +0100 CET"] {
            assert_eq!(parse_time(text), Some(ns));
        }
        assert_eq!(parse_time("-"), None);
        assert_eq!(parse_time(""), None);
    }
}
