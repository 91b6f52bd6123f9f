//! Difference between two profiles of one process, and sums of profiles.

use std::collections::HashMap;

use super::{Function, Label, Line, Location, Mapping, Profile, Sample};

/// Error that two profiles have different sample types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the two profiles have different sample types")]
pub struct DifferentTypes;

/// Subtracts the values of `before` from those of `after`, for equal stacks (functions, files,
/// lines, addresses) with equal labels. Unchanged samples are left out; decreases have negative
/// values.
///
/// # Errors
/// Returns [`DifferentTypes`] if the sample types differ.
pub fn diff(before: &Profile, after: &Profile) -> Result<Profile, DifferentTypes> {
    if before.sample_types != after.sample_types {
        return Err(DifferentTypes);
    }
    let mut merged = Merged::default();
    merged.add(after, 1);
    merged.add(before, -1);
    let Merged { mappings, locations, functions, mut samples, .. } = merged;
    samples.retain(|sample| sample.values.iter().any(|&value| value != 0));
    let mut comments = after.comments.clone();
    comments.extend(before.comments.iter().filter(|c| !after.comments.contains(c)).cloned());
    let duration = after.time.duration_since(before.time).unwrap_or_default();
    comments.push(format!(
        "the difference between two readings {} apart: what came between them, negative where it became less",
        humantime::format_duration(std::time::Duration::from_millis(
            u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
        ))
    ));
    Ok(Profile {
        sample_types: after.sample_types.clone(),
        default_sample_type: after.default_sample_type,
        period: after.period.clone(),
        time: before.time,
        duration: Some(duration),
        mappings,
        locations,
        functions,
        samples,
        comments,
    })
}

/// Merges the samples of several profiles of one kind. `None` if there are no profiles.
///
/// # Errors
/// Returns [`DifferentTypes`] if the sample types differ.
pub fn merge(profiles: Vec<Profile>) -> Result<Option<Profile>, DifferentTypes> {
    let Some(first) = profiles.first() else { return Ok(None) };
    let mut merged = Merged::default();
    for profile in &profiles {
        if profile.sample_types != first.sample_types {
            return Err(DifferentTypes);
        }
        merged.add(profile, 1);
    }
    let Merged { mappings, locations, functions, samples, .. } = merged;
    let same_period = profiles.iter().all(|profile| profile.period == first.period);
    Ok(Some(Profile {
        sample_types: first.sample_types.clone(),
        default_sample_type: first.default_sample_type,
        // The values are scaled already: the period only tells how they were sampled.
        period: first.period.clone().filter(|_| same_period),
        time: profiles.iter().map(|profile| profile.time).min().unwrap_or(first.time),
        duration: profiles.iter().filter_map(|profile| profile.duration).max(),
        mappings,
        locations,
        functions,
        samples,
        comments: profiles.iter().flat_map(|profile| profile.comments.iter().cloned()).collect(),
    }))
}

type Key = (Vec<usize>, Vec<Label>);

/// Merged lists of several profiles.
#[derive(Default)]
struct Merged {
    mappings: Vec<Mapping>,
    locations: Vec<Location>,
    functions: Vec<Function>,
    samples: Vec<Sample>,
    known_functions: HashMap<Function, usize>,
    known_locations: HashMap<(Option<usize>, u64, Vec<Line>), usize>,
    known_samples: HashMap<Key, usize>,
}

impl Merged {
    fn add(&mut self, profile: &Profile, sign: i64) {
        let mappings: Vec<usize> = profile.mappings.iter().map(|m| self.mapping(m)).collect();
        let functions: Vec<usize> = profile.functions.iter().map(|f| self.function(f)).collect();
        let locations: Vec<usize> = profile
            .locations
            .iter()
            .map(|location| {
                let mapping = location.mapping.and_then(|m| mappings.get(m).copied());
                let lines = location.lines.iter().filter_map(|line| {
                    Some(Line { function: *functions.get(line.function)?, line: line.line })
                });
                self.location(mapping, location.address, lines.collect())
            })
            .collect();
        for sample in &profile.samples {
            let stack = sample.stack.iter().filter_map(|&at| locations.get(at).copied());
            let mut labels = sample.labels.clone();
            labels.sort();
            let key = (stack.collect::<Vec<_>>(), labels);
            let index = match self.known_samples.get(&key) {
                Some(&index) => index,
                None => {
                    let index = self.samples.len();
                    self.samples.push(Sample {
                        stack: key.0.clone(),
                        values: vec![0; profile.sample_types.len()],
                        labels: sample.labels.clone(),
                    });
                    self.known_samples.insert(key, index);
                    index
                }
            };
            if let Some(merged) = self.samples.get_mut(index) {
                for (sum, value) in merged.values.iter_mut().zip(&sample.values) {
                    *sum = sum.saturating_add(value.saturating_mul(sign));
                }
            }
        }
    }

    fn mapping(&mut self, mapping: &Mapping) -> usize {
        let place = |m: &Mapping| (m.start, m.end, m.offset);
        let same = |m: &Mapping| place(m) == place(mapping) && m.file == mapping.file;
        if let Some((index, known)) = self.mappings.iter_mut().enumerate().find(|(_, m)| same(m)) {
            // A mapping in which nothing was looked up has no failures.
            known.symbolized |= mapping.symbolized;
            return index;
        }
        self.mappings.push(mapping.clone());
        self.mappings.len() - 1
    }

    fn function(&mut self, function: &Function) -> usize {
        if let Some(&known) = self.known_functions.get(function) {
            return known;
        }
        let index = self.functions.len();
        self.functions.push(function.clone());
        self.known_functions.insert(function.clone(), index);
        index
    }

    fn location(&mut self, mapping: Option<usize>, address: u64, lines: Vec<Line>) -> usize {
        let key = (mapping, address, lines);
        if let Some(&known) = self.known_locations.get(&key) {
            return known;
        }
        let index = self.locations.len();
        self.locations.push(Location { mapping, address, lines: key.2.clone() });
        self.known_locations.insert(key, index);
        index
    }
}
