//! Statistics of pairs of measurements.

/// Median and maximum of several measurements.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Median.
    pub median: f64,
    /// Maximum.
    pub max: f64,
}

/// Computes median and maximum; zeros if there are no measurements.
#[must_use]
pub fn figures(values: &[f64]) -> Figures {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Figures {
        median: sorted.get(sorted.len() / 2).copied().unwrap_or(0.0),
        max: sorted.last().copied().unwrap_or(0.0),
    }
}

/// Computes the median of the ratios of pairs with its 95 % confidence interval, by a seeded bootstrap.
#[must_use]
pub fn ratio(pairs: &[(f64, f64)]) -> (f64, f64, f64) {
    let ratios: Vec<f64> = pairs.iter().map(|(a, b)| a / b).collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut medians: Vec<f64> = (0..2000)
        .map(|_| {
            let sample: Vec<f64> = ratios
                .iter()
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    ratios[(state % ratios.len() as u64) as usize]
                })
                .collect();
            figures(&sample).median
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    (figures(&ratios).median, medians[medians.len() / 40], medians[medians.len() - 1 - medians.len() / 40])
}
