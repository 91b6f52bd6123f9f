//! Conversions of numbers as Go's compiler makes them for amd64.

/// Converts a floating point number to a `uint64`. Numbers that do not fit give what the instruction CVTTSD2SQ makes of them.
pub(super) fn float_to_uint64(value: f64) -> u64 {
    /// 2^63.
    const HALF: f64 = 9_223_372_036_854_775_808.0;
    let signed = |value: f64| {
        if value.is_nan() || !(-HALF..HALF).contains(&value) { i64::MIN } else { value as i64 }
            .cast_unsigned()
    };
    if value < HALF { signed(value) } else { signed(value - HALF) | 1 << 63 }
}

#[cfg(test)]
mod tests {
    use super::float_to_uint64;

    #[test]
    fn conversions_are_those_of_the_machine() {
        assert_eq!(float_to_uint64(1.9), 1);
        assert_eq!(float_to_uint64(1.8e19), 18_000_000_000_000_000_000);
        assert_eq!(float_to_uint64(-1.0), u64::MAX);
        assert_eq!(float_to_uint64(f64::NAN), 1 << 63);
        assert_eq!(float_to_uint64(1e30), 1 << 63);
    }
}
