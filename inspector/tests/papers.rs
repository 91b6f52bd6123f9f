//! What the papers name is there: files in backticks, and links between pages. Papers are the pages at the root and in `docs`, and
//! the chapters beside the code.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where code with chapters is.
const BESIDE_CODE: [&str; 3] = ["inspector/src", "symbols", "probe-ebpf"];
/// The page that leads to all chapters. What it names without a folder of the root is below the second.
const CONTENTS: (&str, &str) = ("docs/how-it-works.md", "inspector/src");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

/// The pages at the root and in `docs`, by their paths from the root.
fn general() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            pages.push(Path::new(folder).join(entry.unwrap().file_name()));
        }
    }
    pages.retain(|page| is_page(page));
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// The pages below a folder, by their paths from the root.
fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        // Links to other folders are not followed.
        if entry.file_type().unwrap().is_dir() {
            below(&path, found);
        } else if is_page(&path) {
            found.push(path);
        }
    }
}

/// The pages beside the code.
fn chapters() -> Vec<PathBuf> {
    let mut found = Vec::new();
    BESIDE_CODE.iter().for_each(|folder| below(Path::new(folder), &mut found));
    assert!(found.len() > 10, "{found:?}");
    found
}

fn pages() -> Vec<PathBuf> {
    general().into_iter().chain(chapters()).collect()
}

/// The text of a page outside of blocks of code.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(root().join(page)).unwrap();
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// What is in backticks, where it can be a path.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|code| !code.contains(char::is_whitespace))
}

/// Whether it is a path from the root to what is in the repository. What is to be added has a name in capital letters, or the number
/// of a release that is not there yet; what is built is in folders of its own.
fn is_from_root(code: &str) -> bool {
    let folders = ["docs", "fuzz", "inspector", "probe-ebpf", "scripts", "symbols", "tests", "vm-tests"];
    let is_below = |folder: &&str| code.strip_prefix(*folder).is_some_and(|rest| rest.starts_with('/'));
    let is_built = code.contains("/.build") || code.contains("/target/");
    folders.iter().any(is_below)
        && !is_built
        && !["NAME", "1.28", "*"].iter().any(|other| code.contains(other))
}

/// The files and folders of this repository that pages name by their paths from the root.
#[test]
fn named_files_exist() {
    let mut count = 0;
    for page in pages() {
        let text = prose(&page);
        let named: BTreeSet<&str> = code(&text).filter(|code| is_from_root(code)).collect();
        count += named.len();
        for path in named {
            assert!(root().join(path).exists(), "{} names {path}", page.display());
        }
    }
    assert!(count > 100, "{count}");
}

/// The files and folders that the text of a page names and that are neither below one of `folders` nor below the root. Of Go's own
/// source nothing is looked for.
fn missing(text: &str, folders: &[&Path]) -> Vec<String> {
    let endings = [".rs", ".c", ".h", ".o", ".md", "/"];
    let is_named = |code: &&str| endings.iter().any(|end| code.ends_with(end)) && !code.starts_with('/');
    let is_there = |code: &str| {
        let places = folders.iter().copied().chain([Path::new("")]);
        places.map(|folder| root().join(folder).join(code)).any(|path| path.exists())
    };
    code(text).filter(is_named).filter(|code| !is_there(code)).map(str::to_owned).collect()
}

#[test]
fn chapters_name_files_that_are_there() {
    for page in chapters() {
        let folder = page.parent().unwrap();
        assert_eq!(missing(&prose(&page), &[folder]), Vec::<String>::new(), "{}", page.display());
    }
    let (contents, folder) = CONTENTS;
    assert_eq!(missing(&prose(Path::new(contents)), &[Path::new(folder)]), Vec::<String>::new());
}

#[test]
fn a_name_of_nothing_is_found() {
    let text = "`pin.rs`, `gone.rs`, `gone/`, `inspector/src/stop.rs`, `runtime/proc.go`, `/proc/`, `a b.rs`";
    let folder = Path::new("inspector/src/process");
    assert_eq!(missing(text, &[folder]), ["gone.rs", "gone/"]);
}

/// The links in the text of a page that lead to this repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let all = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    all.map(|(link, _)| link).filter(|link| !link.contains("://"))
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
        for link in links(&prose(&page)) {
            count += 1;
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, a)| (file, Some(a)));
            let to = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(root().join(&to).exists(), "{}: {link}", page.display());
            if let Some(anchor) = anchor {
                assert!(anchors(&to).contains(anchor), "{}: {link}", page.display());
            }
        }
    }
    assert!(count > 60, "{count}");
}

#[test]
fn each_chapter_is_in_the_table_of_contents() {
    let (contents, _) = CONTENTS;
    let text = prose(Path::new(contents));
    let linked: BTreeSet<&str> = links(&text).filter_map(|link| link.strip_prefix("../")).collect();
    for chapter in chapters() {
        // What a package is says the page that is published with it.
        let of_package = BESIDE_CODE.iter().any(|folder| chapter.parent() == Some(Path::new(folder)));
        let name = chapter.to_str().unwrap();
        assert!(of_package || linked.contains(name), "{contents} does not lead to {name}");
    }
}
