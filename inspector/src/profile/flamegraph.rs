//! Flame graph: one self-contained SVG file, with search and zoom.

use inferno::flamegraph::{self, Options};

use super::write::WriteError;
use super::{Profile, folded};
use crate::printable::printable_str;

/// Number of bits of an integer that a floating point number represents exactly.
const MOST_BITS: u32 = 53;

/// Draws the values of one sample type. Negative values of a difference are not drawn, as a frame
/// has no width below zero.
///
/// # Errors
/// Returns [`WriteError`].
pub fn write(profile: &Profile, sample_type: usize, title: &str) -> Result<Vec<u8>, WriteError> {
    let text = String::from_utf8(folded::write(profile, sample_type)?)
        .map_err(|e| WriteError::Failed(e.to_string()))?;
    let stacks: Vec<(&str, u64)> = text
        .lines()
        .filter_map(|line| {
            line.rsplit_once(' ').and_then(|(stack, value)| Some((stack, value.parse().ok()?)))
        })
        .collect();
    // Widths are computed with floating point numbers of this many bits; no real program has larger
    // totals.
    let total: u128 = stacks.iter().map(|&(_, value)| u128::from(value)).sum();
    let excess = u128::BITS.saturating_sub(total.leading_zeros()).saturating_sub(MOST_BITS);
    let mut lines: Vec<String> = stacks
        .into_iter()
        .map(|(stack, value)| format!("{stack} {}", value.checked_shr(excess).unwrap_or(0)))
        .collect();
    // Without stacks, the library draws nothing, which is no SVG.
    if lines.is_empty() {
        lines.push("(nothing) 1".to_owned());
    }
    let of = profile.sample_types.get(sample_type);
    let mut options = Options::default();
    options.title = printable_str(title).into_owned();
    options.subtitle = of.map(|t| printable_str(&t.kind).into_owned());
    options.count_name = of.map_or_else(String::new, |t| printable_str(&t.unit).into_owned());
    // Makes the colours depend on names, so that the same profile gives the same file.
    options.hash = true;
    let mut out = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut out)
        .map_err(|e| WriteError::Failed(e.to_string()))?;
    Ok(with_document_title(out, &options.title))
}

/// Adds a document title to the SVG, which browsers show. They treat the drawn title only as text.
fn with_document_title(svg: Vec<u8>, title: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(&svg);
    let behind_svg = text.find("<svg").and_then(|at| Some(at + text.get(at..)?.find('>')? + 1));
    let Some((head, rest)) = behind_svg.and_then(|at| text.split_at_checked(at)) else { return svg };
    let escaped = title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("{head}<title>{escaped}</title>{rest}").into_bytes()
}
