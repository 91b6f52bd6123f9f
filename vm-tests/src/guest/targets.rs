//! The Go programs that are looked at: without cgo, so that they run without libraries.

use fixtures::matrix::{NEWEST, newest_of};
use fixtures::{Cell, Program, Variant};

const fn states(toolchain: &'static str) -> Cell {
    Cell::new(toolchain, Variant::Stripped, Program::States)
}

/// Goroutines in as many states as there are: a new and an old Go, and one between.
pub const STATES: [Cell; 3] = [states(NEWEST), states(newest_of(24)), states(newest_of(18))];

/// Computes in functions whose shares of the time are known.
pub const HOT: Cell = Cell::new(NEWEST, Variant::Stripped, Program::Hot);

/// Knows its own memory statistics.
pub const MEMORY: Cell = Cell::new(NEWEST, Variant::Stripped, Program::Memory);

/// Checks its heap, and knows its collections.
pub const COLLECTOR: Cell = Cell::new(NEWEST, Variant::Stripped, Program::Collector);

/// All of them.
pub const CELLS: [Cell; 6] = [STATES[0], STATES[1], STATES[2], HOT, MEMORY, COLLECTOR];

/// Where a target is in a machine, without the slash in front.
#[must_use]
pub fn name(cell: &Cell) -> String {
    format!("targets/go{}/{}", cell.toolchain, cell.program)
}
