//! Second thread that unwinds some of the stacks while the target runs.

use std::sync::mpsc::{Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::stacks::{Shapes, Stack, StackWalker};
use crate::memory::{Memory, MemoryError, ReadCost};
use crate::runtime::code::CodeCache;
use crate::runtime::unwind::Start;
use crate::runtime::view::View;
use crate::threads;

type Walked = Vec<(usize, Stack)>;

/// Results of the second thread.
#[derive(Debug)]
pub(super) struct Done {
    /// Unwound stacks, by the index of their goroutine.
    pub(super) walked: Vec<Walked>,
    /// Shapes of the unwound stacks.
    pub(super) shapes: Shapes,
    /// Cost of the second thread's reading: bytes read and system calls.
    pub(super) cost: ReadCost,
    /// Indices of the goroutines assigned to the second thread.
    pub(super) indices: Vec<usize>,
}

type Result = std::result::Result<(Vec<Walked>, Shapes, ReadCost), MemoryError>;

/// Handle of the second thread that unwinds stacks.
#[derive(Debug)]
pub(super) struct SecondWalker<'scope> {
    starts: Sender<Vec<(usize, Start)>>,
    thread: ScopedJoinHandle<'scope, Result>,
    indices: Vec<usize>,
}

impl<'scope> SecondWalker<'scope> {
    /// Starts the idle thread, which reads through `memory`. Returns `None` if no thread can be started.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        view: &'env View,
        memory: Box<dyn Memory>,
    ) -> Option<Self> {
        let (starts, to_walk) = channel::<Vec<(usize, Start)>>();
        let thread = threads::start_in(scope, "walk", move || {
            let mut walker = StackWalker::new(view.machine, CodeCache::new(&view.modules));
            let mut all = Vec::new();
            for starts in to_walk {
                let mut walked = Walked::with_capacity(starts.len());
                walker.walk_many(&*memory, &starts, |index, stack| walked.push((index, stack)))?;
                all.push(walked);
            }
            Ok((all, walker.shapes, memory.cost()))
        });
        Some(SecondWalker { starts, thread: thread.ok()?, indices: Vec::new() })
    }

    /// Takes over some of `starts` to unwind them, and leaves fewer to the caller, which also reads the gs.
    pub(super) fn take_some(&mut self, starts: &mut Vec<(usize, Start)>) {
        let taken = starts.split_off(starts.len() * 2 / 5);
        self.indices.extend(taken.iter().map(|(index, _)| index));
        // If the thread died, `finish` reports it.
        let _died = self.starts.send(taken);
    }

    /// Ends the thread and returns its results.
    pub(super) fn finish(self) -> std::result::Result<Done, MemoryError> {
        drop(self.starts);
        match self.thread.join() {
            Ok(result) => {
                let (walked, shapes, cost) = result?;
                Ok(Done { walked, shapes, cost, indices: self.indices })
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
