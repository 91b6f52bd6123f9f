//! Assignment of threads to goroutines.

use std::collections::HashMap;

use super::copier::Copier;
use crate::runtime::goroutine::{Goroutine, M};
use crate::stop;

/// Returns the m that runs `g`, if g and m refer to each other.
pub(super) fn running_thread<'m>(g: &Goroutine, ms: &'m [M]) -> Option<&'m M> {
    ms.iter().find(|m| m.addr == g.m && m.curg == g.addr)
}

/// Map of thread ids, from the target's pid namespace, as used by the runtime, to our pid namespace.
pub(super) struct Tids(Option<HashMap<u64, i32>>);

impl Tids {
    pub(super) fn of(copier: &Copier<'_>) -> Self {
        Tids(stop::namespaced_threads(copier.process.pid().as_raw()))
    }

    pub(super) fn host(&self, procid: u64) -> Option<i32> {
        match &self.0 {
            None => i32::try_from(procid).ok(),
            Some(map) => map.get(&procid).copied(),
        }
    }
}
