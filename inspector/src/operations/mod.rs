//! Operations of gops-probe, independent of who asks: each reads or changes a process, and returns an answer.
//! Operations neither parse arguments, nor print, nor end the program; `cli` and `serve` do that.

pub(crate) mod binary;
pub(crate) mod change;
pub(crate) mod cpu;
pub(crate) mod enable;
pub(crate) mod error;
pub(crate) mod heap;
pub(crate) mod list;
pub(crate) mod memstats;
pub(crate) mod panicking;
pub(crate) mod process;
pub(crate) mod profile;
pub(crate) mod reading;
pub(crate) mod runtimes;
pub(crate) mod stack;
pub(crate) mod stats;
pub(crate) mod stuck;
pub(crate) mod target;
pub(crate) mod top;
pub(crate) mod version;
pub(crate) mod via;
pub(crate) mod waiters;

/// Receiver of notes that are no part of an operation's answer.
pub(crate) trait Listener {
    /// Takes a fact about the making of the answer that the user has to know.
    fn note(&self, text: &str);
}

/// Returns true if a long operation should end now.
pub(crate) type Interrupted<'i> = &'i dyn Fn() -> bool;
