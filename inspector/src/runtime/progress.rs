//! Whether the goroutines of a program's own code get anywhere between two snapshots.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::goroutine::{Goroutine, status};
use super::snapshot::{Frames, Slot, Snapshot};
use super::view::View;

/// What snapshots of one process show of its progress.
#[derive(Debug, Default)]
pub struct Progress {
    /// Path of the main module; without it all goroutines count that are not the runtime's own.
    module: Option<String>,
    last: Option<HashMap<u64, u64>>,
}

impl Progress {
    /// Progress of the code of a main module, by its path in the build info.
    pub fn of(module: Option<&str>) -> Self {
        Progress { module: module.filter(|path| !path.is_empty()).map(str::to_owned), last: None }
    }

    /// Whether something has moved since the snapshot before: a goroutine of the module has begun, ended, run, or waits
    /// elsewhere. The first snapshot has none before it, so everything has moved.
    ///
    /// A goroutine that ran and waits at the same place again is told by `g.trackingSeq`, which the runtime increments when a
    /// goroutine stops running (`runtime.casgstatus`, Go 1.18–1.27).
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

/// What changes whenever a goroutine runs.
fn mark(snapshot: &Snapshot, slot: &Slot) -> u64 {
    let mut hasher = DefaultHasher::new();
    let g = &slot.g;
    (g.status(), g.wait_reason, g.tracking_seq, pcs(snapshot, slot)).hash(&mut hasher);
    hasher.finish()
}

/// Whether a function is of the module's packages or their tests, or of package main.
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

/// The path of the package of a function: all before the first point behind the last slash, but for type arguments. The
/// linker writes a point within the last element of a path as `%2e`.
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
