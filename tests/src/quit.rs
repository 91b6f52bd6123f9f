//! The dump that the Go runtime writes when a signal kills the process, as an oracle for `stack --all`.
//!
//! From Go 1.19 such a dump has the system's level of detail whatever `GOTRACEBACK` says (a signal sets `m.throwing`,
//! `runtime.gotraceback` then answers level 2); before, `GOTRACEBACK=system` asks for it.

use std::collections::BTreeMap;

use crate::dump::{Difference, Dump, Goroutine};

/// What the runtime prints instead of the frames of a goroutine that another thread runs.
const ELSEWHERE: &str = "\tgoroutine running on other thread; stack unavailable";

/// The goroutines that the dump on a killed process's standard error has; none where there is no dump.
///
/// In front of them stands what the program itself wrote and the signal's name, behind them the registers. The
/// thread that got the signal comes first: its system stack as goroutine 0, or the goroutine it was in.
#[must_use]
pub fn parse(stderr: &str) -> Dump {
    let begin =
        ["SIGQUIT: quit\nPC=", "SIGABRT: abort\nPC="].iter().filter_map(|mark| stderr.rfind(mark)).max();
    let text = begin.and_then(|at| stderr.get(at..)).unwrap_or("");
    let end = text.find("\nrax ").unwrap_or(text.len());
    Dump::parse(text.get(..end).unwrap_or(text))
}

/// Two dumps of ours and the runtime's own one after them, goroutine by goroutine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// Goroutines of which a text of ours and the runtime's are the same, byte for byte.
    pub equal: usize,
    /// Goroutines that ran on another thread, so that the runtime could not print their frames; headers agree.
    pub running: Vec<u64>,
    /// Goroutines that changed between our two dumps as well, or came or went after.
    pub moved: Vec<u64>,
    /// Goroutines that differ without an explanation.
    pub different: Vec<Difference>,
    /// Whether the goroutines that both have come in the same order, but for the first of the runtime's dump.
    pub same_order: bool,
}

impl Comparison {
    /// Whether every goroutine is the same, or known to have run.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.different.is_empty() && self.same_order && self.equal > 0
    }

    /// How many goroutines were compared.
    #[must_use]
    pub fn total(&self) -> usize {
        self.equal + self.running.len() + self.moved.len() + self.different.len()
    }
}

/// Compares the dump of a killed process with two that were taken from outside right before.
#[must_use]
pub fn compare(first: &Dump, second: &Dump, quit: &Dump) -> Comparison {
    let (one, two, theirs) = (by_id(first), by_id(second), by_id(quit));
    let mut result = Comparison::default();
    let ids: std::collections::BTreeSet<u64> = one.keys().chain(theirs.keys()).copied().collect();
    // The thread's own system stack is no goroutine.
    for id in ids.into_iter().filter(|&id| id != 0) {
        let (a, b, c) = (text(&one, id), text(&two, id), text(&theirs, id));
        if !c.is_empty() && (a == c || b == c) {
            result.equal += 1;
        } else if is_elsewhere(theirs.get(&id).copied(), one.get(&id).copied(), two.get(&id).copied()) {
            result.running.push(id);
        } else if a != b {
            result.moved.push(id);
        } else {
            result.different.push(Difference { id, expected: c.to_owned(), found: a.to_owned() });
        }
    }
    result.same_order = same_order(second, &two, quit, &theirs);
    result
}

fn by_id(dump: &Dump) -> BTreeMap<u64, &Goroutine> {
    let mut found = BTreeMap::new();
    for goroutine in &dump.goroutines {
        found.entry(goroutine.id).or_insert(goroutine);
    }
    found
}

fn text<'d>(dump: &BTreeMap<u64, &'d Goroutine>, id: u64) -> &'d str {
    dump.get(&id).map_or("", |goroutine| goroutine.text.as_str())
}

/// Whether the runtime says that the goroutine runs elsewhere, and one of our dumps that it runs.
fn is_elsewhere(theirs: Option<&Goroutine>, one: Option<&Goroutine>, two: Option<&Goroutine>) -> bool {
    theirs.is_some_and(|goroutine| goroutine.text.contains(ELSEWHERE))
        && one.into_iter().chain(two).any(|goroutine| goroutine.header.status == "running")
}

/// The goroutine of the thread that got the signal is out of its place at the front.
fn same_order(
    ours: &Dump,
    ours_by_id: &BTreeMap<u64, &Goroutine>,
    quit: &Dump,
    quit_by_id: &BTreeMap<u64, &Goroutine>,
) -> bool {
    let common = |dump: &Dump| -> Vec<u64> {
        let ids = dump.goroutines.iter().map(|goroutine| goroutine.id);
        ids.filter(|id| ours_by_id.contains_key(id) && quit_by_id.contains_key(id)).collect()
    };
    let (mut ours, mut theirs) = (common(ours), common(quit));
    if ours == theirs {
        return true;
    }
    if theirs.is_empty() {
        return false;
    }
    let first = theirs.remove(0);
    ours.retain(|&id| id != first);
    ours == theirs
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "goroutine 1 gp=0xc01 m=nil [select]:\nmain.main()\n\t/a.go:1 +0x1 fp=0x1 sp=0x2 pc=0x3\n\n\
        goroutine 2 gp=0xc02 m=1 mp=0xc0ff [running]:\nmain.f()\n\t/a.go:2 +0x1 fp=0x1 sp=0x2 pc=0x3\n\n\
        goroutine 3 gp=0xc03 m=2 mp=0xc0fe [syscall]:\nmain.g()\n\t/a.go:3 +0x1 fp=0x1 sp=0x2 pc=0x3\n";
    const QUIT: &str = "a log line\nSIGQUIT: quit\nPC=0x1 m=0 sigcode=0\n\ngoroutine 0 gp=0x1 m=0 mp=0x2 [idle]:\n\
        runtime.futex()\n\t/sys.s:1 +0x1\n\n\
        goroutine 3 gp=0xc03 m=2 mp=0xc0fe [syscall]:\nmain.g()\n\t/a.go:3 +0x1 fp=0x1 sp=0x2 pc=0x3\n\n\
        goroutine 1 gp=0xc01 m=nil [select]:\nmain.main()\n\t/a.go:1 +0x1 fp=0x1 sp=0x2 pc=0x3\n\n\
        goroutine 2 gp=0xc02 m=1 mp=0xc0ff [running]:\n\tgoroutine running on other thread; stack unavailable\n\n\
        rax    0xca\nrbx    0x0\n";

    #[test]
    fn a_quit_dump_is_taken_apart() {
        let (ours, quit) = (Dump::parse(OURS), parse(QUIT));
        assert_eq!(quit.goroutines.len(), 4);
        let comparison = compare(&ours, &ours, &quit);
        assert!(comparison.accepted(), "{comparison:#?}");
        assert_eq!((comparison.equal, comparison.running.as_slice()), (2, &[2][..]));
    }

    #[test]
    fn differences_are_found() {
        let (ours, quit) = (Dump::parse(OURS), parse(&QUIT.replace("pc=0x3", "pc=0x4")));
        assert_eq!(compare(&ours, &ours, &quit).different.len(), 2);
        let missing = compare(&Dump::parse(""), &Dump::parse(""), &quit);
        assert_eq!(missing.different.len(), 3);
        assert!(parse("no dump at all").goroutines.is_empty());
    }
}
