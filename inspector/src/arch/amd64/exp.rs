//! Exponential function exactly as Go computes it on amd64.

/// Computes `math.Exp` as Go on amd64 does, bit for bit, for arguments up to 0 (`math/exp_amd64.s`,
/// the same in Go 1.18–1.27).
///
/// Samples are scaled by it and then cut to whole numbers, so a difference in the last bit would
/// show.
pub(super) fn exp_of_negative(x: f64) -> f64 {
    #[cfg(target_arch = "x86_64")]
    let fused = std::is_x86_feature_detected!("avx") && std::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    let fused = true;
    compute(x, fused)
}

/// Smallest argument that is computed. Below it the result is no normal number, and 1 minus the
/// result is 1.
const TINY: f64 = -700.0;
/// Upper half of the logarithm of 2; [`LN2_LOW`] is the rest.
const LN2_HIGH: f64 = 0.693_147_180_559_662_956_511_601_805_686_950_683_593_75;
const LN2_LOW: f64 = 0.282_352_905_630_315_771_225_884_481_750_134_360_255_254_120_68e-12;
/// Coefficients of the series, the highest first: 1/8! … 1/2!, 1.
const COEFFICIENTS: [f64; 8] =
    [1.0 / 40_320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0];

/// Computes the function. `fused` means that the processor multiplies and adds in one step, which
/// rounds once.
fn compute(x: f64, fused: bool) -> f64 {
    if !(TINY..=0.0).contains(&x) {
        return if x < TINY { 0.0 } else { x.exp() };
    }
    let multiply_add = |a: f64, b: f64, c: f64| if fused { a.mul_add(b, c) } else { a * b + c };
    let exponent = (std::f64::consts::LOG2_E * x).round_ties_even();
    let mut r = multiply_add(-exponent, LN2_HIGH, x);
    r = multiply_add(-exponent, LN2_LOW, r) * 0.0625;
    let series = COEFFICIENTS.into_iter().reduce(|sum, c| multiply_add(sum, r, c)).unwrap_or(1.0);
    // exp(r)-1, squared as often as `r` was halved: (y+1)²-1 = y(y+2).
    r *= series;
    for _ in 0..3 {
        r *= r + 2.0;
    }
    let fraction = multiply_add(r + 2.0, r, 1.0);
    // Within ±1011: a power of two that is a normal number.
    let power = f64::from_bits(((exponent as i64 + 1023) as u64) << 52);
    fraction * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_to_another_implementation() {
        let arguments = (0..20_000).map(|i| -f64::from(i) * 0.0173);
        for x in arguments.chain([-1e-9, -8.0 / 524_288.0, -700.0]) {
            for fused in [true, false] {
                let (own, other) = (compute(x, fused), x.exp());
                assert!((own - other).abs() <= other * 4e-16, "{x}: {own:e}, {other:e}");
            }
        }
        assert_eq!(exp_of_negative(0.0), 1.0);
        assert_eq!(exp_of_negative(-1e300), 0.0);
        assert_eq!(exp_of_negative(f64::NEG_INFINITY), 0.0);
        assert!(exp_of_negative(f64::NAN).is_nan());
    }
}
