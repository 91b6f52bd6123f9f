//! What gops-probe does, whoever asks: each operation looks at a process, or changes it, and gives an answer. It neither parses arguments,
//! nor prints, nor ends the program; `cli` and `serve` do that.

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

/// Whoever asks for an operation, and hears of it what is no part of the answer.
pub(crate) trait Listener {
    /// Something that the user has to know of how the answer comes about.
    fn note(&self, text: &str);
}

/// Whether somebody wants an operation that takes a while to end now.
pub(crate) type Interrupted<'i> = &'i dyn Fn() -> bool;
