//! Dump that the Go runtime writes when a signal kills the process, as an oracle for `stack --all`.
//!
//! From Go 1.19 such a dump has the system's level of detail, independent of `GOTRACEBACK`: a signal sets
//! `m.throwing`, and `runtime.gotraceback` then returns level 2. Before, `GOTRACEBACK=system` is needed.

use crate::dump::{Comparison, Dump, against};

/// Parses the dump on a killed process's standard error; the result is empty if there is no dump.
///
/// The text before the goroutines is the program's own output and the signal's name; the registers follow
/// them. The thread that got the signal comes first: its system stack as goroutine 0, or the goroutine that
/// it ran.
#[must_use]
pub fn parse(stderr: &str) -> Dump {
    let begin =
        ["SIGQUIT: quit\nPC=", "SIGABRT: abort\nPC="].iter().filter_map(|mark| stderr.rfind(mark)).max();
    let text = begin.and_then(|at| stderr.get(at..)).unwrap_or("");
    let end = text.find("\nrax ").unwrap_or(text.len());
    Dump::parse(text.get(..end).unwrap_or(text))
}

/// Compares the dump of a killed process with two dumps taken from outside right before.
#[must_use]
pub fn compare(first: &Dump, second: &Dump, quit: &Dump) -> Comparison {
    // The kernel chooses the thread that takes the signal. The goroutine of this thread comes first, out of
    // its order, or second if the thread was on its own system stack, which is not a goroutine.
    let taker = quit.goroutines.iter().map(|goroutine| goroutine.id).find(|&id| id != 0);
    against([quit, quit], [first, second], |id| id == 0, taker)
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
