//! Reader and writer of the pprof format: protocol buffers in gzip (`profile.proto` of
//! github.com/google/pprof).
//!
//! The messages are declared by hand, with the fields that Go's tools know. Texts are bytes here,
//! as an agent may send text that is not UTF-8.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use super::{Function, Label, LabelValue, Line, Location, Mapping, Profile, Sample, ValueType};

/// Maximum unpacked size of a profile that is read: ten times the heap profile of a large program.
const MAX_UNPACKED: u64 = 64 << 20;
/// Maximum number of list entries that are read.
const MAX_ENTRIES: usize = 2 << 20;
/// Maximum total text of functions and labels. A file can name the same long text many times.
const MAX_TEXT: usize = 256 << 20;

/// Reason why bytes are no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The gzip data are damaged.
    #[error("its compressed data are damaged: {0}")]
    Gzip(String),
    /// The profile exceeds a limit.
    #[error("it has more than is read of a profile")]
    TooLarge,
    /// The data are no such message.
    #[error("it is no profile: {0}")]
    Message(String),
    /// The profile refers to an entry that it does not have.
    #[error("it refers to a {0} that it does not have")]
    Missing(&'static str),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireProfile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<WireValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<WireSample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<WireMapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<WireLocation>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<WireFunction>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    string_table: Vec<Vec<u8>>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<WireValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct WireValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireSample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<WireLabel>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct WireLabel {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
    #[prost(int64, tag = "3")]
    number: i64,
    #[prost(int64, tag = "4")]
    unit: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct WireMapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    start: u64,
    #[prost(uint64, tag = "3")]
    limit: u64,
    #[prost(uint64, tag = "4")]
    offset: u64,
    #[prost(int64, tag = "5")]
    file: i64,
    #[prost(int64, tag = "6")]
    build_id: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireLocation {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<WireLine>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct WireLine {
    #[prost(uint64, tag = "1")]
    function: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct WireFunction {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    file: i64,
    #[prost(int64, tag = "5")]
    start_line: i64,
}

/// Texts of a profile, each once; the first is empty.
struct Texts<'p> {
    list: Vec<&'p str>,
    known: HashMap<&'p str, i64>,
}

impl<'p> Texts<'p> {
    fn index(&mut self, text: &'p str) -> i64 {
        *self.known.entry(text).or_insert_with(|| {
            self.list.push(text);
            i64::try_from(self.list.len() - 1).unwrap_or(0)
        })
    }
}

fn id(index: usize) -> u64 {
    index as u64 + 1
}

/// Writes a profile. The bytes depend only on the profile.
///
/// All mappings with names declare that files, lines and inlined calls are in the profile too, so
/// that no tool looks for the program.
pub fn write(profile: &Profile) -> Vec<u8> {
    let message = encode(profile).encode_to_vec();
    let mut gzip = GzEncoder::new(Vec::with_capacity(message.len() / 4), Compression::new(6));
    // Writing to memory cannot fail.
    let _written = gzip.write_all(&message);
    gzip.finish().unwrap_or_default()
}

fn encode(profile: &Profile) -> WireProfile {
    let mut texts = Texts { list: vec![""], known: HashMap::from([("", 0)]) };
    let types = profile.sample_types.iter();
    let sample_type: Vec<WireValueType> =
        types.map(|t| WireValueType { kind: texts.index(&t.kind), unit: texts.index(&t.unit) }).collect();
    let sample = profile
        .samples
        .iter()
        .map(|sample| WireSample {
            location_id: sample
                .stack
                .iter()
                .filter(|&&at| at < profile.locations.len())
                .map(|&at| id(at))
                .collect(),
            value: (0..sample_type.len()).map(|i| sample.values.get(i).copied().unwrap_or(0)).collect(),
            label: sample
                .labels
                .iter()
                .map(|label| {
                    let key = texts.index(&label.key);
                    match &label.value {
                        LabelValue::Text(text) => {
                            WireLabel { key, text: texts.index(text), number: 0, unit: 0 }
                        }
                        LabelValue::Number(number, unit) => {
                            WireLabel { key, text: 0, number: *number, unit: texts.index(unit) }
                        }
                    }
                })
                .collect(),
        })
        .collect();
    let mapping = profile
        .mappings
        .iter()
        .enumerate()
        .map(|(index, m)| WireMapping {
            id: id(index),
            start: m.start,
            limit: m.end,
            offset: m.offset,
            file: texts.index(&m.file),
            build_id: texts.index(&m.build_id),
            has_functions: m.symbolized,
            has_filenames: m.symbolized,
            has_line_numbers: m.symbolized,
            has_inline_frames: m.symbolized,
        })
        .collect();
    let line = |line: &Line| {
        (line.function < profile.functions.len())
            .then(|| WireLine { function: id(line.function), line: line.line.into() })
    };
    let location = profile
        .locations
        .iter()
        .enumerate()
        .map(|(index, l)| WireLocation {
            id: id(index),
            mapping: l.mapping.filter(|&m| m < profile.mappings.len()).map_or(0, id),
            address: l.address,
            line: l.lines.iter().filter_map(line).collect(),
        })
        .collect();
    let function = profile
        .functions
        .iter()
        .enumerate()
        .map(|(index, f)| WireFunction {
            id: id(index),
            name: texts.index(&f.name),
            system_name: texts.index(&f.system_name),
            file: texts.index(&f.file),
            start_line: f.start_line.into(),
        })
        .collect();
    let period_type = profile
        .period
        .as_ref()
        .map(|(t, _)| WireValueType { kind: texts.index(&t.kind), unit: texts.index(&t.unit) });
    let comment = profile.comments.iter().map(|text| texts.index(text)).collect();
    let default_sample_type =
        profile.sample_types.get(profile.default_sample_type).map_or(0, |t| texts.index(&t.kind));
    let nanoseconds = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    WireProfile {
        sample_type,
        sample,
        mapping,
        location,
        function,
        time_nanos: profile.time.duration_since(UNIX_EPOCH).map_or(0, nanoseconds),
        duration_nanos: profile.duration.map_or(0, nanoseconds),
        period_type,
        period: profile.period.as_ref().map_or(0, |(_, period)| *period),
        comment,
        default_sample_type,
        string_table: texts.list.iter().map(|t| t.as_bytes().to_vec()).collect(),
    }
}

/// Reads a profile of another program, in gzip or uncompressed.
///
/// # Errors
/// Returns [`DecodeError`] if the bytes are no profile, or exceed a limit.
pub fn read(bytes: &[u8]) -> Result<Profile, DecodeError> {
    let mut message = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut gzip = MultiGzDecoder::new(bytes).take(MAX_UNPACKED + 1);
        gzip.read_to_end(&mut message).map_err(|e| DecodeError::Gzip(e.to_string()))?;
    } else {
        message.extend_from_slice(bytes);
    }
    if message.len() as u64 > MAX_UNPACKED {
        return Err(DecodeError::TooLarge);
    }
    check_count(&message)?;
    let wire = WireProfile::decode(message.as_slice()).map_err(|e| DecodeError::Message(e.to_string()))?;
    drop(message);
    decode(&wire)
}

/// Checks the number of entries before decoding. An empty entry has two bytes, but takes a hundred
/// when decoded.
fn check_count(mut message: &[u8]) -> Result<(), DecodeError> {
    let wrong = |e: prost::DecodeError| DecodeError::Message(e.to_string());
    let mut entries = 0usize;
    while !message.is_empty() {
        let (tag, wire_type) = decode_key(&mut message).map_err(wrong)?;
        skip_field(wire_type, tag, &mut message, DecodeContext::default()).map_err(wrong)?;
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(DecodeError::TooLarge);
        }
    }
    Ok(())
}

/// Texts of a file that is read.
struct Table<'w> {
    list: &'w [Vec<u8>],
    room: usize,
}

impl Table<'_> {
    fn text(&mut self, index: i64) -> Result<String, DecodeError> {
        let found = usize::try_from(index).ok().and_then(|i| self.list.get(i));
        // A file without texts may leave the table out.
        let bytes = match found {
            Some(bytes) => bytes.as_slice(),
            None if index == 0 => &[],
            None => return Err(DecodeError::Missing("text")),
        };
        self.room = self.room.checked_sub(bytes.len()).ok_or(DecodeError::TooLarge)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn value_type(&mut self, of: &WireValueType) -> Result<ValueType, DecodeError> {
        Ok(ValueType { kind: self.text(of.kind)?, unit: self.text(of.unit)? })
    }
}

fn decode(wire: &WireProfile) -> Result<Profile, DecodeError> {
    let mut table = Table { list: &wire.string_table, room: MAX_TEXT };
    let by_id = |ids: &mut dyn Iterator<Item = u64>| -> HashMap<u64, usize> {
        ids.enumerate().map(|(index, id)| (id, index)).collect()
    };
    let mappings = by_id(&mut wire.mapping.iter().map(|m| m.id));
    let locations = by_id(&mut wire.location.iter().map(|l| l.id));
    let functions = by_id(&mut wire.function.iter().map(|f| f.id));
    let sample_types: Vec<ValueType> =
        wire.sample_type.iter().map(|t| table.value_type(t)).collect::<Result<_, _>>()?;
    let named = match wire.default_sample_type {
        0 => None,
        index => {
            let name = table.text(index)?;
            sample_types.iter().position(|t| t.kind == name)
        }
    };
    // As in pprof, the last sample type is the default if the file names none.
    let default_sample_type = named.unwrap_or(sample_types.len().saturating_sub(1));
    let mut samples = Vec::with_capacity(wire.sample.len());
    for sample in &wire.sample {
        let stack = sample.location_id.iter().map(|id| locations.get(id).copied());
        let mut labels = Vec::with_capacity(sample.label.len());
        for label in &sample.label {
            let value = match label.text {
                0 => LabelValue::Number(label.number, table.text(label.unit)?),
                text => LabelValue::Text(table.text(text)?),
            };
            labels.push(Label { key: table.text(label.key)?, value });
        }
        if sample.value.len() != sample_types.len() {
            return Err(DecodeError::Missing("value"));
        }
        samples.push(Sample {
            stack: stack.collect::<Option<_>>().ok_or(DecodeError::Missing("location"))?,
            values: sample.value.clone(),
            labels,
        });
    }
    let mut named_functions = Vec::with_capacity(wire.function.len());
    for function in &wire.function {
        named_functions.push(Function {
            name: table.text(function.name)?,
            system_name: table.text(function.system_name)?,
            file: table.text(function.file)?,
            start_line: u32::try_from(function.start_line).unwrap_or(0),
        });
    }
    let mut named_mappings = Vec::with_capacity(wire.mapping.len());
    for mapping in &wire.mapping {
        named_mappings.push(Mapping {
            start: mapping.start,
            end: mapping.limit,
            offset: mapping.offset,
            file: table.text(mapping.file)?,
            build_id: table.text(mapping.build_id)?,
            symbolized: mapping.has_functions,
        });
    }
    let mut places = Vec::with_capacity(wire.location.len());
    for location in &wire.location {
        let mut lines = Vec::with_capacity(location.line.len());
        for line in &location.line {
            let function = functions.get(&line.function).ok_or(DecodeError::Missing("function"))?;
            // Go writes an empty name for unknown functions.
            if named_functions.get(*function).is_some_and(|f| !f.name.is_empty()) {
                lines.push(Line { function: *function, line: u32::try_from(line.line).unwrap_or(0) });
            }
        }
        places.push(Location {
            mapping: mappings.get(&location.mapping).copied(),
            address: location.address,
            lines,
        });
    }
    let nanoseconds = |n: i64| Duration::from_nanos(u64::try_from(n).unwrap_or(0));
    let period = match &wire.period_type {
        Some(of) => Some((table.value_type(of)?, wire.period)),
        None => None,
    };
    let time = UNIX_EPOCH.checked_add(nanoseconds(wire.time_nanos)).unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(Profile {
        default_sample_type,
        sample_types,
        period,
        time,
        duration: (wire.duration_nanos > 0).then(|| nanoseconds(wire.duration_nanos)),
        mappings: named_mappings,
        locations: places,
        functions: named_functions,
        samples,
        comments: wire.comment.iter().map(|&index| table.text(index)).collect::<Result<_, _>>()?,
    })
}
