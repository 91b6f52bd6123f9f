//! Reading goroutines while the target runs.

use super::close::{self, Calm};
use super::glist::{GList, GListError};
use super::second::SecondWalker;
use super::stacks::{Stack, StackWalker};
use super::{Details, Frames, Slot, SnapshotError, SnapshotOptions, WORTH_A_SECOND};
use crate::memory::{Memory, MemoryError, RecordedMemory};
use crate::process::Process;
use crate::runtime::code::{AddressMap, CodeCache};
use crate::runtime::goroutine::{Epoch, Goroutine, status};
use crate::runtime::running::{NoStart, saved_start};
use crate::runtime::unwind::Start;
use crate::runtime::view::View;

/// Class of a goroutine, by the way of reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Skipped: no goroutine, or one that was not requested.
    Skipped,
    /// Parked; its epoch proves whether it stayed parked.
    Parked,
    /// Unreliable epoch: the goroutine is in a system call, a coroutine, preempted, moving its stack, or not
    /// yet parked. It is read only while nothing runs.
    Unsettled,
    /// Running on a thread.
    Running,
}

/// Goroutines read so far.
pub(super) struct Copier<'v> {
    pub(super) process: &'v Process,
    pub(super) view: &'v View,
    pub(super) memory: &'v dyn Memory,
    pub(super) list: GList,
    pub(super) slots: Vec<Slot>,
    /// Epochs of the gs in all slots, stored compactly. A stop is too short to access the slots.
    pub(super) epochs: Vec<Epoch>,
    pub(super) buffer: Vec<u8>,
    /// True for slots that need no more verification.
    pub(super) settled: Vec<bool>,
    /// True for slots with frames that may be of another moment than the g.
    pub(super) loose: Vec<bool>,
    pub(super) walker: StackWalker<'v>,
    options: &'v SnapshotOptions,
    /// Start functions seen so far; true if goroutines that begin there are system goroutines.
    system: AddressMap<bool>,
}

impl<'v> Copier<'v> {
    pub(super) fn new(
        process: &'v Process,
        view: &'v View,
        memory: &'v dyn Memory,
        options: &'v SnapshotOptions,
    ) -> Result<Self, SnapshotError> {
        let list = GList::new(view.allgs.read(memory, 0)?, view.g.size);
        if list.has_duplicates() {
            return Err(GListError::Duplicate.into());
        }
        // Tables are read beforehand, so that a stop needs no waiting and no file access.
        view.modules.read_tables();
        let mut copier = Copier {
            process,
            view,
            memory,
            slots: Vec::new(),
            epochs: Vec::new(),
            buffer: Vec::new(),
            settled: Vec::new(),
            loose: Vec::new(),
            walker: StackWalker::new(view.machine, CodeCache::new(&view.modules)),
            options,
            system: AddressMap::default(),
            list,
        };
        copier.grow();
        Ok(copier)
    }

    /// Creates a slot for each g of the list.
    fn grow(&mut self) {
        self.slots.reserve_exact(self.list.len() - self.slots.len());
        for index in self.slots.len()..self.list.len() {
            let g = Goroutine { addr: self.list.addr(index), ..Goroutine::default() };
            self.slots.push(Slot { g, frames: Frames::Unwanted, confirmed: false, details: None });
        }
        self.epochs.resize(self.slots.len(), Epoch::default());
        self.settled.resize(self.slots.len(), false);
        self.loose.resize(self.slots.len(), false);
    }

    /// Adds gs created since the last reading of the list, and returns their indices.
    pub(super) fn add_new(&mut self) -> Result<std::ops::Range<usize>, SnapshotError> {
        let from = self.list.len();
        let new = self.view.allgs.read(self.memory, from)?;
        if !new.is_empty() {
            self.append(&new);
            self.list.arrange();
        }
        Ok(from..self.list.len())
    }

    /// Adds gs without arranging them for reading. A stop leaves no time for arranging.
    pub(super) fn append(&mut self, new: &[u64]) {
        self.list.append(new);
        self.grow();
    }

    /// Stores a freshly read g in its slot, without frames.
    pub(super) fn put(&mut self, index: usize, g: Goroutine) {
        if let (Some(slot), Some(epoch)) = (self.slots.get_mut(index), self.epochs.get_mut(index)) {
            *epoch = g.epoch();
            slot.g = g;
            slot.frames = Frames::Unwanted;
            slot.details = None;
        }
    }

    pub(super) fn class(&mut self, g: &Goroutine) -> Class {
        if g.is_dead() || g.goid == 0 || self.options.goid.is_some_and(|id| id != g.goid) {
            return Class::Skipped;
        }
        if !self.options.system && self.is_always_system(g) {
            return Class::Skipped;
        }
        match g.status() {
            status::RUNNING => Class::Running,
            status::WAITING if Some(g.wait_reason) == self.view.coroutine_reason => Class::Unsettled,
            _ if g.is_parked_on_thread() => Class::Unsettled,
            status::WAITING | status::RUNNABLE | status::LEAKED => Class::Parked,
            _ => Class::Unsettled,
        }
    }

    /// Returns true if `g` is a system goroutine for its whole life. Goroutines that run finalizers and
    /// cleanups are system goroutines only at times.
    fn is_always_system(&mut self, g: &Goroutine) -> bool {
        let view = self.view;
        *self
            .system
            .entry(g.startpc)
            .or_insert_with(|| view.is_system_goroutine(&Goroutine { running_cleanups: true, ..*g }, true))
    }

    /// Reads all goroutines once: each piece of gs, then the stacks of the parked ones. Uses two threads if
    /// there are many.
    pub(super) fn read_all(&mut self) -> Result<(), MemoryError> {
        let pieces = self.list.pieces();
        if self.slots.len() < WORTH_A_SECOND {
            for piece in pieces {
                self.read_new_piece(piece)?;
            }
            return Ok(());
        }
        let (view, memory) = (self.view, self.memory);
        std::thread::scope(|scope| {
            let mut second = SecondWalker::start(scope, view, memory.another());
            for piece in pieces {
                let seen = self.read_piece(piece)?;
                let mut starts = self.starts(&seen);
                if let Some(second) = &mut second {
                    second.take_some(&mut starts);
                }
                self.walk(&starts)?;
            }
            let Some(second) = second else { return Ok(()) };
            let done = second.finish()?;
            for (index, stack) in done.walked.into_iter().flatten() {
                self.put_walked(index, stack);
            }
            self.memory.add_cost(done.cost);
            let slots = &mut self.slots;
            self.walker.shapes.adopt(done.shapes, |rename| {
                for index in done.indices {
                    if let Some(Frames::Walked(stack)) = slots.get_mut(index).map(|s| &mut s.frames) {
                        stack.shape = rename(stack.shape);
                    }
                }
            });
            Ok(())
        })
    }

    /// Reads the gs of a piece and their stacks for the first time, and returns their indices. If nothing
    /// runs, all stacks are read together, otherwise each closely.
    pub(super) fn read_new_piece(
        &mut self,
        piece: std::ops::Range<usize>,
    ) -> Result<Vec<usize>, MemoryError> {
        let pid = self.process.pid().as_raw();
        let calm = Calm::begin(pid);
        let seen = self.read_piece(piece.clone())?;
        if let Some(calm) = calm {
            self.read_stacks(&seen)?;
            if self.compare_piece(piece)?.is_empty() && calm.lasted(pid) {
                self.mark_loose(&seen, false);
                return Ok(seen);
            }
        }
        self.read_stacks_closely(&seen)?;
        Ok(seen)
    }

    /// Reads the gs of a piece into their slots, and returns their indices.
    pub(super) fn read_piece(&mut self, piece: std::ops::Range<usize>) -> Result<Vec<usize>, MemoryError> {
        let (view, slots, epochs) = (self.view, &mut self.slots, &mut self.epochs);
        let mut seen = Vec::new();
        self.list.read_piece(self.memory, piece, &mut self.buffer, |index, addr, bytes| {
            if let (Some(slot), Some(epoch), Some(bytes)) =
                (slots.get_mut(index), epochs.get_mut(index), bytes)
            {
                slot.g = Goroutine::parse(&view.g, addr, bytes);
                *epoch = slot.g.epoch();
                seen.push(index);
            }
        })?;
        Ok(seen)
    }

    /// Reads all gs again, and the stacks of parked goroutines that changed. Reads them `closely` unless
    /// there are too many. Returns the indices of changed gs.
    pub(super) fn reread_changed(&mut self, closely: bool) -> Result<Vec<usize>, MemoryError> {
        let mut all = Vec::new();
        for piece in self.list.pieces() {
            let changed = self.compare_piece(piece)?;
            if closely && changed.len() < WORTH_A_SECOND {
                self.read_stacks_closely(&changed)?;
            } else {
                self.read_stacks(&changed)?;
                self.mark_loose(&changed, true);
            }
            all.extend(changed);
        }
        Ok(all)
    }

    /// Reads the stacks of the parked goroutines among `indices`, whose gs were read just before. Marks the
    /// unproven ones as `loose`.
    pub(super) fn read_stacks_closely(&mut self, indices: &[usize]) -> Result<(), MemoryError> {
        let open = close::read_stacks(self, indices)?;
        self.mark_loose(indices, false);
        self.mark_loose(&open, true);
        Ok(())
    }

    pub(super) fn mark_loose(&mut self, indices: &[usize], is: bool) {
        for &index in indices {
            if let Some(loose) = self.loose.get_mut(index) {
                *loose = is;
            }
        }
    }

    /// Reads the gs of a piece again and returns those that left their epoch. The slots of these hold the
    /// new state without frames; the frames of all others remain valid.
    pub(super) fn compare_piece(&mut self, piece: std::ops::Range<usize>) -> Result<Vec<usize>, MemoryError> {
        let (view, slots, epochs) = (self.view, &mut self.slots, &mut self.epochs);
        let mut changed = Vec::new();
        self.list.read_piece(self.memory, piece, &mut self.buffer, |index, addr, bytes| {
            let (Some(epoch), Some(bytes)) = (epochs.get_mut(index), bytes) else { return };
            if !epoch.holds(&view.g, bytes)
                && let Some(slot) = slots.get_mut(index)
            {
                slot.g = Goroutine::parse(&view.g, addr, bytes);
                *epoch = slot.g.epoch();
                slot.frames = Frames::Unwanted;
                slot.details = None;
                changed.push(index);
            }
        })?;
        Ok(changed)
    }

    /// Reads the gs of a piece again and settles those that are still in their epoch. Returns the others,
    /// with unchanged slots.
    pub(super) fn settle_unchanged(
        &mut self,
        piece: std::ops::Range<usize>,
    ) -> Result<Vec<usize>, MemoryError> {
        let (view, epochs, settled) = (self.view, &self.epochs, &mut self.settled);
        let mut changed = Vec::new();
        self.list.read_piece(self.memory, piece, &mut self.buffer, |index, _, bytes| {
            let (Some(epoch), Some(settled), Some(bytes)) =
                (epochs.get(index), settled.get_mut(index), bytes)
            else {
                return;
            };
            if *settled {
                return;
            }
            if epoch.holds(&view.g, bytes) {
                *settled = true;
            } else {
                changed.push(index);
            }
        })?;
        Ok(changed)
    }

    /// Returns true if everything that can be read is settled.
    pub(super) fn is_complete(&self) -> bool {
        self.slots.iter().zip(&self.settled).all(|(slot, &settled)| settled || slot.g.is_dead())
    }

    /// Returns the parked goroutines with frames that may be of another moment than their g.
    pub(super) fn loose_ones(&mut self) -> Vec<usize> {
        let all = 0..self.slots.len();
        let is_loose = |index: &usize| self.loose.get(*index) == Some(&true);
        let loose: Vec<usize> = all.filter(is_loose).collect();
        loose
            .into_iter()
            .filter(|&index| {
                let g = self.slots.get(index).map(|slot| slot.g);
                g.is_some_and(|g| self.class(&g) == Class::Parked)
            })
            .collect()
    }

    /// Returns those of `indices` that equal readings cannot settle, because their epoch proves nothing or a
    /// thread runs them.
    pub(super) fn hot(&mut self, indices: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let is_hot = |&index: &usize| {
            let g = self.slots.get(index).map(|slot| slot.g);
            g.is_some_and(|g| matches!(self.class(&g), Class::Running | Class::Unsettled))
        };
        indices.into_iter().filter(is_hot).collect()
    }

    /// Unwinds the stacks of the parked goroutines among `indices`.
    pub(super) fn read_stacks(&mut self, indices: &[usize]) -> Result<(), MemoryError> {
        let starts = self.starts(indices);
        self.walk(&starts)
    }

    /// Returns the start points of the parked goroutines among `indices`.
    pub(super) fn starts(&mut self, indices: &[usize]) -> Vec<(usize, Start)> {
        let mut starts: Vec<(usize, Start)> = Vec::with_capacity(indices.len());
        for &index in indices {
            let Some(g) = self.slots.get(index).map(|s| s.g) else { continue };
            if self.class(&g) == Class::Parked
                && let Some(start) = self.start(index, &g)
            {
                starts.push((index, start));
            }
        }
        starts
    }

    /// Returns the start point of the goroutine in a slot from its saved values. Marks the slot as
    /// unavailable if there is none.
    pub(super) fn start(&mut self, index: usize, g: &Goroutine) -> Option<Start> {
        match saved_start(g) {
            Ok(start) => Some(start),
            Err(why) => {
                self.set_unavailable(index, why);
                None
            }
        }
    }

    pub(super) fn set_unavailable(&mut self, index: usize, why: NoStart) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.frames = Frames::Unavailable(why);
        }
    }

    /// Unwinds a stack that was copied from its start to its upper end.
    pub(super) fn walk_copied(&mut self, index: usize, start: Start, bytes: &[u8]) {
        // Nothing beyond the copy may be read: memory may have changed since.
        let stack = self.walker.walk_window(&RecordedMemory::default(), start, bytes);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.frames = Frames::Walked(stack);
        }
    }

    fn put_walked(&mut self, index: usize, stack: Stack) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.frames = Frames::Walked(stack);
            slot.details = Details::read(self.view, self.memory, &slot.g);
        }
    }

    /// Unwinds stacks into their slots.
    pub(super) fn walk(&mut self, starts: &[(usize, Start)]) -> Result<(), MemoryError> {
        let (view, memory, slots) = (self.view, self.memory, &mut self.slots);
        self.walker.walk_many(memory, starts, |index, stack| {
            if let Some(slot) = slots.get_mut(index) {
                slot.frames = Frames::Walked(stack);
                slot.details = Details::read(view, memory, &slot.g);
            }
        })
    }
}
