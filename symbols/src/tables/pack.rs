//! Writer of the packed tables. Texts and lists that several releases share are stored once. See [the
//! reader](super) for the format. The build script contains this module too, so it uses nothing of the crate.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Ways to compile that have recipes, in the order of the packed lists.
pub(crate) const WAYS: [&str; 8] =
    ["optimised", "unoptimised", "pie", "inlined_more", "race", "profiled", "cover", "v3"];

type Outcome<T> = Result<T, String>;

#[derive(Default)]
struct Packer {
    strings: BTreeMap<String, u32>,
    /// Texts, in the order of their numbers.
    order: Vec<String>,
    sections: Vec<u32>,
    /// Index in `sections` of each known list.
    known: BTreeMap<Vec<u32>, u32>,
}

fn number(n: usize) -> Outcome<u32> {
    u32::try_from(n).map_err(|_| format!("{n} is too large"))
}

impl Packer {
    fn string(&mut self, text: &str) -> Outcome<u32> {
        if let Some(&known) = self.strings.get(text) {
            return Ok(known);
        }
        let id = number(self.order.len())?;
        self.strings.insert(text.to_owned(), id);
        self.order.push(text.to_owned());
        Ok(id)
    }

    /// Adds a list of `count` items, with its words. Returns its index; an equal list is stored once.
    fn section(&mut self, count: usize, words: Vec<u32>) -> Outcome<u32> {
        let mut list = vec![number(count)?];
        list.extend(words);
        if let Some(&known) = self.known.get(&list) {
            return Ok(known);
        }
        let at = number(self.sections.len())?;
        self.sections.extend(&list);
        self.known.insert(list, at);
        Ok(at)
    }

    fn map(&mut self, map: &Map<String, Value>) -> Outcome<u32> {
        let mut entries: Vec<(&str, &str)> = Vec::new();
        for (key, value) in map {
            entries.push((key, value.as_str().ok_or_else(|| format!("{key}: no text"))?));
        }
        entries.sort_unstable();
        let mut words = Vec::new();
        for (key, value) in &entries {
            words.extend([self.string(key)?, self.string(value)?]);
        }
        self.section(entries.len(), words)
    }

    fn file(&mut self, text: &str) -> Outcome<Vec<u32>> {
        let file: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let object = |value: &'_ Value, name: &str| {
            value.get(name).and_then(Value::as_object).cloned().ok_or_else(|| format!("no {name}"))
        };
        let list =
            |name: &str| file.get(name).and_then(Value::as_array).ok_or_else(|| format!("no list {name}"));
        let mut sections =
            vec![self.map(&object(&file, "structs")?)?, self.map(&object(&file, "variables")?)?];
        let mut reasons = Vec::new();
        for reason in list("wait_reasons")? {
            reasons.push(self.string(reason.as_str().ok_or("a wait reason is no text")?)?);
        }
        sections.push(self.section(reasons.len(), reasons)?);
        let mut idle = Vec::new();
        for code in list("idle_in_synctest")? {
            let code = code.as_u64().and_then(|code| u8::try_from(code).ok());
            idle.push(u32::from(code.ok_or("the code of a wait reason is none")?));
        }
        sections.push(self.section(idle.len(), idle)?);
        let recipes = object(&file, "recipes")?;
        if let Some(unknown) = recipes.keys().find(|way| !WAYS.contains(&way.as_str())) {
            return Err(format!("{unknown}: not known how that is compiled"));
        }
        for way in WAYS {
            for name in ["functions", "variables"] {
                let map = recipes.get(way).map(|set| object(set, name)).transpose()?;
                sections.push(self.map(&map.unwrap_or_default())?);
            }
        }
        Ok(sections)
    }
}

/// Packs the texts of table files. Releases are sorted by minor and patch, candidates by minor and name, both
/// ascending.
pub(crate) fn pack(releases: &[(u32, u32, &str)], candidates: &[(u32, &str, &str)]) -> Outcome<Vec<u8>> {
    let mut packer = Packer::default();
    let mut records = Vec::new();
    for &(minor, patch, text) in releases {
        records.extend([minor, patch]);
        records.extend(packer.file(text).map_err(|e| format!("go1.{minor}.{patch}: {e}"))?);
    }
    for &(minor, pre, text) in candidates {
        records.extend([minor, packer.string(pre)?]);
        records.extend(packer.file(text).map_err(|e| format!("go1.{minor}{pre}: {e}"))?);
    }
    let sizes = [releases.len(), candidates.len(), packer.sections.len(), packer.order.len()];
    let mut words = sizes.into_iter().map(number).collect::<Outcome<Vec<u32>>>()?;
    words.extend(records);
    words.extend(packer.sections);
    let (mut end, mut texts) = (0, Vec::new());
    words.push(0);
    for text in &packer.order {
        end += text.len();
        words.push(number(end)?);
        texts.extend_from_slice(text.as_bytes());
    }
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(texts);
    Ok(bytes)
}
