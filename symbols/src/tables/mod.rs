//! Generated tables inside the program. The build script packs them from `data/amd64/*.json`. They are read
//! in place, so a look-up only costs what it reads.
//!
//! The packed bytes begin with little-endian words of four bytes:
//!
//! - Header: numbers of releases, of candidates, of words in all lists, and of texts.
//! - Record for each release and candidate: minor and patch (or name), then the start of each of its lists.
//! - Lists, each after its length.
//! - Offsets of the ends of the texts, after a zero.
//!
//! The texts follow. The number of a text identifies it.

#[cfg(test)]
mod pack;

use std::collections::{BTreeMap, btree_map};
use std::sync::LazyLock;

/// Number of lists of a table file: structs, variables, wait reasons, idle wait reasons, and two maps for
/// each of eight ways to compile.
const SECTIONS: usize = 20;
const RECORD: usize = 2 + SECTIONS;

/// Indices of the lists in a table file. Each way to compile has two lists from `RECIPES` on.
mod section {
    pub(super) const STRUCTS: usize = 0;
    pub(super) const VARIABLES: usize = 1;
    pub(super) const WAIT_REASONS: usize = 2;
    pub(super) const IDLE: usize = 3;
    pub(super) const RECIPES: usize = 4;
}

static BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tables.bin"));
static TABLES: LazyLock<Tables<'static>> = LazyLock::new(|| Tables::new(BYTES).unwrap_or_default());

/// Parts of the packed bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Tables<'a> {
    releases: usize,
    candidates: usize,
    records: &'a [u8],
    lists: &'a [u8],
    ends: &'a [u8],
    texts: &'a [u8],
}

fn word(bytes: &[u8], index: usize) -> Option<usize> {
    let at = index.checked_mul(4)?;
    let bytes = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

impl<'a> Tables<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let [releases, candidates, words, texts] =
            [word(bytes, 0)?, word(bytes, 1)?, word(bytes, 2)?, word(bytes, 3)?];
        let rest = bytes.get(16..)?;
        let records = releases.checked_add(candidates)?.checked_mul(4 * RECORD)?;
        let (records, rest) = rest.split_at_checked(records)?;
        let (lists, rest) = rest.split_at_checked(words.checked_mul(4)?)?;
        let (ends, texts) = rest.split_at_checked(texts.checked_add(1)?.checked_mul(4)?)?;
        Some(Tables { releases, candidates, records, lists, ends, texts })
    }

    fn text_bytes(&self, id: usize) -> Option<&'a [u8]> {
        self.texts.get(word(self.ends, id)?..word(self.ends, id + 1)?)
    }

    fn text(&self, id: usize) -> Option<&'a str> {
        std::str::from_utf8(self.text_bytes(id)?).ok()
    }

    /// Returns the words of a list whose items have `size` words each.
    fn list(&self, file: File, section: usize, size: usize) -> &'a [u8] {
        let list = || {
            let record = self.records.get(4 * RECORD * file.0..)?;
            let at = word(record, 2 + section)?;
            let count = word(self.lists, at)?;
            let start = 4 * (at + 1);
            self.lists.get(start..start + 4 * size * count)
        };
        list().unwrap_or_default()
    }

    fn map(&self, file: File, section: usize) -> Map<'a> {
        Map::Packed(Packed { tables: *self, words: self.list(file, section, 2) })
    }
}

/// Table file, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct File(usize);

/// Iterates over the files of releases as (minor, patch, file), ascending.
pub(crate) fn releases() -> impl Iterator<Item = (u32, u32, File)> {
    (0..TABLES.releases).filter_map(|number| {
        let at = RECORD * number;
        let part = |index| u32::try_from(word(TABLES.records, at + index)?).ok();
        Some((part(0)?, part(1)?, File(number)))
    })
}

/// Iterates over the files of candidates and betas as (minor, name such as `rc1`, file), ascending.
pub(crate) fn candidates() -> impl Iterator<Item = (u32, &'static str, File)> {
    (TABLES.releases..TABLES.releases + TABLES.candidates).filter_map(|number| {
        let at = RECORD * number;
        let minor = u32::try_from(word(TABLES.records, at)?).ok()?;
        Some((minor, TABLES.text(word(TABLES.records, at + 1)?)?, File(number)))
    })
}

impl File {
    /// Lines of structs, by name.
    pub(crate) fn structs(self) -> Map<'static> {
        TABLES.map(self, section::STRUCTS)
    }

    /// Type names of variables, by variable.
    pub(crate) fn variables(self) -> Map<'static> {
        TABLES.map(self, section::VARIABLES)
    }

    /// Texts of `runtime.waitReasonStrings`.
    pub(crate) fn wait_reasons(self) -> impl Iterator<Item = &'static str> {
        let list = TABLES.list(self, section::WAIT_REASONS, 1);
        (0..list.len() / 4).map(|i| word(list, i).and_then(|id| TABLES.text(id)).unwrap_or_default())
    }

    /// Codes of the wait reasons in `runtime.isIdleInSynctest`.
    pub(crate) fn idle_in_synctest(self) -> impl Iterator<Item = u8> {
        let list = TABLES.list(self, section::IDLE, 1);
        (0..list.len() / 4).filter_map(|i| u8::try_from(word(list, i)?).ok())
    }

    /// Returns shapes of functions and recipes of variables for one way to compile. `way` is an index of
    /// `pack::WAYS`.
    pub(crate) fn recipes(self, way: usize) -> (Map<'static>, Map<'static>) {
        let at = section::RECIPES + 2 * way;
        (TABLES.map(self, at), TABLES.map(self, at + 1))
    }
}

/// Map from names to lines.
#[derive(Debug, Clone)]
pub(crate) enum Map<'a> {
    /// Packed map inside the program.
    Packed(Packed<'a>),
    /// Map that was read from a file, or changed.
    Tree(BTreeMap<&'a str, &'a str>),
}

impl Default for Map<'_> {
    fn default() -> Self {
        Map::Tree(BTreeMap::new())
    }
}

#[cfg(feature = "generate")]
impl<'de: 'a, 'a> serde::Deserialize<'de> for Map<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Map::Tree)
    }
}

/// Packed map, read in place. See [`Map`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed<'a> {
    tables: Tables<'a>,
    words: &'a [u8],
}

impl<'a> Packed<'a> {
    fn len(&self) -> usize {
        self.words.len() / 8
    }

    fn entry(&self, index: usize) -> Option<(&'a str, &'a str)> {
        let text = |at| self.tables.text(word(self.words, at)?);
        Some((text(2 * index)?, text(2 * index + 1)?))
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let found = self.tables.text_bytes(word(self.words, 2 * middle)?)?;
            match found.cmp(key.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return self.tables.text(word(self.words, 2 * middle + 1)?),
            }
        }
        None
    }
}

impl<'a> Map<'a> {
    /// Returns the line with the name `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        match self {
            Map::Packed(packed) => packed.get(key),
            Map::Tree(tree) => tree.get(key).copied(),
        }
    }

    /// Iterates over all lines, by name.
    pub(crate) fn iter(&self) -> Entries<'_, 'a> {
        match self {
            Map::Packed(packed) => Entries::Packed(packed, 0),
            Map::Tree(tree) => Entries::Tree(tree.iter()),
        }
    }

    /// Applies `changes`: replaces or adds lines, and removes lines whose change is empty.
    pub(crate) fn change(&mut self, changes: &BTreeMap<&'a str, &'a str>) {
        let mut tree: BTreeMap<&'a str, &'a str> = self.iter().collect();
        tree.extend(changes);
        tree.retain(|_, line| !line.is_empty());
        *self = Map::Tree(tree);
    }
}

/// Iterator over the lines of a [`Map`].
#[derive(Debug)]
pub(crate) enum Entries<'m, 'a> {
    Packed(&'m Packed<'a>, usize),
    Tree(btree_map::Iter<'m, &'a str, &'a str>),
}

impl<'a> Iterator for Entries<'_, 'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Entries::Packed(packed, next) => {
                let entry = packed.entry(*next)?;
                *next += 1;
                Some(entry)
            }
            Entries::Tree(tree) => tree.next().map(|(key, line)| (*key, *line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const RELEASES: &[(u32, u32, &str)] = include!("../../data/amd64/index.rs");
    const CANDIDATES: &[(u32, &str, &str)] = include!("../../data/amd64/candidates.rs");

    fn same(name: &str, map: &Map<'_>, value: Option<&Value>) {
        let empty = serde_json::Map::new();
        let object = value.map_or(&empty, |v| v.as_object().unwrap());
        let packed: Vec<(&str, &str)> = map.iter().collect();
        assert!(packed.is_sorted(), "{name}");
        assert_eq!(packed.len(), object.len(), "{name}");
        for (key, line) in object {
            assert_eq!(map.get(key), line.as_str(), "{name}: {key}");
        }
        assert_eq!(map.get("no such name"), None);
        assert_eq!(map.get(""), None);
    }

    #[test]
    fn what_is_packed_is_what_the_files_say() {
        let packed = releases().map(|(minor, patch, file)| (format!("{minor}.{patch}"), file));
        let packed = packed.chain(candidates().map(|(minor, pre, file)| (format!("{minor}{pre}"), file)));
        let files = RELEASES.iter().map(|f| (format!("{}.{}", f.0, f.1), f.2));
        let files: Vec<_> =
            files.chain(CANDIDATES.iter().map(|f| (format!("{}{}", f.0, f.1), f.2))).collect();
        let packed: Vec<_> = packed.collect();
        assert_eq!(packed.len(), files.len());
        for ((name, file), (of, text)) in packed.into_iter().zip(files) {
            assert_eq!(name, of);
            let json: Value = serde_json::from_str(text).unwrap();
            same(&name, &file.structs(), json.get("structs"));
            same(&name, &file.variables(), json.get("variables"));
            let reasons: Vec<&str> = file.wait_reasons().collect();
            assert_eq!(serde_json::to_value(reasons).unwrap(), json["wait_reasons"], "{name}");
            let idle: Vec<u8> = file.idle_in_synctest().collect();
            assert_eq!(serde_json::to_value(idle).unwrap(), json["idle_in_synctest"], "{name}");
            for (way, called) in pack::WAYS.iter().enumerate() {
                let (functions, variables) = file.recipes(way);
                let set = json["recipes"].get(called);
                same(&name, &functions, set.and_then(|set| set.get("functions")));
                same(&name, &variables, set.and_then(|set| set.get("variables")));
            }
        }
    }

    #[test]
    fn the_packer_is_the_one_that_packed() {
        assert_eq!(SECTIONS, section::RECIPES + 2 * pack::WAYS.len());
        assert_eq!(pack::pack(RELEASES, CANDIDATES).unwrap(), BYTES);
        assert!(pack::pack(&[(1, 2, "{}")], &[]).unwrap_err().starts_with("go1.1.2: no structs"));
    }

    #[test]
    fn damaged_bytes_are_no_tables() {
        for len in (0..BYTES.len()).step_by(997) {
            let _ = Tables::new(&BYTES[..len]).map(|tables| tables.map(File(3), 0).iter().count());
        }
    }
}
