//! Addresses of the runtime's global variables.
//!
//! A stripped program has no names of variables, but it still has the names of all its functions. Functions
//! that use a variable contain its address in their operands, and the compiler of the program is known. A
//! program of the same release that was *not* stripped therefore shows, for example, that the third reference
//! of `runtime.allgadd` is to `runtime.allgs` + 8. This knowledge is a [`recipe`]. Its application to another
//! program is a vote. [`solve`] accepts a variable only if the votes leave no doubt; doubtful variables are
//! absent from the result.
//!
//! A symbol table, if there is one, is faster and certain: [`from_symtab`].

mod agreement;
mod build_version;
pub mod code;
pub mod recipe;
mod search;
mod solver;
mod symtab;
mod verdict;

use std::collections::BTreeMap;
#[cfg(feature = "generate")]
use std::collections::HashSet;

pub use agreement::Agreement;
pub use build_version::build_version;
pub use search::Search;
pub use symtab::from_symtab;
pub use verdict::Verdict;

use crate::addr::LinkAddr;
use crate::image::Image;
use crate::pclntab::Pclntab;
use crate::toolchain;
use crate::version::GoVersion;

/// Variables that have recipes, in the releases that contain them.
pub const VARIABLES: &[&str] = &[
    // goroutines, threads, processors
    "runtime.allgs",
    "runtime.allglen",
    "runtime.allgptr",
    "runtime.allm",
    "runtime.allp",
    "runtime.gomaxprocs",
    "runtime.ncpu",
    "runtime.numCPUStartup",
    "runtime.newprocs",
    "runtime.sched",
    "runtime.g0",
    "runtime.m0",
    "runtime.extraM",
    "runtime.netpollWaiters",
    "runtime.semtable",
    // the program
    "runtime.firstmoduledata",
    "runtime.buildVersion",
    "runtime.modinfo",
    "runtime.iscgo",
    "runtime.islibrary",
    "runtime.debug",
    "runtime.traceback_cache",
    "runtime.traceback_env",
    "runtime.runtimeInitTime",
    "runtime.waitReasonStrings",
    "runtime.runningPanicDefers",
    "runtime.panicking",
    // finalizers and cleanups
    "runtime.fing",
    "runtime.fingStatus",
    "runtime.fingRunning",
    "runtime.fingwait",
    "runtime.gcCleanups",
    // garbage collection and heap
    "runtime.gcphase",
    "runtime.gcBlackenEnabled",
    "runtime.work",
    "runtime.sweep",
    "runtime.scavenge",
    "runtime.gcController",
    "runtime.gcCPULimiter",
    "runtime.forcegc",
    "runtime.forcegcperiod",
    "runtime.memstats",
    "runtime.mheap_",
    "runtime.emptymspan",
    "runtime.stackpool",
    "runtime.stackLarge",
    "runtime.physPageSize",
    // profiles and trace
    "runtime.mbuckets",
    "runtime.bbuckets",
    "runtime.xbuckets",
    "runtime.mProf",
    "runtime.mProfCycle",
    "runtime.MemProfileRate",
    "runtime.disableMemoryProfiling",
    "runtime.blockprofilerate",
    "runtime.mutexprofilerate",
    "runtime.ticks",
    "runtime.cpuprof",
    "runtime.trace",
];

/// Compilation of the program that a recipe was learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compilation {
    /// Default optimisation, as in `go build`.
    Optimised,
    /// No optimisation and no inlining: `-gcflags=all=-N -l`.
    Unoptimised,
    /// Position-independent code: `-buildmode=pie`.
    PositionIndependent,
    /// More inlining: `-gcflags=all=-l=4`. Functions that call others are inlined too.
    InlinedMore,
    /// Race detector: `-race`.
    Race,
    /// Profile-guided optimisation (`-pgo`) with the profile of the Go compiler.
    Profiled,
    /// Coverage counters, in the runtime too: `-cover -coverpkg=all`.
    Covered,
    /// Newer instruction set: `GOAMD64=v3`.
    V3,
}

/// Evidence for the address of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// Entry of the symbol table.
    SymbolTable,
    /// Operands of functions, by a recipe.
    Recipe {
        /// Release that the recipe was learned from.
        table: toolchain::Evidence,
        /// Compilation that the recipe was learned from.
        compilation: Compilation,
        /// Number of operands found at the places that the recipe names.
        votes: u32,
        /// Number of these operands that refer to this address.
        agreeing: u32,
        /// Number of the agreeing operands that are in functions with exactly the learned code.
        fingerprints: u32,
    },
}

/// Variable that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundGlobal {
    /// Link address of the variable.
    pub address: LinkAddr,
    /// Evidence for the address.
    pub evidence: Evidence,
}

/// Variables that were found, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globals {
    found: BTreeMap<String, FoundGlobal>,
}

impl Globals {
    /// Returns the variable `name` (`runtime.allgs`), if it is known.
    pub fn get(&self, name: &str) -> Option<FoundGlobal> {
        self.found.get(name).copied()
    }

    /// Returns the link address of `name`, if it is known.
    pub fn address(&self, name: &str) -> Option<LinkAddr> {
        self.get(name).map(|f| f.address)
    }

    /// Iterates over all known variables.
    pub fn iter(&self) -> impl Iterator<Item = (&str, FoundGlobal)> {
        self.found.iter().map(|(name, found)| (name.as_str(), *found))
    }

    /// Returns only the known variables with one of these names.
    #[must_use]
    pub fn only(&self, names: &[&str]) -> Globals {
        let found = names.iter().filter_map(|name| Some(((*name).to_owned(), self.get(name)?)));
        Globals { found: found.collect() }
    }

    /// Adds the variables of `other` that are unknown here.
    pub fn fill(&mut self, other: Globals) {
        for (name, found) in other.found {
            self.found.entry(name).or_insert(found);
        }
    }
}

/// Finds the `wanted` variables of a program of this version by recipes. Names include the package
/// (`runtime.allgs`).
///
/// A variable is found if enough operands refer to the same address, and no comparable number to another
/// address. Enough are operands in at least two functions, or one operand in a function with exactly the
/// learned code. With the table of a neighbouring minor release, only words, strings and slices are found,
/// because fields of structs can have moved. Callers still check each variable by its meaning before use.
pub fn solve(image: &Image, pclntab: &Pclntab, version: &GoVersion, wanted: &[&str]) -> Globals {
    Search::new(version.clone()).find(image, pclntab, wanted)
}

/// Finds variables like [`solve`], by the text of a table file of exactly the program's release.
#[cfg(feature = "generate")]
pub fn solve_by(image: &Image, pclntab: &Pclntab, text: &str, wanted: &[&str]) -> Globals {
    let steady = wanted.iter().copied().collect();
    let recipes = solver::recipes_of(text);
    recipes.map_or_else(Globals::default, |recipes| {
        let mut program = solver::Program { image, pclntab, decoded: &mut solver::Decoded::default() };
        solver::apply(&mut program, &recipes, toolchain::Evidence::Exact, wanted, &steady)
    })
}

/// Returns all addresses that single operands suggest for `wanted`, however doubtful, nearest table first.
/// The caller must check the contents at each address.
pub fn suspects(image: &Image, pclntab: &Pclntab, version: &GoVersion, wanted: &str) -> Vec<LinkAddr> {
    let mut found = Vec::new();
    for sheet in toolchain::files(image.arch(), version) {
        for address in solver::suspects(image, pclntab, &sheet, wanted) {
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found
}

/// Finds variables like [`solve`], with the table of another minor release. Measures how well recipes work
/// across releases.
#[cfg(feature = "generate")]
pub fn solve_as_neighbour(
    image: &Image,
    pclntab: &Pclntab,
    used: toolchain::Release,
    wanted: &[&str],
) -> Globals {
    let Some(sheet) = toolchain::as_neighbour(used) else { return Globals::default() };
    let mut program = solver::Program { image, pclntab, decoded: &mut solver::Decoded::default() };
    solver::apply(&mut program, &solver::recipes(&sheet), sheet.evidence, wanted, &HashSet::new())
}
