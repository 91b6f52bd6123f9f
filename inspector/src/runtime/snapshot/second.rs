//! A second thread that walks half of the stacks while the target runs.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::stacks::{Shapes, Stack, StackWalker};
use crate::memory::{LiveMemory, MemoryError, ReadCost};
use crate::runtime::code::CodeCache;
use crate::runtime::unwind::Start;
use crate::runtime::view::View;

type Walked = Vec<(usize, Stack)>;

/// See the module.
#[derive(Debug)]
pub(super) struct SecondWalker<'scope> {
    starts: Sender<Vec<(usize, Start)>>,
    walked: Receiver<Result<Walked, MemoryError>>,
    thread: ScopedJoinHandle<'scope, (Shapes, ReadCost)>,
    /// What it was given.
    indices: Vec<usize>,
}

/// What it leaves behind.
#[derive(Debug)]
pub(super) struct Done {
    /// The shapes that its stacks refer to.
    pub(super) shapes: Shapes,
    /// What it read.
    pub(super) cost: ReadCost,
    /// Whose stacks it walked.
    pub(super) indices: Vec<usize>,
}

impl<'scope> SecondWalker<'scope> {
    /// Starts the thread, which has nothing to do yet.
    pub(super) fn spawn<'env>(scope: &'scope Scope<'scope, 'env>, view: &'env View) -> Self {
        let (starts, to_walk) = channel::<Vec<(usize, Start)>>();
        let (tell, walked) = channel();
        let thread = scope.spawn(move || {
            let memory = LiveMemory::new(view.pid);
            let mut walker = StackWalker::new(view.machine, CodeCache::new(&view.modules));
            for starts in to_walk {
                let mut walked = Walked::with_capacity(starts.len());
                let result = walker.walk_many(&memory, &starts, |index, stack| walked.push((index, stack)));
                if tell.send(result.map(|()| walked)).is_err() {
                    break;
                }
            }
            (walker.shapes, memory.cost())
        });
        SecondWalker { starts, walked, thread, indices: Vec::new() }
    }

    /// Takes half of `starts` to walk them, and leaves the others.
    pub(super) fn take_half(&mut self, starts: &mut Vec<(usize, Start)>) {
        let half = starts.split_off(starts.len() / 2);
        self.indices.extend(half.iter().map(|(index, _)| index));
        // Where it died, `finish` says so.
        let _died = self.starts.send(half);
    }

    /// The stacks of what it took last, once it has walked them.
    pub(super) fn walked(&self) -> Result<Walked, MemoryError> {
        self.walked.recv().unwrap_or_else(|_died| Ok(Walked::new()))
    }

    /// Ends the thread.
    pub(super) fn finish(self) -> Result<Done, MemoryError> {
        drop(self.starts);
        match self.thread.join() {
            Ok((shapes, cost)) => Ok(Done { shapes, cost, indices: self.indices }),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
