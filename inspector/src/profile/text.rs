//! Profile as text: the most expensive functions, as `pprof -top` shows them, and the places with
//! their stacks.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use super::sums::{Sums, sums};
use super::write::{Bounded, WriteError};
use super::{Label, LabelValue, Profile, Sample};
use crate::printable::printable_str;

/// Limits on what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Number of functions, ordered by their own value.
    pub flat: usize,
    /// Number of functions, ordered by their value with everything that they call.
    pub cumulative: usize,
    /// Number of places.
    pub sites: usize,
    /// Number of frames of each place.
    pub frames: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { flat: 30, cumulative: 30, sites: 20, frames: 40 }
    }
}

/// Maximum number of characters shown of a name.
const MAX_NAME: usize = 400;
/// Maximum number of labels shown for a sample.
const MAX_LABELS: usize = 16;
/// Maximum number of labels shown for a place whose samples have different ones.
const MAX_SHARES: usize = 5;

/// Writes the values of one sample type. Characters that act on a terminal are escaped.
///
/// # Errors
/// Returns [`WriteError::TooLarge`] if the text exceeds the limit.
pub fn write(profile: &Profile, sample_type: usize, bounds: Bounds) -> Result<Vec<u8>, WriteError> {
    let value = |sample: &Sample| sample.values.get(sample_type).copied().unwrap_or(0);
    // In a difference, increases and decreases do not cancel out.
    let total: i64 = profile.samples.iter().fold(0, |sum, s| sum.saturating_add(value(s).saturating_abs()));
    let of = profile.sample_types.get(sample_type);
    let unit = of.map_or("", |t| t.unit.as_str());
    let mut out = Bounded::default();
    write_header(profile, sample_type, total, unit, &mut out)?;
    if total == 0 {
        out.push("No samples.\n")?;
        return Ok(out.text.into_bytes());
    }
    let mut functions = sums(profile, value);
    functions.retain(|f| f.flat != 0 || f.cumulative != 0);
    let name = |f: &Sums<'_>| shown(&f.frame.name());
    functions.sort_by_cached_key(|f| (-f.flat.saturating_abs(), -f.cumulative.saturating_abs(), name(f)));
    write_table("Functions, by their own", &functions, total, unit, bounds.flat, &mut out)?;
    functions.sort_by_cached_key(|f| (-f.cumulative.saturating_abs(), -f.flat.saturating_abs(), name(f)));
    write_table("Functions, with all they call", &functions, total, unit, bounds.cumulative, &mut out)?;
    write_sites(profile, value, total, unit, bounds, &mut out)?;
    Ok(out.text.into_bytes())
}

fn write_header(
    profile: &Profile,
    sample_type: usize,
    total: i64,
    unit: &str,
    out: &mut Bounded,
) -> Result<(), WriteError> {
    let kind = |index: usize| profile.sample_types.get(index).map_or("", |t| t.kind.as_str());
    out.push(&format!("Type: {}\n", printable_str(kind(sample_type))))?;
    out.push(&format!("Time: {}\n", humantime::format_rfc3339_seconds(profile.time.max(UNIX_EPOCH))))?;
    if let Some(duration) = profile.duration {
        out.push(&format!("Duration: {:.2}s\n", duration.as_secs_f64()))?;
    }
    out.push(&format!("Total: {} in {} samples\n", scaled(total, unit), profile.samples.len()))?;
    let others: Vec<_> = (0..profile.sample_types.len()).filter(|&i| i != sample_type).map(kind).collect();
    if !others.is_empty() {
        out.push(&format!("Other types: {}\n", printable_str(&others.join(", "))))?;
    }
    for comment in &profile.comments {
        out.push(&format!("Note: {}\n", printable_str(comment)))?;
    }
    Ok(())
}

fn write_table(
    title: &str,
    functions: &[Sums<'_>],
    total: i64,
    unit: &str,
    most: usize,
    out: &mut Bounded,
) -> Result<(), WriteError> {
    let count = functions.len();
    let dropped = if count > most { format!(" (first {most} of {count})") } else { String::new() };
    out.push(&format!("\n{title}{dropped}:\n"))?;
    out.push("      flat  flat%   sum%        cum   cum%\n")?;
    let mut sum = 0i64;
    for f in functions.iter().take(most) {
        sum = sum.saturating_add(f.flat);
        out.push(&format!(
            "{:>10} {:>6} {:>6} {:>10} {:>6}  {}\n",
            scaled(f.flat, unit),
            percent(f.flat, total),
            percent(sum, total),
            scaled(f.cumulative, unit),
            percent(f.cumulative, total),
            shown(&f.frame.name()),
        ))?;
    }
    Ok(())
}

fn write_sites(
    profile: &Profile,
    value: impl Fn(&Sample) -> i64,
    total: i64,
    unit: &str,
    bounds: Bounds,
    out: &mut Bounded,
) -> Result<(), WriteError> {
    // One site for each stack: labels do not change the place.
    let mut by_stack: HashMap<&[usize], Vec<&Sample>> = HashMap::new();
    for sample in profile.samples.iter().filter(|sample| value(sample) != 0) {
        by_stack.entry(&sample.stack).or_default().push(sample);
    }
    let sum = |samples: &[&Sample]| samples.iter().fold(0i64, |sum, s| sum.saturating_add(value(s)));
    let mut sites: Vec<(i64, &[usize], Vec<&Sample>)> =
        by_stack.into_iter().map(|(stack, samples)| (sum(&samples), stack, samples)).collect();
    sites.sort_by(|(a, a_stack, _), (b, b_stack, _)| {
        b.saturating_abs().cmp(&a.saturating_abs()).then_with(|| a_stack.cmp(b_stack))
    });
    let count = sites.len();
    let dropped =
        if count > bounds.sites { format!(" (first {} of {count})", bounds.sites) } else { String::new() };
    out.push(&format!("\nSites{dropped}:\n"))?;
    for (sum, stack, samples) in sites.iter().take(bounds.sites) {
        let mut line = format!("{:>10} {:>6}", scaled(*sum, unit), percent(*sum, total));
        if let [sample] = samples.as_slice() {
            for label in sample.labels.iter().take(MAX_LABELS) {
                let _ = write!(line, "  {}", labelled(label));
            }
        }
        out.push(&line)?;
        out.push("\n")?;
        let mut frames = profile.frames(stack);
        for frame in frames.by_ref().take(bounds.frames) {
            out.push(&format!("             {}", shown(&frame.name())))?;
            if let Some(function) = frame.function.filter(|f| !f.file.is_empty()) {
                out.push(&format!("  {}:{}", shown(&function.file), frame.line))?;
            }
            out.push("\n")?;
        }
        let more = frames.count();
        if more > 0 {
            out.push(&format!("             ({more} more frames)\n"))?;
        }
        if stack.is_empty() {
            out.push("             (no stack)\n")?;
        }
        if samples.len() > 1 {
            write_labels(samples, &value, unit, out)?;
        }
    }
    Ok(())
}

/// Writes the labels of a place whose samples have different ones, each with its share, the largest
/// first.
fn write_labels(
    samples: &[&Sample],
    value: impl Fn(&Sample) -> i64,
    unit: &str,
    out: &mut Bounded,
) -> Result<(), WriteError> {
    let mut shares: HashMap<&Label, i64> = HashMap::new();
    for sample in samples {
        for label in &sample.labels {
            let share = shares.entry(label).or_default();
            *share = share.saturating_add(value(sample));
        }
    }
    let mut shares: Vec<(&Label, i64)> = shares.into_iter().collect();
    shares.sort_by_key(|&(label, share)| (-share.saturating_abs(), label));
    for (label, share) in shares.iter().take(MAX_SHARES) {
        out.push(&format!("             label {}  {}\n", labelled(label), scaled(*share, unit)))?;
    }
    if let Some(more) = shares.len().checked_sub(MAX_SHARES).filter(|&more| more > 0) {
        out.push(&format!("             ({more} more labels)\n"))?;
    }
    Ok(())
}

fn labelled(label: &Label) -> String {
    let key = shown(&label.key);
    match &label.value {
        LabelValue::Text(text) => format!("{key}={}", shown(text)),
        LabelValue::Number(number, unit) => format!("{key}={number}{}", shown(unit)),
    }
}

fn shown(text: &str) -> String {
    let cut = match text.char_indices().nth(MAX_NAME) {
        Some((end, _)) => text.get(..end).map(|t| format!("{t}…")),
        None => None,
    };
    printable_str(cut.as_deref().unwrap_or(text)).into_owned()
}

fn percent(value: i64, total: i64) -> String {
    let percent = if total == 0 { 0.0 } else { 100.0 * value as f64 / total as f64 };
    if percent.abs() >= 99.95 && percent.abs() <= 100.05 {
        return if value < 0 { "-100%".to_owned() } else { "100%".to_owned() };
    }
    if percent.abs() >= 1.0 { format!("{percent:.1}%") } else { format!("{percent:.2}%") }
}

/// Formats a value with its unit, scaled as pprof does.
fn scaled(value: i64, unit: &str) -> String {
    let scales: &[(&str, f64)] = match unit {
        "bytes" => &[
            ("PB", 1024f64 * 1024.0 * 1024.0 * 1024.0 * 1024.0),
            ("TB", 1024f64 * 1024.0 * 1024.0 * 1024.0),
            ("GB", 1024f64 * 1024.0 * 1024.0),
            ("MB", 1024f64 * 1024.0),
            ("kB", 1024.0),
            ("B", 1.0),
        ],
        "nanoseconds" => {
            &[("hrs", 3600e9), ("mins", 60e9), ("s", 1e9), ("ms", 1e6), ("us", 1e3), ("ns", 1.0)]
        }
        _ => return value.to_string(),
    };
    let size = value as f64;
    if value == 0 {
        return "0".to_owned();
    }
    let (name, scale) = scales.iter().find(|(_, scale)| size.abs() >= *scale).copied().unwrap_or(("", 1.0));
    let number = format!("{:.2}", size / scale);
    let number = number.trim_end_matches('0').trim_end_matches('.');
    format!("{number}{name}")
}
