//! Messages of the library beside its error numbers, such as the verifier's log. The library would print them
//! by itself.

use std::cell::RefCell;
use std::sync::Once;

use libbpf_rs::{PrintLevel, set_print};

thread_local! {
    /// Messages for this thread, which is the one that the library calls back.
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Clears the messages: the following ones belong to the next action.
pub(super) fn begin() {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        set_print(Some((PrintLevel::Warn, |_, text| SAID.with_borrow_mut(|said| said.push(text)))));
    });
    SAID.with_borrow_mut(Vec::clear);
}

/// Returns the verifier's log of a program that it refused.
pub(super) fn log_of(program: &str) -> Option<String> {
    SAID.with_borrow(|said| said.iter().find_map(|text| log_in(text, program).map(str::to_owned)))
}

fn log_in<'t>(text: &'t str, program: &str) -> Option<&'t str> {
    let (head, rest) = text.split_once("-- BEGIN PROG LOAD LOG --\n")?;
    let log = rest.split_once("-- END PROG LOAD LOG --").map_or(rest, |(log, _)| log);
    head.contains(&format!("prog '{program}'")).then_some(log)
}

/// Returns all messages on one line, in brackets, to append to an error.
pub(super) fn in_brackets() -> String {
    SAID.with_borrow(|said| {
        let words: Vec<&str> = said.iter().flat_map(|text| text.lines()).map(str::trim).collect();
        if words.is_empty() { String::new() } else { format!(" ({})", words.join("; ")) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_told_apart() {
        let text = "libbpf: prog 'one': -- BEGIN PROG LOAD LOG --\nR0 !read_ok\n-- END PROG LOAD LOG --\n";
        assert_eq!(log_in(text, "one"), Some("R0 !read_ok\n"));
        assert_eq!(log_in(text, "two"), None);
        assert_eq!(log_in("libbpf: prog 'one': BPF program load failed: -EACCES\n", "one"), None);
    }
}
