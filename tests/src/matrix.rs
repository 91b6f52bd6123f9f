//! The build matrix: which fixture is built by which Go toolchain in which way.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Toolchains, oldest first: the newest patch of each minor, and from 1.21 on its first release too. Then
/// candidates.
pub const TOOLCHAINS: [&str; 20] = [
    "1.18.10", "1.19.13", "1.20.14", "1.21.0", "1.21.13", "1.22.0", "1.22.12", "1.23.0", "1.23.12", "1.24.0",
    "1.24.13", "1.25.0", "1.25.14", "1.26.0", "1.26.11", "1.27.0", "1.27.4", "1.25rc1", "1.26rc1", "1.27rc1",
];

/// Toolchains of the quick selection: the oldest, the newest, and one between the layout changes.
pub const QUICK_TOOLCHAINS: [&str; 3] = ["1.18.10", "1.24.13", "1.27.4"];

/// Toolchains that also build the variants with unusual code generation.
pub const DEEP_TOOLCHAINS: [&str; 3] = ["1.21.13", "1.24.13", "1.27.4"];

/// Toolchains that build [`Variant::Inlined`].
const INLINED_TOOLCHAINS: [&str; 3] = ["1.19.13", "1.24.13", "1.27.4"];

/// How a fixture is built, or changed after the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// `-s -w -trimpath`, without cgo: the normal case of a production binary.
    Stripped,
    /// What `go build` does by default, without cgo: symbol table and DWARF.
    Plain,
    /// Position-independent, stripped.
    Pie,
    /// Linked by the system's linker against libc, stripped.
    Cgo,
    /// The stripped build without its section headers.
    NoSections,
    /// The stripped build with the build info blob wiped.
    NoBuildInfo,
    /// With the race detector, stripped.
    Race,
    /// `-gcflags=all='-N -l'`, stripped: no inlining, everything on the stack.
    NoOpt,
    /// `GOAMD64=v3`, stripped.
    V3,
    /// Optimised with a profile (from Go 1.21), stripped.
    Pgo,
    /// `-gcflags=all=-l=4`, stripped: more is inlined.
    Inlined,
    /// `-cover -coverpkg=all` (from Go 1.20), stripped: the runtime counts what of it is executed.
    Cover,
    /// A shared object loaded by a C program, stripped.
    CShared,
}

impl Variant {
    /// All variants.
    pub const ALL: [Self; 13] = [
        Self::Stripped,
        Self::Plain,
        Self::Pie,
        Self::Cgo,
        Self::NoSections,
        Self::NoBuildInfo,
        Self::Race,
        Self::NoOpt,
        Self::V3,
        Self::Pgo,
        Self::Inlined,
        Self::Cover,
        Self::CShared,
    ];

    /// Variants of the full product; the others are built by [`DEEP_TOOLCHAINS`] only.
    pub const COMMON: [Self; 6] =
        [Self::Stripped, Self::Plain, Self::Pie, Self::Cgo, Self::NoSections, Self::NoBuildInfo];

    /// The name in paths and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stripped => "stripped",
            Self::Plain => "plain",
            Self::Pie => "pie",
            Self::Cgo => "cgo",
            Self::NoSections => "nosections",
            Self::NoBuildInfo => "nobuildinfo",
            Self::Race => "race",
            Self::NoOpt => "noopt",
            Self::V3 => "v3",
            Self::Pgo => "pgo",
            Self::Inlined => "inlined",
            Self::Cover => "cover",
            Self::CShared => "cshared",
        }
    }

    /// The variant whose build is edited to make this one, if this one is not built itself.
    #[must_use]
    pub const fn derived_from(self) -> Option<Self> {
        match self {
            Self::NoSections | Self::NoBuildInfo => Some(Self::Stripped),
            _ => None,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fixture program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// Goroutines parked in as many states as the release has.
    States,
    /// Goroutines on both sides of the border to C.
    Cgo,
    /// Goroutines that run in known places.
    Running,
    /// Goroutines that come, grow, shrink, block and go.
    Churn,
    /// Goroutines that stop running so often between two waits that the runtime's count of it comes round.
    Rounds,
    /// Many parked goroutines, and a clock that notices stalls.
    Parked,
    /// [`Program::Parked`] with threads that wait in system calls.
    Blocked,
    /// [`Program::Parked`] with the gops agent in it.
    Agent,
    /// A server on a loopback port, or its client.
    HttpServer,
    /// Work on a heap that is checked all the time.
    Collector,
    /// Allocations, blocking and contention at known places, and the program's own profiles of them.
    Profiles,
    /// The same without the profiles: the linker leaves sampling of allocations out.
    Unprofiled,
    /// A heap of many sizes, and the program's own statistics of it.
    Memory,
    /// Computes in functions whose shares of the time are known.
    Hot,
    /// Computes on stacks that have to grow.
    Growing,
}

impl Program {
    /// All programs.
    pub const ALL: [Self; 15] = [
        Self::States,
        Self::Cgo,
        Self::Running,
        Self::Churn,
        Self::Rounds,
        Self::Parked,
        Self::Blocked,
        Self::Agent,
        Self::HttpServer,
        Self::Collector,
        Self::Profiles,
        Self::Unprofiled,
        Self::Memory,
        Self::Hot,
        Self::Growing,
    ];

    /// The name in paths and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::States => "states",
            Self::Cgo => "cgo",
            Self::Running => "running",
            Self::Churn => "churn",
            Self::Rounds => "rounds",
            Self::Parked => "parked",
            Self::Blocked => "blocked",
            Self::Agent => "agent",
            Self::HttpServer => "httpserver",
            Self::Collector => "collector",
            Self::Profiles => "profiles",
            Self::Unprofiled => "unprofiled",
            Self::Memory => "memory",
            Self::Hot => "hot",
            Self::Growing => "growing",
        }
    }

    /// Folders of the fixtures' module that the program is made of, besides those all share.
    pub(crate) const fn sources(self) -> &'static [&'static str] {
        match self {
            Self::States => &["cmd/states", "cmd/cshared", "loader", "states"],
            Self::Cgo => &["cmd/cgo"],
            Self::Running => &["cmd/running", "situations"],
            Self::Churn => &["cmd/churn"],
            Self::Rounds => &["cmd/rounds"],
            Self::Parked => &["cmd/parked", "parked"],
            Self::Blocked => &["cmd/blocked", "parked"],
            Self::Agent => &["agent", "parked"],
            Self::HttpServer => &["cmd/httpserver"],
            Self::Collector => &["cmd/collector"],
            Self::Profiles => &["cmd/profiles", "profiled"],
            Self::Unprofiled => &["cmd/unprofiled", "profiled"],
            Self::Memory => &["cmd/memory"],
            Self::Hot => &["cmd/hot"],
            Self::Growing => &["cmd/growing"],
        }
    }

    /// Toolchains of the spread selection whose stripped build of the program is needed.
    fn spread(self) -> &'static [&'static str] {
        match self {
            Self::States | Self::Profiles | Self::Memory => &TOOLCHAINS,
            Self::Cgo => &["1.18.10", "1.20.14", "1.22.12", "1.24.13", "1.25.14", "1.26.11", "1.27.4"],
            Self::Running | Self::Churn => &["1.18.10", "1.21.13", "1.23.12", "1.24.13", "1.26.11", "1.27.4"],
            Self::Collector | Self::Hot => &[
                "1.18.10", "1.19.13", "1.20.14", "1.21.13", "1.22.12", "1.23.12", "1.24.13", "1.25.14",
                "1.26.11", "1.27.4", "1.25rc1", "1.26rc1", "1.27rc1",
            ],
            Self::Rounds | Self::Parked | Self::Blocked | Self::HttpServer | Self::Unprofiled => {
                &QUICK_TOOLCHAINS
            }
            // What a stack that grows saves where has changed between these.
            Self::Growing => &["1.18.10", "1.20.14", "1.21.13", "1.24.13", "1.27.4"],
            // The agent's own module asks for Go 1.24.
            Self::Agent => &["1.24.13", "1.27.4"],
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One fixture binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Cell {
    /// Go version without the `go`, one of [`TOOLCHAINS`].
    pub toolchain: &'static str,
    /// How it is built.
    pub variant: Variant,
    /// What is built.
    pub program: Program,
}

impl Cell {
    /// The cell of a toolchain, a variant and a program.
    #[must_use]
    pub const fn new(toolchain: &'static str, variant: Variant, program: Program) -> Self {
        Self { toolchain, variant, program }
    }

    /// The minor version: 21 for 1.21.13.
    #[must_use]
    pub fn minor(&self) -> u32 {
        minor(self.toolchain)
    }

    /// The executable to start; it exists once the cell was built.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory().join(self.program.name())
    }

    /// Where the cell's files are.
    pub(crate) fn directory(&self) -> PathBuf {
        build_root().join(format!("go{}", self.toolchain)).join(self.variant.name())
    }

    /// The shared object with the Go code, for [`Variant::CShared`].
    #[must_use]
    pub fn library(&self) -> Option<PathBuf> {
        (self.variant == Variant::CShared).then(|| self.directory().join(format!("{}.so", self.program)))
    }

    /// Whether such a binary is part of the matrix.
    fn exists(&self) -> bool {
        let deep = DEEP_TOOLCHAINS.contains(&self.toolchain);
        if self.toolchain.contains("rc") {
            return self.variant == Variant::Stripped
                && matches!(
                    self.program,
                    Program::States | Program::Memory | Program::Profiles | Program::Collector
                );
        }
        match (self.program, self.variant) {
            (Program::Agent, variant) => variant == Variant::Stripped && self.minor() >= 24,
            (
                Program::States,
                Variant::Race | Variant::NoOpt | Variant::V3 | Variant::Pgo | Variant::CShared,
            ) => deep,
            (Program::Profiles, Variant::Inlined) => INLINED_TOOLCHAINS.contains(&self.toolchain),
            (Program::Profiles, Variant::Cover) => deep,
            (_, Variant::Inlined | Variant::Cover) => false,
            (Program::States, _) => true,
            (Program::Running | Program::Churn, Variant::NoOpt) => deep,
            (Program::Collector | Program::Hot, Variant::Cgo) => true,
            (Program::Profiles, Variant::NoOpt | Variant::V3 | Variant::Pgo | Variant::Race) => deep,
            (Program::Profiles, Variant::Plain | Variant::Cgo) => true,
            (Program::Memory, Variant::Cgo) => true,
            (_, variant) => matches!(variant, Variant::Stripped | Variant::Pie),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "go{}/{}/{}", self.toolchain, self.variant, self.program)
    }
}

/// The minor version of a toolchain's name.
pub(crate) fn minor(toolchain: &str) -> u32 {
    let text = toolchain.split('.').nth(1).unwrap_or_default();
    text.split(|c: char| !c.is_ascii_digit()).next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// How much of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// [`QUICK_TOOLCHAINS`], for daily work.
    Quick,
    /// Every toolchain and every variant, but not every pair of the two.
    Spread,
    /// Everything that can be built.
    Full,
}

impl Selection {
    /// The selection named by the environment variable `GOPS_PROBE_MATRIX`: `quick` where it is not set.
    ///
    /// # Errors
    ///
    /// The variable's value, where it names no selection.
    pub fn from_environment() -> Result<Self, String> {
        match std::env::var("GOPS_PROBE_MATRIX") {
            Err(_) => Ok(Self::Quick),
            Ok(value) => match value.as_str() {
                "" | "quick" => Ok(Self::Quick),
                "spread" => Ok(Self::Spread),
                "full" => Ok(Self::Full),
                _ => Err(value),
            },
        }
    }
}

/// The cells of a selection, in a fixed order: by program, then toolchain, then variant.
#[must_use]
pub fn cells(selection: Selection) -> Vec<Cell> {
    let mut cells = Vec::new();
    for program in Program::ALL {
        for (position, toolchain) in TOOLCHAINS.into_iter().enumerate() {
            for variant in Variant::ALL {
                let cell = Cell::new(toolchain, variant, program);
                if cell.exists() && selected(selection, cell, position) {
                    cells.push(cell);
                }
            }
        }
    }
    cells
}

/// Whether a cell belongs to a selection; `position` is its toolchain's index in [`TOOLCHAINS`].
fn selected(selection: Selection, cell: Cell, position: usize) -> bool {
    let stripped = cell.variant == Variant::Stripped;
    // The numbers are the same however it is built; the newest shows that.
    if cell.program == Program::Memory && cell.toolchain == "1.27.4" {
        return true;
    }
    if cell.program != Program::States {
        return match selection {
            Selection::Full => true,
            Selection::Spread => {
                let other = match cell.variant {
                    // Up to Go 1.19 the profile of locks takes one variable more.
                    Variant::Pie if cell.program == Program::Profiles && cell.minor() == 19 => true,
                    Variant::Pie | Variant::Cgo => QUICK_TOOLCHAINS.contains(&cell.toolchain),
                    Variant::Inlined | Variant::Cover => cell.toolchain == "1.27.4",
                    Variant::NoOpt | Variant::V3 => true,
                    _ => false,
                };
                let with_c = cell.program == Program::Hot && cell.variant == Variant::Cgo;
                let pie = cell.program == Program::Hot && cell.variant == Variant::Pie && other;
                ((stripped || with_c || pie) && cell.program.spread().contains(&cell.toolchain))
                    || (cell.program == Program::Profiles && other)
            }
            Selection::Quick => {
                let newest = Some(&cell.toolchain) == QUICK_TOOLCHAINS.last();
                let measured = matches!(
                    cell.program,
                    Program::Parked | Program::Blocked | Program::Agent | Program::HttpServer
                );
                let other = matches!(cell.variant, Variant::Pie | Variant::Cgo);
                (stripped && QUICK_TOOLCHAINS.contains(&cell.toolchain) && (newest || !measured))
                    || (matches!(cell.program, Program::Profiles | Program::Hot) && newest && other)
            }
        };
    }
    let quick = match cell.variant {
        Variant::Stripped | Variant::NoSections | Variant::NoBuildInfo => {
            QUICK_TOOLCHAINS.contains(&cell.toolchain)
        }
        Variant::Pie | Variant::Cgo => cell.toolchain == "1.27.4",
        _ => false,
    };
    match selection {
        Selection::Full => true,
        Selection::Quick => quick,
        Selection::Spread => {
            quick
                || match cell.variant {
                    // Three cells from one build.
                    Variant::Stripped | Variant::NoSections | Variant::NoBuildInfo => true,
                    // Each needs a standard library of its own: one of the three per toolchain,
                    // so that each minor meets at least one and each variant at least five minors.
                    Variant::Pie => position % 3 == 1,
                    Variant::Plain => position % 3 == 2,
                    Variant::Cgo => position.is_multiple_of(3),
                    Variant::Race | Variant::NoOpt | Variant::V3 | Variant::Pgo | Variant::CShared => true,
                    Variant::Inlined | Variant::Cover => false,
                }
        }
    }
}

/// The folder of the fixtures' Go module.
#[must_use]
pub fn source_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Where built fixtures are: `fixtures/.build`, or `GOPS_PROBE_FIXTURES` where that is set.
#[must_use]
pub fn build_root() -> PathBuf {
    std::env::var_os("GOPS_PROBE_FIXTURES").map_or_else(|| source_root().join(".build"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_covers_every_toolchain_and_variant() {
        let cells = cells(Selection::Spread);
        for toolchain in TOOLCHAINS {
            assert!(cells.iter().any(|cell| cell.toolchain == toolchain), "{toolchain}");
        }
        for variant in Variant::ALL {
            assert!(cells.iter().any(|cell| cell.variant == variant), "{variant}");
        }
        for program in Program::ALL {
            assert!(cells.iter().any(|cell| cell.program == program), "{program}");
        }
    }

    #[test]
    fn selections_are_nested() {
        let (quick, spread, full) =
            (cells(Selection::Quick), cells(Selection::Spread), cells(Selection::Full));
        assert!(quick.iter().all(|cell| spread.contains(cell)));
        assert!(spread.iter().all(|cell| full.contains(cell)));
        assert!(quick.len() < spread.len() && spread.len() < full.len());
    }

    #[test]
    fn edited_cells_come_with_their_origin() {
        for selection in [Selection::Quick, Selection::Spread, Selection::Full] {
            let cells = cells(selection);
            for cell in &cells {
                if let Some(variant) = cell.variant.derived_from() {
                    assert!(cells.contains(&Cell { variant, ..*cell }), "{cell}");
                }
            }
        }
    }
}
