//! Addresses of the runtime's global variables.
//!
//! A stripped program still has all its functions by name; only the names of variables are gone. But the
//! functions that use a variable name its address in their operands, and the compiler that built them is known.
//! So: a program of the same release that was *not* stripped teaches that, say, the third reference of
//! `runtime.allgadd` is to `runtime.allgs` + 8. That is a [`recipe`]; its application to another program is a
//! vote, and [`solve`] accepts a variable where the votes leave no doubt. What is doubtful is absent.
//!
//! A symbol table, where there is one, is quicker and certain: [`from_symtab`].

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

/// The variables that there are recipes for, in the releases that have them.
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

/// How the toolchain compiled the program that the recipes are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compilation {
    /// As `go build` does.
    Optimised,
    /// With `-gcflags=all=-N -l`.
    Unoptimised,
    /// With `-buildmode=pie`.
    PositionIndependent,
    /// With `-gcflags=all=-l=4`: what is inlined by default, and what calls others too.
    InlinedMore,
    /// With `-race`.
    Race,
    /// With a profile (`-pgo`): that of the Go compiler.
    Profiled,
    /// With `-cover -coverpkg=all`: the runtime counts what of it is executed.
    Covered,
    /// With `GOAMD64=v3`.
    V3,
}

/// Why an address is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// The symbol table says so.
    SymbolTable,
    /// Operands of functions say so.
    Recipe {
        /// The release that the recipe was learned from.
        table: toolchain::Evidence,
        /// The compilation that the recipe was learned from.
        compilation: Compilation,
        /// How many operands were found where the recipe expects them.
        votes: u32,
        /// How many of them name this address.
        agreeing: u32,
        /// How many of those are in functions whose code is exactly the learned one.
        fingerprints: u32,
    },
}

/// A variable that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundGlobal {
    /// Where it is linked.
    pub address: LinkAddr,
    /// Why that is believed.
    pub evidence: Evidence,
}

/// The variables that were found, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globals {
    found: BTreeMap<String, FoundGlobal>,
}

impl Globals {
    /// The variable `name` (`runtime.allgs`), if it is known.
    pub fn get(&self, name: &str) -> Option<FoundGlobal> {
        self.found.get(name).copied()
    }

    /// The address of `name`, if it is known.
    pub fn address(&self, name: &str) -> Option<LinkAddr> {
        self.get(name).map(|f| f.address)
    }

    /// All that are known.
    pub fn iter(&self) -> impl Iterator<Item = (&str, FoundGlobal)> {
        self.found.iter().map(|(name, found)| (name.as_str(), *found))
    }

    /// Those of them that have one of these names.
    #[must_use]
    pub fn only(&self, names: &[&str]) -> Globals {
        let found = names.iter().filter_map(|name| Some(((*name).to_owned(), self.get(name)?)));
        Globals { found: found.collect() }
    }

    /// Takes from `other` what is unknown here.
    pub fn fill(&mut self, other: Globals) {
        for (name, found) in other.found {
            self.found.entry(name).or_insert(found);
        }
    }
}

/// Finds the `wanted` variables (with their package: `runtime.allgs`) of a program of this version by recipes.
///
/// A variable is found where operands in at least two functions, or one in a function whose code is exactly the
/// learned one, name the same address, and no comparable number another. From a neighbouring minor only words,
/// strings and slices are taken, for the fields of structs have moved. Callers still check a variable by its
/// meaning before they use it.
pub fn solve(image: &Image, pclntab: &Pclntab, version: &GoVersion, wanted: &[&str]) -> Globals {
    Search::new(version.clone()).find(image, pclntab, wanted)
}

/// As [`solve`], by the text of a table file that is made from the program's very release.
#[cfg(feature = "generate")]
pub fn solve_by(image: &Image, pclntab: &Pclntab, text: &str, wanted: &[&str]) -> Globals {
    let steady = wanted.iter().copied().collect();
    let recipes = solver::recipes_of(text);
    recipes.map_or_else(Globals::default, |recipes| {
        let mut program = solver::Program { image, pclntab, decoded: &mut solver::Decoded::default() };
        solver::apply(&mut program, &recipes, toolchain::Evidence::Exact, wanted, &steady)
    })
}

/// Addresses that single operands name as that of `wanted`, whatever doubts there are: for a caller who knows what has to be
/// there. Nearest table first.
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

/// As [`solve`], with the table of another minor: for measuring how well recipes carry over.
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
