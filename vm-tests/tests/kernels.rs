//! All sub-tests on this machine's kernel and on the distribution's, in machines under QEMU.
//!
//! What ran has to be what `docs/kernels.md` says, which `UPDATE_KERNELS=1` writes; see `suite::Options::from_environment` for what else can be set.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::Path;
use std::time::Instant;

use fixtures::repetition::say;
use vm_tests::outcome::Verdict;
use vm_tests::suite::{Options, run};
use vm_tests::table;

#[test]
fn sub_tests_on_each_kernel() {
    let test = std::env::current_exe().unwrap();
    // target/PROFILE/deps/kernels-0123
    let options = Options::from_environment(test.ancestors().nth(3).unwrap().join("vm"));
    let begin = Instant::now();
    let report = run(&options, &|kernel, outcome| {
        let missing = if outcome.verdict == Verdict::Skip { "NOT TESTED HERE: " } else { "" };
        say(&format!("{:5.1} s {kernel}: {missing}{outcome}", begin.elapsed().as_secs_f64()));
    })
    .unwrap_or_else(|error| panic!("{error}"));
    say(&format!("\n{}prepared in {:.1} s", table::overview(&report), report.prepared.as_secs_f64()));
    let failures: Vec<String> = report
        .runs
        .iter()
        .filter(|run| !run.failures.is_empty())
        .map(|run| format!("kernel {}:\n{}", run.kernel, run.failures.join("\n")))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    if !report.whole {
        say("docs/kernels.md is NOT COMPARED: not all ran");
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernels.md");
    if std::env::var_os("UPDATE_KERNELS").is_some() {
        std::fs::write(&path, table::page(&report)).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let (lasting, _) = page.split_once(table::END).unwrap_or_default();
    let update = "docs/kernels.md is of another run: UPDATE_KERNELS=1 scripts/vm-tests";
    assert!(
        lasting == table::lasting(&report),
        "{update}; it should begin with\n{}",
        table::lasting(&report)
    );
}
