//! A flame graph: one SVG file that needs nothing else, with search and zoom in it.

use inferno::flamegraph::{self, Options};

use super::write::WriteError;
use super::{Profile, folded};
use crate::report::printable::printable_str;

/// Draws the values of one sample type. What a difference has less of is not drawn: a frame has no width below zero.
///
/// # Errors
/// [`WriteError`].
pub fn write(profile: &Profile, sample_type: usize, title: &str) -> Result<Vec<u8>, WriteError> {
    let text = String::from_utf8(folded::write(profile, sample_type)?)
        .map_err(|e| WriteError::Failed(e.to_string()))?;
    let mut lines: Vec<&str> = text
        .lines()
        .filter(|line| line.rsplit_once(' ').is_some_and(|(_, value)| !value.starts_with('-')))
        .collect();
    // It draws nothing at all of nothing, which is no SVG.
    if lines.is_empty() {
        lines.push("(nothing) 1");
    }
    let of = profile.sample_types.get(sample_type);
    let mut options = Options::default();
    options.title = printable_str(title).into_owned();
    options.subtitle = of.map(|t| printable_str(&t.kind).into_owned());
    options.count_name = of.map_or_else(String::new, |t| printable_str(&t.unit).into_owned());
    // The same profile gives the same file.
    options.hash = true;
    let mut out = Vec::new();
    flamegraph::from_lines(&mut options, lines, &mut out).map_err(|e| WriteError::Failed(e.to_string()))?;
    Ok(out)
}
