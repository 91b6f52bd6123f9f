//! Struct layouts of the Go runtime: offset and size of each field in `runtime.g` and related structs.
//!
//! A stripped program does not contain its layouts. They come from a table for the Go release ([`lookup`]),
//! or from the DWARF of the examined program itself ([`from_dwarf`]). Each table is made from the DWARF of a
//! program built with that release. A table that is not exact is a hypothesis; the caller checks it against
//! live memory.

pub(crate) mod dwarf;
mod wanted;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::OnceLock;

pub use dwarf::{DwarfError, from_dwarf};

use crate::experiments::Difference;
use crate::image::Arch;
use crate::tables::File;
#[cfg(debug_assertions)]
pub use crate::toolchain::withhold;
use crate::toolchain::{self};
pub use crate::toolchain::{Evidence, Release, releases};
use crate::version::GoVersion;

/// Position of a field in its struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Field {
    /// Offset from the start of the outermost struct, in bytes.
    pub offset: u64,
    /// Size of the field in bytes.
    pub size: u64,
}

/// Layout of a struct, or size of any other type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Struct {
    /// Size in bytes.
    pub size: u64,
    /// Fields by name; names of nested fields have dots.
    fields: Vec<(Cow<'static, str>, Field)>,
}

impl Struct {
    /// Returns the fields with their names. An inner struct appears itself, and with each of its fields
    /// (`sched`, `sched.pc`). A type of the atomic packages appears as one word, without inner fields.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Field)> {
        self.fields.iter().map(|(name, field)| (name.as_ref(), *field))
    }

    /// Returns the field `name`.
    pub fn field(&self, name: &str) -> Option<Field> {
        let i = self.fields.binary_search_by(|(n, _)| n.as_ref().cmp(name)).ok()?;
        self.fields.get(i).map(|(_, field)| *field)
    }

    fn parse(line: &'static str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let size = words.next()?.parse().ok()?;
        let mut fields = Vec::new();
        for word in words {
            let (name, place) = word.rsplit_once('@')?;
            let (offset, size) = place.split_once(':')?;
            let field = Field { offset: offset.parse().ok()?, size: size.parse().ok()? };
            fields.push((Cow::Borrowed(name), field));
        }
        fields.sort();
        Some(Struct { size, fields })
    }
}

impl PartialOrd for Field {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Field {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.offset, self.size).cmp(&(other.offset, other.size))
    }
}

/// Formats a struct as in the table files: `size name@offset:size …`, sorted by offset.
impl fmt::Display for Struct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields: Vec<_> = self.fields.iter().collect();
        fields.sort_by_key(|(name, field)| (field.offset, std::cmp::Reverse(field.size), name.as_ref()));
        write!(f, "{}", self.size)?;
        fields.iter().try_for_each(|(name, field)| write!(f, " {name}@{}:{}", field.offset, field.size))
    }
}

/// Struct of a table, parsed on first use. A table has about a hundred structs, but an answer needs few.
#[derive(Debug, Clone)]
enum Entry {
    Line(&'static str, OnceLock<Option<Struct>>),
    Struct(Struct),
}

impl Entry {
    fn line(line: &'static str) -> Self {
        Entry::Line(line, OnceLock::new())
    }

    /// Returns the struct. `None` if its line is damaged; no shipped table has such a line.
    fn get(&self) -> Option<&Struct> {
        match self {
            Entry::Line(line, parsed) => parsed.get_or_init(|| Struct::parse(line)).as_ref(),
            Entry::Struct(found) => Some(found),
        }
    }
}

/// Equality of the structs, whether their lines are parsed or not.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Entry {}

/// Layouts of one Go release or of one program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    structs: BTreeMap<Cow<'static, str>, Entry>,
    /// Variables whose type is in `structs`, by name, with the name of the type.
    variables: BTreeMap<Cow<'static, str>, Cow<'static, str>>,
    wait_reasons: Vec<Cow<'static, str>>,
    idle_in_synctest: Vec<u8>,
}

impl Table {
    /// Returns the layout of a type (`runtime.g`) or a variable. A variable has the layout of its type:
    /// `runtime.sched` has the type `runtime.schedt`, and the type of `runtime.work` can be without a name.
    /// Names are those of the release.
    pub fn get(&self, name: &str) -> Option<&Struct> {
        self.structs.get(name).or_else(|| self.structs.get(self.variables.get(name)?.as_ref()))?.get()
    }

    /// Returns a field: `field("runtime.g", "sched.pc")`. Strings and slices have the fields `str`/`array`,
    /// `len`, `cap`.
    pub fn field(&self, name: &str, field: &str) -> Option<Field> {
        self.get(name)?.field(field)
    }

    /// Size of a type or variable in bytes.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.get(name).map(|s| s.size)
    }

    /// Iterates over all types, and the variables with a type of their own, by name.
    pub fn structs(&self) -> impl Iterator<Item = (&str, &Struct)> {
        self.structs.iter().filter_map(|(name, entry)| Some((name.as_ref(), entry.get()?)))
    }

    /// Iterates over variables whose type is among [`Table::structs`], with the name of the type.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, of)| (name.as_ref(), of.as_ref()))
    }

    /// Texts of `runtime.waitReasonStrings`, by `g.waitreason`. Empty if the table was read from DWARF, which
    /// does not contain them.
    pub fn wait_reasons(&self) -> &[Cow<'static, str>] {
        &self.wait_reasons
    }

    /// Returns the same layouts with the wait reasons of `other`. A table from DWARF has none of its own.
    #[must_use]
    pub fn with_wait_reasons_of(self, other: &Table) -> Self {
        Table {
            wait_reasons: other.wait_reasons.clone(),
            idle_in_synctest: other.idle_in_synctest.clone(),
            ..self
        }
    }

    /// Returns the same layouts with wait reasons that were read from a process. The order of wait reasons
    /// can differ between releases. Reasons that count as idle in a bubble are recognised by their text.
    #[must_use]
    pub fn with_wait_reasons(self, reasons: Vec<String>) -> Self {
        let was_idle = |reason: &str| {
            self.wait_reasons
                .iter()
                .position(|r| r == reason)
                .is_some_and(|i| self.idle_in_synctest.iter().any(|&idle| usize::from(idle) == i))
        };
        let idle = reasons.iter().enumerate().filter(|(_, r)| was_idle(r));
        let idle_in_synctest = idle.filter_map(|(i, _)| u8::try_from(i).ok()).collect();
        let wait_reasons = reasons.into_iter().map(Cow::Owned).collect();
        Table { wait_reasons, idle_in_synctest, ..self }
    }

    /// Returns true if a goroutine with this wait reason counts as durably blocked in a synctest bubble
    /// (`runtime.isIdleInSynctest`, since 1.24). From 1.25 on, the goroutine's header in a traceback then
    /// contains `(durable)`.
    pub fn is_idle_in_synctest(&self, wait_reason: u8) -> bool {
        self.idle_in_synctest.contains(&wait_reason)
    }
}

impl Table {
    /// Applies the changes that an experiment makes.
    fn apply(&mut self, difference: &Difference<'static>) {
        for (name, line) in &difference.structs {
            match *line {
                "" => drop(self.structs.remove(*name)),
                line => drop(self.structs.insert(Cow::Borrowed(name), Entry::line(line))),
            }
        }
        for (name, of) in &difference.variables {
            match *of {
                "" => drop(self.variables.remove(*name)),
                of => drop(self.variables.insert(Cow::Borrowed(name), Cow::Borrowed(of))),
            }
        }
    }
}

/// Table and its evidence: the reason to use it for a version.
#[derive(Debug, Clone)]
pub struct FoundLayout {
    /// Layouts.
    pub table: Table,
    /// Evidence for the layouts.
    pub evidence: Evidence,
}

/// Returns the layouts for `version` on machine `arch`: from exactly this release, else from the nearest patch
/// of the same minor release, else from a neighbouring minor release. `None` if all known releases are too
/// far away, or the machine has no tables.
///
/// Wait reasons come from neighbours too; a code beyond the list is unknown.
pub fn lookup(arch: Arch, version: &GoVersion) -> Option<FoundLayout> {
    let sheet = toolchain::file(arch, version)?;
    let mut table = table(sheet.file);
    if let Some(difference) = &sheet.difference {
        table.apply(difference);
    }
    Some(FoundLayout { table, evidence: sheet.evidence })
}

/// Returns true if `version` is between two releases of its minor release that have tables, or is one of
/// them. The structs of `version` are then equal to those of one or the other.
pub fn is_bracketed(version: &GoVersion) -> bool {
    toolchain::is_bracketed(version)
}

/// Returns the `names` whose structs are equal in the nearest releases below and above `version`, of the same
/// minor release. A struct that is equal in both hardly differs in between.
pub(crate) fn steady<'n>(version: &GoVersion, names: &[&'n str]) -> HashSet<&'n str> {
    let tables = toolchain::bracket(version).map(|(a, b)| (table(a), table(b)));
    let steady = |name: &&str| {
        tables.as_ref().is_some_and(|(a, b)| a.get(name).is_some_and(|layout| b.get(name) == Some(layout)))
    };
    names.iter().copied().filter(steady).collect()
}

fn table(file: File) -> Table {
    let (structs, variables) = (file.structs(), file.variables());
    Table {
        structs: structs.iter().map(|(name, line)| (Cow::Borrowed(name), Entry::line(line))).collect(),
        variables: variables.iter().map(|(name, of)| (Cow::Borrowed(name), Cow::Borrowed(of))).collect(),
        wait_reasons: file.wait_reasons().map(Cow::Borrowed).collect(),
        idle_in_synctest: file.idle_in_synctest().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(release: Release) -> Table {
        let found = lookup(Arch::Amd64, &GoVersion::release(release.minor, release.patch)).unwrap();
        assert_eq!(found.evidence, Evidence::Exact);
        found.table
    }

    #[test]
    fn every_table_has_what_a_goroutine_dump_needs() {
        for release in releases() {
            let table = exact(release);
            let offset = |s: &str, f: &str| {
                table.field(s, f).unwrap_or_else(|| panic!("{release}: no {s}.{f}")).offset
            };
            assert_eq!(offset("runtime.g", "stack.lo"), 0, "{release}");
            assert_eq!(offset("runtime.g", "stack.hi"), 8, "{release}");
            assert_eq!(offset("runtime.m", "g0"), 0, "{release}");
            for field in
                ["m", "sched.sp", "sched.pc", "sched.bp", "syscallsp", "syscallpc", "atomicstatus", "goid"]
            {
                offset("runtime.g", field);
            }
            for field in
                ["waitsince", "waitreason", "lockedm", "gopc", "startpc", "ancestors", "labels", "_panic"]
            {
                offset("runtime.g", field);
            }
            for field in ["procid", "curg", "alllink", "gsignal", "vdsoSP", "vdsoPC", "lockedg", "id"] {
                offset("runtime.m", field);
            }
            offset("runtime.sched", "midle");
            offset("runtime.moduledata", "next");
            offset("runtime.memstats", "numgc");
            offset("runtime.gcController", "heapLive");
            offset("runtime.debug", "gctrace");
            assert_eq!(table.size("runtime.allgs"), Some(24), "{release}");
            assert_eq!(table.field("runtime.allgs", "len"), Some(Field { offset: 8, size: 8 }), "{release}");
            assert_eq!(table.size("runtime.gomaxprocs"), Some(4), "{release}");
            let reasons = table.wait_reasons();
            assert!(
                ["chan receive", "IO wait"].iter().all(|known| reasons.iter().any(|r| r == known)),
                "{release}: {reasons:?}"
            );
            assert_eq!(reasons.first().map(AsRef::as_ref), Some(""), "{release}");
        }
    }

    #[test]
    fn fields_lie_inside_their_struct() {
        for release in releases() {
            for (name, s) in exact(release).structs() {
                for (field, place) in s.fields() {
                    assert!(place.offset + place.size <= s.size, "{release}: {name}.{field}");
                }
            }
        }
    }

    #[test]
    fn durable_waits() {
        let table = exact(Release { minor: 25, patch: 0 });
        let code = |reason: &str| table.wait_reasons().iter().position(|r| *r == reason).unwrap() as u8;
        assert!(table.is_idle_in_synctest(code("chan receive (durable)")));
        assert!(!table.is_idle_in_synctest(code("IO wait")));
    }

    #[test]
    fn struct_lines() {
        let s = Struct::parse("24 array@0:8 len@8:8 cap@16:8").unwrap();
        assert_eq!(s.field("len"), Some(Field { offset: 8, size: 8 }));
        assert_eq!(s.field("le"), None);
        assert_eq!(s.to_string(), "24 array@0:8 len@8:8 cap@16:8");
        assert!(Struct::parse("24 len@").is_none());
        assert!(Struct::parse("").is_none());
    }
}
