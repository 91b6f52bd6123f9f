//! What runs on the kernel that is tested.
//!
//! A further sub-test is a function and its line in [`SUBTESTS`].

mod answers;
mod capabilities;
pub mod identity;
pub mod init;
mod loaders;
mod machine;
mod sampling;
pub mod targets;
mod yama;

use std::io::{self, Write};

pub use identity::Identity;
pub use machine::Machine;

use crate::outcome::{Outcome, Verdict};

/// The runner's first word on a console.
pub const BEGUN: &str = "SUB-TESTS BEGIN";

/// Its last.
pub const DONE: &str = "SUB-TESTS DONE";

/// The variable with the names of sub-tests, where not all are wanted.
pub const ONLY: &str = "GOPS_PROBE_VM_ONLY";

/// The sub-tests with these names (separated by commas), or all, in their order.
#[must_use]
pub fn selected(only: Option<&str>) -> Vec<&'static SubTest> {
    let wanted = |name: &str| only.is_none_or(|names| names.split(',').any(|wanted| wanted == name));
    SUBTESTS.iter().filter(|subtest| wanted(subtest.name)).collect()
}

/// What was not as it should be.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How a sub-test ended that did not fail.
#[derive(Debug)]
pub enum Done {
    /// All was as it should be; with figures.
    Passed(String),
    /// It did not run, because the machine lacks this.
    Lacking(String),
}

/// One question to a kernel.
#[derive(Debug)]
pub struct SubTest {
    /// A word for consoles and tables.
    pub name: &'static str,
    /// What is tested, for tables.
    pub what: &'static str,
    run: fn(&Machine) -> Result<Done, Failure>,
}

/// All sub-tests, in their order. What changes the machine for good comes last.
pub const SUBTESTS: &[SubTest] = &[
    SubTest { name: "kernel", what: "what it is and has", run: init::kernel },
    SubTest { name: "list", what: "`list` finds each target", run: answers::list },
    SubTest { name: "version", what: "`version` says what built it", run: answers::version },
    SubTest { name: "process", what: "`process` against /proc", run: answers::process },
    SubTest { name: "tree", what: "`tree` has each target below its parent", run: answers::tree },
    SubTest { name: "stack", what: "`stack` against the target's own `runtime.Stack`", run: answers::stack },
    SubTest {
        name: "stack-no-pause",
        what: "`stack --no-pause` against the same",
        run: answers::stack_no_pause,
    },
    SubTest {
        name: "memstats",
        what: "`memstats` against the target's own `runtime.ReadMemStats`",
        run: answers::memstats,
    },
    SubTest { name: "gc", what: "`gc` makes the target collect, as it says itself", run: answers::gc },
    SubTest {
        name: "pprof-cpu",
        what: "`pprof-cpu` by BPF, by perf events and by stops: the functions that compute",
        run: sampling::modes,
    },
    SubTest {
        name: "pprof-cpu-needs",
        what: "`pprof-cpu` with the capabilities that it declares, and with one fewer: which way it falls back, and why",
        run: sampling::needs,
    },
    SubTest {
        name: "loaders",
        what: "CPU samples with each loader of BPF programs: the functions that compute, and nothing is left",
        run: loaders::each_has_the_shares,
    },
    SubTest {
        name: "places",
        what: "one BPF program at many places of a program (`uprobe_multi`): each call is seen, or refused before 6.6",
        run: loaders::places,
    },
    SubTest {
        name: "look-needs",
        what: "`list`, `tree`, `process`, `version`, `binary` with what they declare to need, and with less",
        run: capabilities::look,
    },
    SubTest {
        name: "memory-needs",
        what: "`stack`, `memstats`, `stats`, `heap`, `pprof-...` with CAP_SYS_PTRACE and without",
        run: capabilities::memory,
    },
    SubTest {
        name: "write-needs",
        what: "`gc`, `setgc`, `setmemlimit` with CAP_SYS_PTRACE and without",
        run: capabilities::write,
    },
    SubTest {
        name: "serve-needs",
        what: "`serve` with CAP_SYS_PTRACE and without",
        run: capabilities::serve,
    },
    SubTest {
        name: "unknown-user",
        what: "a user who is in no list of users, without an environment",
        run: capabilities::unknown_user,
    },
    SubTest { name: "yama-0", what: "Yama allows the same user", run: |machine| yama::scope(machine, 0) },
    SubTest { name: "yama-1", what: "Yama allows ancestors", run: |machine| yama::scope(machine, 1) },
    SubTest { name: "yama-2", what: "Yama allows CAP_SYS_PTRACE", run: |machine| yama::scope(machine, 2) },
    SubTest { name: "yama-3", what: "Yama allows nobody", run: |machine| yama::scope(machine, 3) },
];

/// Runs all sub-tests, or those that [`ONLY`] names, and writes a line for each.
///
/// # Errors
/// Where the lines cannot be written.
pub fn run_all(machine: &Machine, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{BEGUN}")?;
    for subtest in selected(std::env::var(ONLY).ok().as_deref()) {
        let (verdict, detail) = match (subtest.run)(machine) {
            Ok(Done::Passed(detail)) => (Verdict::Pass, detail),
            Ok(Done::Lacking(detail)) => (Verdict::Skip, detail),
            Err(error) => (Verdict::Fail, error.to_string()),
        };
        for need in machine.noted() {
            writeln!(out, "{need}")?;
        }
        writeln!(out, "{}", Outcome { name: subtest.name.to_owned(), verdict, detail })?;
        out.flush()?;
    }
    writeln!(out, "{DONE}")?;
    out.flush()
}

/// Fails with a text unless something holds.
fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_differ() {
        for (n, subtest) in SUBTESTS.iter().enumerate() {
            assert!(!subtest.name.contains(char::is_whitespace));
            assert!(SUBTESTS[..n].iter().all(|other| other.name != subtest.name), "{}", subtest.name);
        }
    }
}
