//! Folded stacks, as flame graph scripts read them: a line for each stack, with its frames from the
//! outermost on and a value (`a;b;c 12`).

use std::collections::BTreeMap;

use super::Profile;
use super::write::{Bounded, WriteError};
use crate::printable::printable_str;

/// Writes the values of one sample type, with equal stacks added up, in order of their text. Zeros
/// are left out.
///
/// A `;` in a name becomes `,`. Type arguments can contain one.
///
/// # Errors
/// Returns [`WriteError::TooLarge`] if the text exceeds the limit.
pub fn write(profile: &Profile, sample_type: usize) -> Result<Vec<u8>, WriteError> {
    let mut stacks: BTreeMap<Vec<usize>, i64> = BTreeMap::new();
    for sample in &profile.samples {
        let value = sample.values.get(sample_type).copied().unwrap_or(0);
        if value != 0 {
            let total = stacks.entry(sample.stack.clone()).or_default();
            *total = total.saturating_add(value);
        }
    }
    let mut lines: BTreeMap<String, i64> = BTreeMap::new();
    let mut size = 0usize;
    for (stack, value) in stacks {
        let mut line = Bounded::default();
        let mut names: Vec<_> = profile.frames(&stack).collect();
        names.reverse();
        for (i, frame) in names.iter().enumerate() {
            if i > 0 {
                line.push(";")?;
            }
            line.push(&printable_str(&frame.name()).replace(';', ","))?;
        }
        let text = if line.text.is_empty() { "(no stack)".to_owned() } else { line.text };
        size = size.saturating_add(text.len());
        if size > super::write::MAX_WRITTEN {
            return Err(WriteError::TooLarge);
        }
        let total = lines.entry(text).or_default();
        *total = total.saturating_add(value);
    }
    let mut out = Bounded::default();
    for (line, value) in lines.iter().filter(|(_, value)| **value != 0) {
        out.push(line)?;
        out.push(&format!(" {value}\n"))?;
    }
    Ok(out.text.into_bytes())
}
