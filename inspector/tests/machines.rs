//! What depends on a machine is in folders `arch`, and what depends on a release of Go in its facts: the code around them asks.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "support/sources.rs"]
mod sources;

use std::path::{Path, PathBuf};

use sources::sources;

/// What only folders `arch` name: decoders, registers, and what tells the host when it is compiled.
const OF_MACHINES: [&str; 34] = [
    "iced_x86",
    "x86_64",
    "aarch64",
    "target_arch",
    "is_x86_feature_detected",
    "_rdtsc",
    "getregs",
    "user_regs_struct",
    "rip",
    "rsp",
    "rbp",
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "fs_base",
    "gs_base",
    "orig_rax",
    "RIP",
    "RSP",
    "RBP",
    "RBX",
    "x28",
    "x29",
];

/// The filter of system calls has the numbers of each machine, and denies those of a second way to call on one.
const WITH_MACHINES: [&str; 1] = ["inspector/src/cli/confinement.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The text without its tests and comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn identifiers(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// What a source outside of the folders `arch` names or assumes of a machine.
fn of_machines(code: &str) -> Vec<String> {
    let named = identifiers(code).filter(|word| {
        OF_MACHINES.contains(word) || word.starts_with("R_X86_64_") || word.starts_with("R_AARCH64_")
    });
    let mut found: Vec<String> = named.map(str::to_owned).collect();
    // The end of the address space, and the size of a page.
    let spaceless: String = code.split_whitespace().collect();
    for assumed in ["1<<47", "PAGE:u64=4096", "PAGE:usize=4096"] {
        found.extend(spaceless.contains(assumed).then(|| assumed.to_owned()));
    }
    found
}

/// Comparisons of a minor release with a number.
fn of_releases(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("minor") {
        let rest = code[at + "minor".len()..].trim_start_matches("()").trim_start();
        let operator = ["<=", ">=", "==", "!=", "<", ">"].iter().find_map(|o| rest.strip_prefix(o));
        if operator.is_some_and(|rest| rest.trim_start().starts_with(|c: char| c.is_ascii_digit())) {
            found.push(code[at..].lines().next().unwrap_or_default().to_owned());
        }
    }
    found
}

#[test]
fn machines_are_known_in_their_folders_alone() {
    let (mut wrong, mut inside) = (Vec::new(), 0);
    for folder in ["inspector/src", "symbols/src"] {
        sources(&root().join(folder), &mut |path, text| {
            let code = code(text);
            let name = path.strip_prefix(root()).unwrap();
            let is_arch = name.components().any(|part| part.as_os_str() == "arch");
            inside += usize::from(is_arch && !of_machines(&code).is_empty());
            if !is_arch && !WITH_MACHINES.iter().any(|known| name == Path::new(known)) {
                wrong
                    .extend(of_machines(&code).into_iter().map(|what| format!("{}: {what}", name.display())));
            }
        });
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(inside > 3, "the folders themselves are looked at: {inside}");
}

#[test]
fn releases_are_compared_in_their_facts_alone() {
    let mut wrong = Vec::new();
    sources(&root().join("inspector/src"), &mut |path, text| {
        if !path.ends_with("runtime/release/facts.rs") {
            wrong.extend(
                of_releases(&code(text)).into_iter().map(|what| format!("{}: {what}", path.display())),
            );
        }
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn what_is_against_it_is_found() {
    let text = "fn f(r: Regs) -> u64 {\n    // rsp is fine here\n    r.rsp + (1 << 47)\n}\n";
    assert_eq!(of_machines(&code(text)), ["rsp", "1<<47"]);
    let text = "if view.release.minor() >= 28 {}\n#[cfg(test)]\nmod tests {\n if minor < 3 {}\n}\n";
    assert_eq!(of_releases(&code(text)), ["minor() >= 28 {}"]);
}
