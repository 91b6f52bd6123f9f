//! Rooms of the library use each other in one direction: a folder uses only those that are named here, by its `use` lines and paths.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "support/sources.rs"]
mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sources::sources;

/// What each folder of `src` may use of the others, the lowest first.
const ALLOWED: [(&str, &[&str]); 14] = [
    ("arch", &[]),
    ("stop", &["arch"]),
    ("memory", &[]),
    ("process", &["arch", "memory"]),
    ("agent", &["process"]),
    ("profile", &["process"]),
    ("runtime", &["arch", "memory", "process", "profile", "stop"]),
    ("native", &["arch", "memory", "process", "profile"]),
    ("change", &["arch", "memory", "process", "runtime", "stop"]),
    ("capture", &["arch", "memory", "native", "process", "profile", "runtime", "stop"]),
    ("report", &["agent", "capture", "change", "memory", "process", "profile", "runtime", "stop"]),
    (
        "operations",
        &["agent", "capture", "change", "memory", "native", "process", "profile", "report", "runtime"],
    ),
    // For other programs, which neither need the command line nor are needed by it.
    ("facade", &["capture", "operations", "process", "profile", "report", "runtime"]),
    ("cli", &["agent", "capture", "change", "operations", "process", "profile", "report", "runtime", "stop"]),
];

/// The folders that the text of a file names behind `crate::`.
fn used(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        // `gops_probe` is the library's name for others.
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        let list = rest.strip_prefix('{').and_then(top_level).unwrap_or_else(|| vec![rest]);
        for item in list {
            let name = item.trim_start();
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            found.insert(&name[..end]);
        }
    }
    found
}

/// The items of a list in braces, without those within them.
fn top_level(text: &str) -> Option<Vec<&str>> {
    let (mut depth, mut start, mut items) = (0usize, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&text[start..at]);
                return Some(items);
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    None
}

/// The uses that are not allowed, in the sources below a folder.
fn forbidden(src: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    sources(src, &mut |path, text| {
        let first = path.strip_prefix(src).unwrap().components().next().unwrap();
        let first = Path::new(first.as_os_str()).with_extension("");
        let Some((folder, allowed)) = ALLOWED.iter().find(|(folder, _)| Path::new(folder) == first) else {
            return;
        };
        for name in used(text) {
            let is_folder = ALLOWED.iter().any(|(other, _)| *other == name);
            if is_folder && name != *folder && !allowed.contains(&name) {
                wrong.push(format!("{} uses {name}", path.display()));
            }
        }
    });
    wrong
}

#[test]
fn folders_use_each_other_in_the_directions_that_are_allowed() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert_eq!(forbidden(&src), Vec::<String>::new());
    // Each is there, so that a folder with a new name is not left out.
    for (folder, _) in ALLOWED {
        assert!(src.join(folder).is_dir() || src.join(folder).with_extension("rs").is_file(), "{folder}");
    }
    for entry in fs::read_dir(&src).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let known = ALLOWED.iter().any(|(folder, _)| *folder == name);
        assert!(!entry.path().is_dir() || known, "{name} is not among the folders of this test");
    }
}

#[test]
fn a_use_against_them_is_found() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("runtime")).unwrap();
    let text = "use crate::{\n    Error,\n    cli::{args, output},\n    memory,\n};\nuse crate::report::stack::Cost;\n";
    fs::write(folder.path().join("runtime/mod.rs"), text).unwrap();
    let wrong = forbidden(folder.path());
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].ends_with("uses cli") && wrong[1].ends_with("uses report"), "{wrong:?}");
}
