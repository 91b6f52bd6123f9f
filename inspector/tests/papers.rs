//! What the papers name is there: files in backticks, and links between pages.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The pages at the root and in `docs`, by their paths from the root.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                pages.push(Path::new(folder).join(name));
            }
        }
    }
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// The text of a page outside of blocks of code.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(root().join(page)).unwrap();
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// The files and folders of this repository that `docs/adding.md` names.
#[test]
fn named_files_exist() {
    let text = prose(Path::new("docs/adding.md"));
    let folders = ["docs", "fuzz", "inspector", "probe-ebpf", "scripts", "symbols", "tests", "vm-tests"];
    let named: BTreeSet<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| folders.iter().any(|f| code.strip_prefix(f).is_some_and(|rest| rest.starts_with('/'))))
        // What is to be added has a name in capital letters, or the number of a release that is not there yet.
        .filter(|code| !code.contains(' ') && !code.contains("NAME") && !code.contains("1.28"))
        .collect();
    assert!(named.len() > 50, "{named:?}");
    for path in named {
        assert!(root().join(path).exists(), "docs/adding.md names {path}");
    }
}

/// Headings as pages are linked to: small letters, dashes for spaces, nothing else.
fn anchors(page: &Path) -> BTreeSet<String> {
    prose(page)
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for page in pages() {
        let text = prose(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, a)| (file, Some(a)));
            let to = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(root().join(&to).exists(), "{}: {link}", page.display());
            if let Some(anchor) = anchor {
                assert!(anchors(&to).contains(anchor), "{}: {link}", page.display());
            }
        }
    }
    assert!(count > 30, "{count}");
}
