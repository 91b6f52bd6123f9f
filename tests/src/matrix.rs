//! Build matrix: fixtures, Go toolchains and build variants.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Toolchains, oldest first: the newest patch of each minor, and from 1.21 on its first release too.
/// Candidates follow at the end. `generate-tables` writes the list, when a release is added.
pub const TOOLCHAINS: &[&str] = &include!("toolchains.rs");

/// Newest release.
pub const NEWEST: &str = newest_of(NEWEST_MINOR);

/// Newest release of each minor, oldest first.
pub const NEWEST_OF_EACH_MINOR: [&str; (NEWEST_MINOR - OLDEST_MINOR) as usize + 1] = {
    let mut newest = [""; (NEWEST_MINOR - OLDEST_MINOR) as usize + 1];
    let mut i = 0;
    while i < newest.len() {
        newest[i] = newest_of(OLDEST_MINOR + i as u32);
        i += 1;
    }
    newest
};

/// Releases of the quick selection: the oldest, the newest, and one between the layout changes.
pub const QUICK: [&str; 3] = [newest_of(OLDEST_MINOR), newest_of(24), NEWEST];

/// Releases that also build the variants with unusual code generation.
pub const DEEP: [&str; 3] = [newest_of(21), newest_of(24), NEWEST];

/// Releases that build [`Variant::Inlined`].
const INLINED: [&str; 3] = [newest_of(19), newest_of(24), NEWEST];

const OLDEST_MINOR: u32 = minor(TOOLCHAINS[0]);

const NEWEST_MINOR: u32 = {
    let (mut newest, mut i) = (0, 0);
    while i < TOOLCHAINS.len() {
        if !is_candidate(TOOLCHAINS[i]) && minor(TOOLCHAINS[i]) > newest {
            newest = minor(TOOLCHAINS[i]);
        }
        i += 1;
    }
    newest
};

/// Returns the newest release of a minor: `1.24.13` for 24.
///
/// # Panics
///
/// Panics if there is none; in a constant this is a compile error.
#[must_use]
pub const fn newest_of(wanted: u32) -> &'static str {
    let (mut newest, mut i) = ("", 0);
    while i < TOOLCHAINS.len() {
        if minor(TOOLCHAINS[i]) == wanted && !is_candidate(TOOLCHAINS[i]) {
            newest = TOOLCHAINS[i];
        }
        i += 1;
    }
    assert!(!newest.is_empty(), "no toolchain of this minor release");
    newest
}

/// Returns candidates and betas, oldest first.
pub fn candidates() -> impl Iterator<Item = &'static str> {
    TOOLCHAINS.iter().copied().filter(|toolchain| is_candidate(toolchain))
}

/// Returns true if a toolchain is not a release: `1.27rc1` has one dot.
const fn is_candidate(toolchain: &str) -> bool {
    let (mut dots, mut i) = (0, 0);
    while i < toolchain.len() {
        if toolchain.as_bytes()[i] == b'.' {
            dots += 1;
        }
        i += 1;
    }
    dots < 2
}

/// Build variant of a fixture: how it is built, or changed after the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// `-s -w -trimpath`, without cgo: the normal case of a production binary.
    Stripped,
    /// Default options of `go build`, without cgo: symbol table and DWARF.
    Plain,
    /// Position-independent, stripped.
    Pie,
    /// Linked by the system's linker against libc, stripped.
    Cgo,
    /// Stripped build without its section headers.
    NoSections,
    /// Stripped build with the build info blob wiped.
    NoBuildInfo,
    /// Build with the race detector, stripped.
    Race,
    /// `-gcflags=all='-N -l'`, stripped: no inlining, everything on the stack.
    NoOpt,
    /// `GOAMD64=v3`, stripped.
    V3,
    /// Optimised with a profile (from Go 1.21), stripped.
    Pgo,
    /// `-gcflags=all=-l=4`, stripped: more functions are inlined.
    Inlined,
    /// `-cover -coverpkg=all` (from Go 1.20), stripped: the runtime counts which of its code is executed.
    Cover,
    /// Shared object loaded by a C program, stripped.
    CShared,
}

impl Variant {
    /// List of all variants.
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

    /// Variants of the full product; the others are built by [`DEEP`] only.
    pub const COMMON: [Self; 6] =
        [Self::Stripped, Self::Plain, Self::Pie, Self::Cgo, Self::NoSections, Self::NoBuildInfo];

    /// Name in paths and tables.
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

    /// Variant whose build is edited to make this one; `None` if this one is built itself.
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

/// Fixture program.
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
    /// Goroutines that stop running so often between two waits that the runtime's count of it wraps around.
    Rounds,
    /// Many parked goroutines, and a clock that notices stalls.
    Parked,
    /// [`Program::Parked`] with threads that wait in system calls.
    Blocked,
    /// [`Program::Parked`] with the gops agent in it.
    Agent,
    /// HTTP server on a loopback port, or its client.
    HttpServer,
    /// Work on a heap that is checked all the time.
    Collector,
    /// Allocations, blocking and contention at known places, and the program's own profiles of them.
    Profiles,
    /// [`Program::Profiles`] without the profiles: the linker leaves sampling of allocations out.
    Unprofiled,
    /// Heap with objects of many sizes, and the program's own statistics of it.
    Memory,
    /// Computation in functions whose shares of the time are known.
    Hot,
    /// Computation on stacks that have to grow.
    Growing,
}

impl Program {
    /// List of all programs.
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

    /// Name in paths and tables.
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

    /// Folders of the fixtures' module with the program's sources, without the shared ones.
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
            Self::Hot => &["cmd/hot", "ownprofile"],
            Self::Growing => &["cmd/growing", "ownprofile"],
        }
    }

    /// Returns true if the spread selection needs the program's stripped build by this toolchain.
    fn is_spread_to(self, toolchain: &str) -> bool {
        let newest_of_one = |minors: &[u32]| minors.iter().any(|&minor| newest_of(minor) == toolchain);
        let of_each = NEWEST_OF_EACH_MINOR.contains(&toolchain);
        match self {
            Self::States | Self::Profiles | Self::Memory => true,
            Self::Cgo => toolchain == NEWEST || newest_of_one(&[18, 20, 22, 24, 25, 26]),
            Self::Running | Self::Churn => toolchain == NEWEST || newest_of_one(&[18, 21, 23, 24, 26]),
            Self::Collector | Self::Hot => of_each || is_candidate(toolchain),
            Self::Rounds | Self::Parked | Self::Blocked | Self::HttpServer | Self::Unprofiled => {
                QUICK.contains(&toolchain)
            }
            // Between these releases, the values that a growing stack saves and their places have changed.
            Self::Growing => toolchain == NEWEST || newest_of_one(&[18, 20, 21, 24]),
            // The agent's own module requires Go 1.24.
            Self::Agent => toolchain == NEWEST || newest_of_one(&[24]),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Fixture binary of one toolchain, variant and program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Cell {
    /// Go version without the `go`, one of [`TOOLCHAINS`].
    pub toolchain: &'static str,
    /// Build variant.
    pub variant: Variant,
    /// Program that is built.
    pub program: Program,
}

impl Cell {
    /// Creates the cell of a toolchain, a variant and a program.
    #[must_use]
    pub const fn new(toolchain: &'static str, variant: Variant, program: Program) -> Self {
        Self { toolchain, variant, program }
    }

    /// Minor version: 21 for 1.21.13.
    #[must_use]
    pub fn minor(&self) -> u32 {
        minor(self.toolchain)
    }

    /// Path of the executable to start; it exists after the cell was built.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory().join(self.program.name())
    }

    /// Folder of the cell's files.
    pub(crate) fn directory(&self) -> PathBuf {
        build_root().join(format!("go{}", self.toolchain)).join(self.variant.name())
    }

    /// Path of the shared object with the Go code, for [`Variant::CShared`].
    #[must_use]
    pub fn library(&self) -> Option<PathBuf> {
        (self.variant == Variant::CShared).then(|| self.directory().join(format!("{}.so", self.program)))
    }

    /// Returns true if the matrix contains this binary.
    fn exists(&self) -> bool {
        let deep = DEEP.contains(&self.toolchain);
        if is_candidate(self.toolchain) {
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
            (Program::Profiles, Variant::Inlined) => INLINED.contains(&self.toolchain),
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

/// Returns the minor version of a toolchain: the digits behind `1.`.
pub(crate) const fn minor(toolchain: &str) -> u32 {
    let (bytes, mut i, mut minor) = (toolchain.as_bytes(), 2, 0);
    while i < bytes.len() && bytes[i].is_ascii_digit() {
        minor = 10 * minor + (bytes[i] - b'0') as u32;
        i += 1;
    }
    minor
}

/// Selected part of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// [`QUICK`], for daily work.
    Quick,
    /// Every toolchain and every variant, but not every pair of the two.
    Spread,
    /// Cells that can be built.
    Full,
}

impl Selection {
    /// Returns the selection named by the environment variable `GOPS_PROBE_MATRIX`: `quick` if it is not set.
    ///
    /// # Errors
    ///
    /// Returns the variable's value if it names no selection.
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

impl Selection {
    /// Returns the releases of a test that this selection includes: for the quick selection, those in
    /// [`QUICK`].
    #[must_use]
    pub fn releases(self, all: &[&'static str]) -> Vec<&'static str> {
        let wanted = |release: &&'static str| self != Self::Quick || QUICK.contains(release);
        all.iter().copied().filter(wanted).collect()
    }
}

/// Returns the cells of a selection, in a fixed order: by program, then toolchain, then variant.
#[must_use]
pub fn cells(selection: Selection) -> Vec<Cell> {
    let mut cells = Vec::new();
    for program in Program::ALL {
        for (position, toolchain) in TOOLCHAINS.iter().copied().enumerate() {
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

/// Returns true if a selection has the cell; `position` is the index of its toolchain in [`TOOLCHAINS`].
fn selected(selection: Selection, cell: Cell, position: usize) -> bool {
    let stripped = cell.variant == Variant::Stripped;
    // The statistics do not depend on the build variant; the newest release shows that.
    if cell.program == Program::Memory && cell.toolchain == NEWEST {
        return true;
    }
    if cell.program != Program::States {
        return match selection {
            Selection::Full => true,
            Selection::Spread => {
                let other = match cell.variant {
                    // Up to Go 1.19 the mutex profile needs one more variable.
                    Variant::Pie if cell.program == Program::Profiles && cell.minor() == 19 => true,
                    Variant::Pie | Variant::Cgo => QUICK.contains(&cell.toolchain),
                    Variant::Inlined | Variant::Cover => cell.toolchain == NEWEST,
                    Variant::NoOpt | Variant::V3 => true,
                    _ => false,
                };
                let with_c = cell.program == Program::Hot && cell.variant == Variant::Cgo;
                let pie = cell.program == Program::Hot && cell.variant == Variant::Pie && other;
                ((stripped || with_c || pie) && cell.program.is_spread_to(cell.toolchain))
                    || (cell.program == Program::Profiles && other)
            }
            Selection::Quick => {
                let newest = cell.toolchain == NEWEST;
                let measured = matches!(
                    cell.program,
                    Program::Parked | Program::Blocked | Program::Agent | Program::HttpServer
                );
                let other = matches!(cell.variant, Variant::Pie | Variant::Cgo);
                (stripped && QUICK.contains(&cell.toolchain) && (newest || !measured))
                    || (matches!(cell.program, Program::Profiles | Program::Hot) && newest && other)
            }
        };
    }
    let quick = match cell.variant {
        Variant::Stripped | Variant::NoSections | Variant::NoBuildInfo => QUICK.contains(&cell.toolchain),
        Variant::Pie | Variant::Cgo => cell.toolchain == NEWEST,
        _ => false,
    };
    match selection {
        Selection::Full => true,
        Selection::Quick => quick,
        Selection::Spread => {
            quick
                || match cell.variant {
                    // One build gives three cells.
                    Variant::Stripped | Variant::NoSections | Variant::NoBuildInfo => true,
                    // Each of these variants needs its own standard library. Each toolchain builds one of the
                    // three, so that each minor has at least one and each variant at least five minors.
                    Variant::Pie => position % 3 == 1,
                    Variant::Plain => position % 3 == 2,
                    Variant::Cgo => position.is_multiple_of(3),
                    Variant::Race | Variant::NoOpt | Variant::V3 | Variant::Pgo | Variant::CShared => true,
                    Variant::Inlined | Variant::Cover => false,
                }
        }
    }
}

/// Folder of the fixtures' Go module.
#[must_use]
pub fn source_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Folder of built fixtures: `fixtures/.build`, or `GOPS_PROBE_FIXTURES` if set.
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
        for &toolchain in TOOLCHAINS {
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

    /// Checks that each release with tables is tested: its newest patch, and its first one from Go 1.21 on.
    #[test]
    fn toolchains_are_those_of_the_tables() {
        let releases: Vec<_> = symbols::layout::releases().collect();
        let newest = |minor| releases.iter().filter(|r| r.minor == minor).map(|r| r.patch).max();
        let is_tested = |r: &&symbols::layout::Release| {
            Some(r.patch) == newest(r.minor) || (r.minor >= 21 && r.patch == 0)
        };
        let expected: Vec<_> = releases.iter().filter(is_tested).map(ToString::to_string).collect();
        let found: Vec<_> = TOOLCHAINS
            .iter()
            .filter(|t| !is_candidate(t))
            .map(|toolchain| format!("go{toolchain}"))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(QUICK[0], TOOLCHAINS[0]);
        assert_eq!(NEWEST_OF_EACH_MINOR.last(), Some(&NEWEST));
        assert_eq!(candidates().count() + found.len(), TOOLCHAINS.len());
    }
}
