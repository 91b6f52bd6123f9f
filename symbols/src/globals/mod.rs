//! Addresses of the runtime's global variables.
//!
//! A stripped program still has all its functions by name; only the names of variables are gone. But the
//! functions that use a variable name its address in their operands, and the compiler that built them is known.
//! So: a program of the same release that was *not* stripped teaches that, say, the third reference of
//! `runtime.allgadd` is to `runtime.allgs` + 8. That is a [`recipe`]; its application to another program is a
//! vote, and [`solve`] accepts a variable where the votes leave no doubt. What is doubtful is absent.
//!
//! A symbol table, where there is one, is quicker and certain: [`from_symtab`].

mod amd64;
pub mod code;
pub mod recipe;
mod symtab;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use recipe::{Kind, PACKAGE, Recipe, Set};
pub use symtab::from_symtab;

use crate::addr::LinkAddr;
use crate::image::Image;
use crate::pclntab::{Func, Pclntab};
use crate::version::GoVersion;
use crate::{layout, toolchain};

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
    "runtime.mProfCycle",
    "runtime.MemProfileRate",
    "runtime.disableMemoryProfiling",
    "runtime.blockprofilerate",
    "runtime.mutexprofilerate",
    "runtime.cpuprof",
    "runtime.trace",
];

/// Structs whose fields are sorted by name, so that a patch release puts one before all others (1.21.6 did): all
/// fields then agree on a base that is wrong.
const PREPENDED: &[&str] = &["runtime.debug"];

/// How the toolchain compiled the program that the recipes are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compilation {
    /// As `go build` does.
    Optimised,
    /// With `-gcflags=all=-N -l`.
    Unoptimised,
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
pub struct Found {
    /// Where it is linked.
    pub address: LinkAddr,
    /// Why that is believed.
    pub evidence: Evidence,
}

/// The variables that were found, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globals {
    found: BTreeMap<String, Found>,
}

impl Globals {
    /// The variable `name` (`runtime.allgs`), if it is known.
    pub fn get(&self, name: &str) -> Option<Found> {
        self.found.get(name).copied()
    }

    /// The address of `name`, if it is known.
    pub fn address(&self, name: &str) -> Option<LinkAddr> {
        self.get(name).map(|f| f.address)
    }

    /// All that are known.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Found)> {
        self.found.iter().map(|(name, found)| (name.as_str(), *found))
    }

    /// Takes from `other` what is unknown here.
    pub fn fill(&mut self, other: Globals) {
        for (name, found) in other.found {
            self.found.entry(name).or_insert(found);
        }
    }
}

/// The part of a table file that this module reads.
#[derive(serde::Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    recipes: Recipes<'a>,
}

#[derive(serde::Deserialize)]
struct Recipes<'a> {
    #[serde(borrow)]
    optimised: Set<'a>,
    #[serde(borrow)]
    unoptimised: Set<'a>,
}

/// Finds the `wanted` variables (with their package: `runtime.allgs`) of a program of this version by recipes.
///
/// A variable is found where operands in at least two functions, or one in a function whose code is exactly the
/// learned one, name the same address, and no comparable number another. From a neighbouring minor only words,
/// strings and slices are taken, for the fields of structs have moved. Callers still check a variable by its
/// meaning before they use it.
pub fn solve(image: &Image, pclntab: &Pclntab, version: &GoVersion, wanted: &[&str]) -> Globals {
    let mut globals = Globals::default();
    let Some((text, _, evidence)) = toolchain::file(version) else { return globals };
    let Ok(File { recipes }) = serde_json::from_str::<File<'_>>(text) else { return globals };
    let sets =
        [(Compilation::Optimised, &recipes.optimised), (Compilation::Unoptimised, &recipes.unoptimised)];
    let plans: Vec<Plan<'_>> = sets.iter().map(|(c, set)| Plan::new(*c, set, wanted)).collect();
    let names = plans.iter().flat_map(|p| p.functions.iter().map(String::as_str)).collect();
    let functions = index(pclntab, &names);
    // Which compiler options the program was built with shows in the first plan that recognises code.
    let mut views: Vec<View<'_>> = plans.iter().map(|p| View::new(image, &functions, p)).collect();
    if views.len() == 2 && views[1].recognised() > views[0].recognised() {
        views.reverse();
    }
    let steady: HashSet<&str> = match evidence {
        toolchain::Evidence::Exact => wanted.iter().copied().collect(),
        _ => layout::steady(version, wanted),
    };
    for view in &views {
        let unknown: Vec<&str> = wanted.iter().copied().filter(|w| globals.get(w).is_none()).collect();
        for name in unknown {
            if let Some(found) = view.solve(image, name, evidence, steady.contains(name)) {
                globals.found.insert(name.to_owned(), found);
            }
        }
    }
    globals
}

/// What is needed of one recipe set.
struct Plan<'w> {
    compilation: Compilation,
    recipes: HashMap<&'w str, Recipe>,
    functions: BTreeSet<String>,
    shapes: HashMap<String, recipe::Shape>,
}

impl<'w> Plan<'w> {
    fn new(compilation: Compilation, set: &Set<'_>, wanted: &[&'w str]) -> Self {
        let recipes: HashMap<&str, Recipe> =
            wanted.iter().filter_map(|w| Some((*w, set.recipe(w)?))).collect();
        let functions: BTreeSet<String> =
            recipes.values().flat_map(|r| &r.witnesses).map(|w| w.function.clone()).collect();
        let shapes = functions.iter().filter_map(|f| Some((f.clone(), set.shape(f)?))).collect();
        Plan { compilation, recipes, functions, shapes }
    }
}

/// The functions of these names (without package). One name may have several: a wrapper for the other calling
/// convention is called as what it wraps.
fn index<'t>(pclntab: &'t Pclntab, names: &BTreeSet<&str>) -> HashMap<String, Vec<Func<'t>>> {
    const SAME_NAME: usize = 4;
    let wanted: HashMap<&[u8], &str> = names.iter().map(|n| (n.as_bytes(), *n)).collect();
    let mut functions: HashMap<String, Vec<Func<'t>>> = HashMap::new();
    for func in pclntab.functions() {
        let Some(name) = func.name().strip_prefix(PACKAGE.as_bytes()) else { continue };
        let Some(name) = wanted.get(name) else { continue };
        let list = functions.entry((*name).to_owned()).or_default();
        if list.len() < SAME_NAME {
            list.push(func);
        }
    }
    functions
}

/// The target's functions beside what a plan expects of them.
struct View<'p> {
    plan: &'p Plan<'p>,
    /// The references of each function that has as many as expected, and whether its code is the expected one.
    functions: HashMap<&'p str, (Vec<code::Reference>, bool)>,
}

impl<'p> View<'p> {
    fn new(image: &Image, functions: &HashMap<String, Vec<Func<'_>>>, plan: &'p Plan<'p>) -> Self {
        let mut view = View { plan, functions: HashMap::new() };
        for (name, shape) in &plan.shapes {
            let decoded = functions.get(name).into_iter().flatten().filter_map(|f| code::decode(image, *f));
            let mut fitting: Vec<code::Code> =
                decoded.filter(|c| c.references.len() == shape.references).collect();
            if let Some(same) = fitting.iter().position(|c| c.fingerprint == shape.fingerprint) {
                view.functions.insert(name, (fitting.swap_remove(same).references, true));
            } else if fitting.len() == 1 {
                view.functions.extend(fitting.pop().map(|c| (name.as_str(), (c.references, false))));
            }
        }
        view
    }

    fn recognised(&self) -> usize {
        self.functions.values().filter(|(_, same)| *same).count()
    }

    fn solve(&self, image: &Image, name: &str, table: toolchain::Evidence, steady: bool) -> Option<Found> {
        let recipe = self.plan.recipes.get(name)?;
        let neighbour = matches!(table, toolchain::Evidence::NeighbourMinor { .. });
        if neighbour && recipe.kind == Kind::Aggregate {
            return None;
        }
        let mut ballot: BTreeMap<LinkAddr, Votes<'_>> = BTreeMap::new();
        for w in &recipe.witnesses {
            if neighbour && w.addend != 0 {
                continue;
            }
            let Some((references, same)) = self.functions.get(w.function.as_str()) else { continue };
            let Some(r) = references.get(w.ordinal).filter(|r| r.operation == w.operation) else { continue };
            let address = LinkAddr(r.target.0.wrapping_sub(w.addend));
            if possible(image, address, recipe) {
                ballot.entry(address).or_default().cast(&w.function, w.addend, *same);
            }
        }
        let all: u32 = ballot.values().map(|v| v.count).sum();
        let (address, winner) = ballot.iter().max_by_key(|(_, v)| v.weight())?;
        let others: u32 = ballot.iter().filter(|(a, _)| *a != address).map(|(_, v)| v.weight()).sum();
        let enough = winner.fingerprints > 0 || winner.functions.len() >= 2;
        if !enough || winner.weight() <= 2 * others {
            return None;
        }
        // Another patch may have moved fields: a struct's base is then believed only where several fields agree,
        // the first among them, and none objects.
        let unanimous = winner.count == all && winner.addends.len() >= 2 && winner.addends.contains(&0);
        let prepended = PREPENDED.contains(&name);
        if recipe.kind == Kind::Aggregate && !steady && (prepended || !unanimous) {
            return None;
        }
        let evidence = Evidence::Recipe {
            table,
            compilation: self.plan.compilation,
            votes: all,
            agreeing: winner.count,
            fingerprints: winner.fingerprints,
        };
        Some(Found { address: *address, evidence })
    }
}

#[derive(Default)]
struct Votes<'r> {
    count: u32,
    fingerprints: u32,
    functions: BTreeSet<&'r str>,
    addends: BTreeSet<u64>,
}

impl<'r> Votes<'r> {
    fn cast(&mut self, function: &'r str, addend: u64, same: bool) {
        self.count += 1;
        self.fingerprints += u32::from(same);
        self.functions.insert(function);
        self.addends.insert(addend);
    }

    /// An operand in code that is known to the byte counts for ten.
    fn weight(&self) -> u32 {
        self.count + 9 * self.fingerprints
    }
}

/// Whether the variable can be there: aligned, wholly inside a segment, not among code.
fn possible(image: &Image, address: LinkAddr, recipe: &Recipe) -> bool {
    let alignment = match recipe.kind {
        Kind::Word => recipe.size.max(1),
        Kind::Slice => 8,
        // It may consist of bytes.
        Kind::Aggregate => 1,
    };
    address.0.is_multiple_of(alignment)
        && image
            .segment(address)
            .is_some_and(|s| !s.executable && recipe.size <= s.mem_size - (address.0 - s.start.0))
}
