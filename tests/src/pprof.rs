//! Profiles in pprof's format, written by a Go program itself or by us, in a common form to compare.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;
use inspector::profile::{LabelValue, Profile};

use crate::{Error, Result};

/// Returns the output of `go tool pprof` of a Go release for a file; `way` is an option such as `-top`.
///
/// # Errors
///
/// Returns an error if the tool fails or prints an error message: it needs no program file.
pub fn tool(release: &str, way: &str, file: &Path) -> Result<String> {
    let mut command = Command::new("go");
    command.env("GOTOOLCHAIN", format!("go{release}")).args(["tool", "pprof", way]).arg(file);
    let program = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::Start { program: program.clone(), source })?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() || stderr.contains("ailed") || stderr.contains("rror") {
        return Err(Error::Failed { program, stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Profile in a form that does not depend on the numbering of its lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plain {
    /// Kind and unit of each value, as `kind/unit`.
    pub sample_types: Vec<String>,
    /// Default sample type; empty if the file names none.
    pub default_sample_type: String,
    /// Sampling period, as `kind/unit=number`.
    pub period: String,
    /// Mappings: start, end, offset, file, build id, and true if all locations in it have names.
    pub mappings: Vec<(u64, u64, u64, String, String, bool)>,
    /// Rows, sorted.
    pub rows: Vec<Row>,
}

/// Sample of a profile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Locations, innermost first.
    pub stack: Vec<Place>,
    /// Values of the sample.
    pub values: Vec<i64>,
    /// Labels of the sample.
    pub labels: Vec<String>,
}

/// Location in a stack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Address of the location.
    pub address: u64,
    /// Start address of its mapping.
    pub mapping: Option<u64>,
    /// Lines as `name (system name) file:line start line`, the innermost inlined function first.
    pub lines: Vec<String>,
}

impl Row {
    /// Returns true if a frame's function name starts with `function`.
    #[must_use]
    pub fn passes(&self, function: &str) -> bool {
        self.stack.iter().flat_map(|place| &place.lines).any(|line| line.starts_with(function))
    }
}

/// Returns the rows that only one of two profiles has; equal rows are counted.
#[must_use]
pub fn difference(ours: &[Row], theirs: &[Row]) -> (Vec<Row>, Vec<Row>) {
    let mut counts: BTreeMap<&Row, (usize, usize)> = BTreeMap::new();
    ours.iter().for_each(|row| counts.entry(row).or_default().0 += 1);
    theirs.iter().for_each(|row| counts.entry(row).or_default().1 += 1);
    let (mut only_ours, mut only_theirs) = (Vec::new(), Vec::new());
    for (row, (a, b)) in counts {
        only_ours.extend(std::iter::repeat_n(row.clone(), a.saturating_sub(b)));
        only_theirs.extend(std::iter::repeat_n(row.clone(), b.saturating_sub(a)));
    }
    (only_ours, only_theirs)
}

fn line(name: &str, system: &str, file: &str, line: i64, start: i64) -> String {
    format!("{name} ({system}) {file}:{line} {start}")
}

impl From<&Profile> for Plain {
    fn from(profile: &Profile) -> Self {
        let value = |t: &inspector::profile::ValueType| format!("{}/{}", t.kind, t.unit);
        let place = |&index: &usize| {
            let location = &profile.locations[index];
            let lines = location.lines.iter().map(|l| {
                let function = &profile.functions[l.function];
                line(
                    &function.name,
                    &function.system_name,
                    &function.file,
                    l.line.into(),
                    function.start_line.into(),
                )
            });
            Place {
                address: location.address,
                mapping: location.mapping.map(|m| profile.mappings[m].start),
                lines: lines.collect(),
            }
        };
        let label = |l: &inspector::profile::Label| match &l.value {
            LabelValue::Text(text) => format!("{}={text}", l.key),
            LabelValue::Number(number, unit) => format!("{}={number}{unit}", l.key),
        };
        let row = |s: &inspector::profile::Sample| Row {
            stack: s.stack.iter().map(place).collect(),
            values: s.values.clone(),
            labels: s.labels.iter().map(label).collect(),
        };
        let mut rows: Vec<Row> = profile.samples.iter().map(row).collect();
        rows.sort();
        let mapping = |m: &inspector::profile::Mapping| {
            (m.start, m.end, m.offset, m.file.clone(), m.build_id.clone(), m.symbolized)
        };
        Plain {
            sample_types: profile.sample_types.iter().map(value).collect(),
            default_sample_type: profile.sample_types[profile.default_sample_type].kind.clone(),
            period: profile
                .period
                .as_ref()
                .map(|(of, number)| format!("{}={number}", value(of)))
                .unwrap_or_default(),
            mappings: profile.mappings.iter().map(mapping).collect(),
            rows,
        }
    }
}

/// Parses a file that `runtime/pprof` wrote; `None` if it is not one.
#[must_use]
pub fn parse(file: &[u8]) -> Option<Plain> {
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).ok()?;
    let top = fields(&bytes)?;
    let strings: Vec<String> =
        top.iter().filter(|f| f.number == 6).map(|f| String::from_utf8_lossy(f.bytes).into_owned()).collect();
    let text = |index: u64| strings.get(usize::try_from(index).ok()?).cloned();
    let value_type = |bytes: &[u8]| {
        let fields = fields(bytes)?;
        Some(format!("{}/{}", text(scalar(&fields, 1))?, text(scalar(&fields, 2))?))
    };
    let mut functions = BTreeMap::new();
    let mut mappings = BTreeMap::new();
    for field in &top {
        let inner = if matches!(field.number, 3 | 5) { fields(field.bytes)? } else { continue };
        let get = |number| scalar(&inner, number);
        if field.number == 5 {
            functions.insert(get(1), (text(get(2))?, text(get(3))?, text(get(4))?, get(5).cast_signed()));
        } else {
            mappings.insert(get(1), (get(2), get(3), get(4), text(get(5))?, text(get(6))?, get(7) == 1));
        }
    }
    let mut locations = BTreeMap::new();
    for field in top.iter().filter(|f| f.number == 4) {
        let inner = fields(field.bytes)?;
        let mut lines = Vec::new();
        for l in inner.iter().filter(|f| f.number == 4) {
            let l = fields(l.bytes)?;
            let (name, system, file, start) = functions.get(&scalar(&l, 1))?;
            // A function without a name has an empty one here, and no line in our model.
            if !name.is_empty() {
                lines.push(line(name, system, file, scalar(&l, 2).cast_signed(), *start));
            }
        }
        let mapping = mappings.get(&scalar(&inner, 2)).map(|m| m.0);
        locations.insert(scalar(&inner, 1), Place { address: scalar(&inner, 3), mapping, lines });
    }
    let mut rows = Vec::new();
    for field in top.iter().filter(|f| f.number == 2) {
        let inner = fields(field.bytes)?;
        let stack =
            repeated(&inner, 1)?.iter().map(|id| locations.get(id).cloned()).collect::<Option<_>>()?;
        let values = repeated(&inner, 2)?.into_iter().map(u64::cast_signed).collect();
        let mut labels = Vec::new();
        for label in inner.iter().filter(|f| f.number == 3) {
            let label = fields(label.bytes)?;
            let (key, value) = (text(scalar(&label, 1))?, text(scalar(&label, 2))?);
            let number = scalar(&label, 3).cast_signed();
            labels.push(if value.is_empty() { format!("{key}={number}") } else { format!("{key}={value}") });
        }
        rows.push(Row { stack, values, labels });
    }
    rows.sort();
    let period_type = top.iter().find(|f| f.number == 11).and_then(|f| value_type(f.bytes));
    Some(Plain {
        sample_types: top
            .iter()
            .filter(|f| f.number == 1)
            .map(|f| value_type(f.bytes))
            .collect::<Option<_>>()?,
        default_sample_type: text(scalar(&top, 14))?,
        period: format!("{}={}", period_type?, scalar(&top, 12).cast_signed()),
        mappings: mappings.into_values().collect(),
        rows,
    })
}

/// Field of a message in the encoding of protocol buffers.
struct Field<'a> {
    number: u64,
    scalar: u64,
    bytes: &'a [u8],
}

fn fields(bytes: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut rest = bytes;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let (scalar, bytes): (u64, &[u8]) = match key & 7 {
            0 => (varint(&mut rest)?, &[]),
            2 => {
                let len = usize::try_from(varint(&mut rest)?).ok()?;
                let (bytes, tail) = rest.split_at_checked(len)?;
                rest = tail;
                (0, bytes)
            }
            _ => return None,
        };
        fields.push(Field { number: key >> 3, scalar, bytes });
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn scalar(fields: &[Field<'_>], number: u64) -> u64 {
    fields.iter().find(|f| f.number == number).map_or(0, |f| f.scalar)
}

/// Returns a repeated number, packed or not.
fn repeated(fields: &[Field<'_>], number: u64) -> Option<Vec<u64>> {
    let mut values = Vec::new();
    for field in fields.iter().filter(|f| f.number == number) {
        let mut rest = field.bytes;
        if rest.is_empty() {
            values.push(field.scalar);
        }
        while !rest.is_empty() {
            values.push(varint(&mut rest)?);
        }
    }
    Some(values)
}
