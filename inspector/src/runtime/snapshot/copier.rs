//! Reading goroutines while the target runs.

use super::glist::GList;
use super::stacks::StackWalker;
use super::{Details, Frames, Options, Slot, SnapshotError};
use crate::memory::{LiveMemory, MemoryError};
use crate::runtime::code::{AddressMap, CodeCache};
use crate::runtime::goroutine::{Goroutine, status};
use crate::runtime::running::{NoStart, saved_start};
use crate::runtime::unwind::Start;
use crate::runtime::view::View;

/// How a goroutine can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// There is none, or it is not asked for.
    Skipped,
    /// Parked, and its epoch tells whether it stayed so.
    Parked,
    /// Its epoch does not tell: in a system call, a coroutine, preempted, its stack being moved. To be read
    /// only while nothing runs.
    Unsettled,
    /// A thread runs it.
    Running,
}

/// The goroutines read so far.
pub(super) struct Copier<'v> {
    pub(super) view: &'v View,
    pub(super) memory: &'v LiveMemory,
    pub(super) list: GList,
    pub(super) slots: Vec<Slot>,
    pub(super) walker: StackWalker<'v>,
    options: &'v Options,
    /// Start functions seen, and whether goroutines that begin there are the runtime's own.
    system: AddressMap<bool>,
}

impl<'v> Copier<'v> {
    pub(super) fn new(
        view: &'v View,
        memory: &'v LiveMemory,
        options: &'v Options,
    ) -> Result<Self, SnapshotError> {
        let list = GList::new(view.allgs.read(memory, 0)?, view.g.size);
        let mut copier = Copier {
            view,
            memory,
            slots: Vec::new(),
            walker: StackWalker::new(view.machine, CodeCache::new(&view.modules)),
            options,
            system: AddressMap::default(),
            list,
        };
        copier.grow();
        Ok(copier)
    }

    /// Makes a slot for each g of the list.
    fn grow(&mut self) {
        for index in self.slots.len()..self.list.len() {
            let g = Goroutine { addr: self.list.addr(index), ..Goroutine::default() };
            self.slots.push(Slot { g, frames: Frames::Unwanted, confirmed: false, details: None });
        }
    }

    /// Adds gs that were created since; returns their indices.
    pub(super) fn add_new(&mut self) -> Result<std::ops::Range<usize>, SnapshotError> {
        let from = self.list.len();
        let new = self.view.allgs.read(self.memory, from)?;
        if !new.is_empty() {
            self.list.extend(&new);
            self.grow();
        }
        Ok(from..self.list.len())
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
            status::WAITING | status::RUNNABLE | status::LEAKED => Class::Parked,
            _ => Class::Unsettled,
        }
    }

    /// Whether `g` is one of the runtime's own for as long as it lives; those that run finalizers and cleanups
    /// are so only at times.
    fn is_always_system(&mut self, g: &Goroutine) -> bool {
        let view = self.view;
        *self
            .system
            .entry(g.startpc)
            .or_insert_with(|| view.is_system_goroutine(&Goroutine { running_cleanups: true, ..*g }, true))
    }

    /// Reads all goroutines once: each piece of gs, then the stacks of those that are parked.
    pub(super) fn read_all(&mut self) -> Result<(), MemoryError> {
        for piece in self.list.pieces() {
            let seen = self.read_piece(piece)?;
            self.read_stacks(&seen)?;
        }
        Ok(())
    }

    /// Reads the gs of a piece into their slots; returns those whose stacks are to be read.
    pub(super) fn read_piece(&mut self, piece: std::ops::Range<usize>) -> Result<Vec<usize>, MemoryError> {
        let (view, slots) = (self.view, &mut self.slots);
        let mut seen = Vec::new();
        self.list.read_piece(self.memory, piece, |index, addr, bytes| {
            if let (Some(slot), Some(bytes)) = (slots.get_mut(index), bytes) {
                slot.g = Goroutine::parse(&view.g, addr, bytes);
                seen.push(index);
            }
        })?;
        Ok(seen)
    }

    /// Reads all gs again, and the stacks of parked ones that changed; returns how many changed.
    pub(super) fn reread_changed(&mut self) -> Result<usize, MemoryError> {
        let mut changed = Vec::new();
        for piece in self.list.pieces() {
            changed.extend(self.compare_piece(piece)?);
        }
        self.read_stacks(&changed)?;
        Ok(changed.len())
    }

    /// Reads the gs of a piece again. Returns those whose epoch is another than in their slot, or of which no
    /// epoch tells; the slots hold the new state, and the frames of the others stay valid.
    pub(super) fn compare_piece(&mut self, piece: std::ops::Range<usize>) -> Result<Vec<usize>, MemoryError> {
        let (view, slots) = (self.view, &mut self.slots);
        let mut changed = Vec::new();
        self.list.read_piece(self.memory, piece, |index, addr, bytes| {
            let (Some(slot), Some(bytes)) = (slots.get_mut(index), bytes) else { return };
            let now = Goroutine::parse(&view.g, addr, bytes);
            let same = now.epoch() == slot.g.epoch();
            slot.g = now;
            if !same {
                slot.frames = Frames::Unwanted;
                slot.details = None;
                changed.push(index);
            }
        })?;
        Ok(changed)
    }

    /// Walks the stacks of the parked ones among `indices`.
    pub(super) fn read_stacks(&mut self, indices: &[usize]) -> Result<(), MemoryError> {
        let mut starts: Vec<(usize, Start)> = Vec::with_capacity(indices.len());
        for &index in indices {
            let Some(g) = self.slots.get(index).map(|s| s.g) else { continue };
            if self.class(&g) == Class::Parked
                && let Some(start) = self.start(index, &g)
            {
                starts.push((index, start));
            }
        }
        self.walk(&starts)
    }

    /// Where the frames of the goroutine in a slot begin by what it saved; remembers if nowhere.
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

    /// Walks stacks into their slots.
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
