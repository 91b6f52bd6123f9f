//! Detection of progress: whether the goroutines of a program's own code move between two snapshots.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::goroutine::{Goroutine, status};
use super::snapshot::{Frames, Slot, Snapshot};
use super::view::View;

/// Progress of one process, as seen in successive snapshots.
#[derive(Debug, Default)]
pub struct Progress {
    /// Path of the main module. Without it, all goroutines count except the runtime's own.
    module: Option<String>,
    last: Option<HashMap<u64, u64>>,
}

impl Progress {
    /// Creates the progress of a main module, given by its path in the build info.
    pub fn of(module: Option<&str>) -> Self {
        Progress { module: module.filter(|path| !path.is_empty()).map(str::to_owned), last: None }
    }

    /// Returns true if something has moved since the previous snapshot: a goroutine of the module has begun,
    /// ended, run, or waits elsewhere. The first snapshot has no predecessor and always returns true.
    ///
    /// A goroutine that ran and waits at the same place again is detected by `g.trackingSeq`. The runtime
    /// increments it when a goroutine stops running (`runtime.casgstatus`, Go 1.18–1.27).
    pub fn has_moved(&mut self, view: &View, snapshot: &Snapshot) -> bool {
        let own: Vec<&Slot> =
            snapshot.slots.iter().filter(|slot| self.is_own(view, snapshot, slot)).collect();
        let now = own.into_iter().map(|slot| (slot.g.goid, mark(snapshot, slot))).collect();
        let moved = self.last.as_ref() != Some(&now);
        self.last = Some(now);
        moved
    }

    fn is_own(&self, view: &View, snapshot: &Snapshot, slot: &Slot) -> bool {
        let g: &Goroutine = &slot.g;
        if matches!(g.status(), status::DEAD | status::IDLE | status::DEADEXTRA)
            || view.is_system_goroutine(g, snapshot.finalizer_runs_user_code)
        {
            return false;
        }
        let Some(module) = &self.module else { return true };
        let named = |pc: u64| {
            view.modules.lookup(pc).is_some_and(|place| is_of_module(place.func.name(), module.as_bytes()))
        };
        named(g.startpc) || named(g.gopc) || pcs(snapshot, slot).iter().any(|&pc| named(pc.wrapping_sub(1)))
    }
}

fn pcs<'s>(snapshot: &'s Snapshot, slot: &Slot) -> &'s [u64] {
    match &slot.frames {
        Frames::Walked(stack) => snapshot.shapes.get(stack.shape).map_or(&[], |shape| &shape.pcs),
        Frames::Unwanted | Frames::Unavailable(_) => &[],
    }
}

/// Computes a hash that changes whenever a goroutine runs.
fn mark(snapshot: &Snapshot, slot: &Slot) -> u64 {
    let mut hasher = DefaultHasher::new();
    let g = &slot.g;
    (g.status(), g.wait_reason, g.tracking_seq, pcs(snapshot, slot)).hash(&mut hasher);
    hasher.finish()
}

/// Returns true if a function belongs to the module's packages, their tests, or package main.
fn is_of_module(function: &[u8], module: &[u8]) -> bool {
    let package = package(function);
    if package == b"main" {
        return true;
    }
    match package.strip_prefix(module) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/") || rest == b"_test",
        None => false,
    }
}

/// Returns the package path of a function: the text before the first dot after the last slash, ignoring type
/// arguments. The linker writes a dot within the last path element as `%2e`.
fn package(function: &[u8]) -> &[u8] {
    let plain = function.split(|&b| b == b'[').next().unwrap_or(function);
    let base = plain.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    let point = plain.iter().skip(base).position(|&b| b == b'.');
    point.and_then(|point| plain.get(..base + point)).unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_functions() {
        for (function, expected) in [
            ("main.main", "main"),
            ("net/http.(*conn).serve", "net/http"),
            ("example.com/orders.Take[example.com/a/b.T]", "example.com/orders"),
            ("example.com/orders/store.(*DB).Get.func1", "example.com/orders/store"),
            ("gopkg.in/yaml%2ev3.unmarshal", "gopkg.in/yaml%2ev3"),
        ] {
            assert_eq!(package(function.as_bytes()), expected.as_bytes(), "{function}");
        }
    }

    #[test]
    fn whose_functions() {
        let of = |function: &str| is_of_module(function.as_bytes(), b"example.com/orders");
        assert!(of("main.main") && of("example.com/orders.Test") && of("example.com/orders/store.Get"));
        assert!(of("example.com/orders_test.TestTake"));
        assert!(!of("example.com/ordersplus.F") && !of("testing.tRunner") && !of("example.com.F"));
    }
}
