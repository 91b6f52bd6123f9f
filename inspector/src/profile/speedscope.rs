//! File format of speedscope: one sampled profile for each sample type, over one list of frames.

use serde::Serialize;

use super::Profile;
use super::write::{MAX_WRITTEN, WriteError};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'p> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    shared: Shared<'p>,
    profiles: Vec<Sampled<'p>>,
    name: &'p str,
    active_profile_index: usize,
    exporter: &'static str,
}

#[derive(Serialize)]
struct Shared<'p> {
    frames: Vec<Frame<'p>>,
}

#[derive(Serialize)]
struct Frame<'p> {
    name: std::borrow::Cow<'p, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    file: &'p str,
    #[serde(skip_serializing_if = "is_zero")]
    line: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sampled<'p> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'p str,
    unit: &'static str,
    start_value: i64,
    end_value: i64,
    /// Indices of frames, the outermost first.
    samples: Vec<Vec<usize>>,
    weights: Vec<i64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(line: &u32) -> bool {
    *line == 0
}

/// Writes all sample types; `sample_type` is shown first. The format has no negative values, so
/// those of a difference are left out.
///
/// # Errors
/// Returns [`WriteError`].
pub fn write(profile: &Profile, sample_type: usize, name: &str) -> Result<Vec<u8>, WriteError> {
    // After the functions come the locations, for use where they have no function.
    let functions = profile.functions.len();
    let mut frames: Vec<Frame<'_>> = profile
        .functions
        .iter()
        .map(|f| Frame { name: f.name.as_str().into(), file: &f.file, line: f.start_line })
        .collect();
    frames.extend(profile.locations.iter().map(|l| Frame {
        name: format!("{:#x}", l.address).into(),
        file: "",
        line: 0,
    }));
    let mut profiles = Vec::new();
    let mut size = 0usize;
    for (index, of) in profile.sample_types.iter().enumerate() {
        let (mut samples, mut weights, mut end) = (Vec::new(), Vec::new(), 0i64);
        for sample in &profile.samples {
            let value = sample.values.get(index).copied().unwrap_or(0);
            if value <= 0 {
                continue;
            }
            let mut stack: Vec<usize> = Vec::new();
            for &at in &sample.stack {
                let Some(location) = profile.locations.get(at) else { continue };
                if location.lines.is_empty() {
                    stack.push(functions + at);
                }
                stack.extend(location.lines.iter().map(|l| l.function).filter(|&f| f < functions));
            }
            stack.reverse();
            size = size.saturating_add(8 * stack.len() + 64);
            if size > MAX_WRITTEN {
                return Err(WriteError::TooLarge);
            }
            samples.push(stack);
            weights.push(value);
            end = end.saturating_add(value);
        }
        let unit = match of.unit.as_str() {
            "bytes" => "bytes",
            "nanoseconds" => "nanoseconds",
            "microseconds" => "microseconds",
            "milliseconds" => "milliseconds",
            "seconds" => "seconds",
            _ => "none",
        };
        profiles.push(Sampled {
            kind: "sampled",
            name: &of.kind,
            unit,
            start_value: 0,
            end_value: end,
            samples,
            weights,
        });
    }
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        shared: Shared { frames },
        profiles,
        name,
        active_profile_index: sample_type,
        exporter: concat!("gops-probe ", env!("CARGO_PKG_VERSION")),
    };
    let mut out = serde_json::to_vec(&file).map_err(|e| WriteError::Failed(e.to_string()))?;
    out.push(b'\n');
    Ok(out)
}
