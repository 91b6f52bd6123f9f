//! Application of the recipes of one table file to a program.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::recipe::{PACKAGE, Recipe, RecipeKind, Set, Shape};
use super::{Compilation, Evidence, FoundGlobal, Globals, code};
use crate::addr::LinkAddr;
use crate::image::Image;
use crate::pclntab::{Func, Pclntab};
use crate::toolchain::{self, Sheet};

/// Structs with fields sorted by name. A patch release can insert a field before all others (as 1.21.6 did).
/// All fields then agree on a wrong base.
const PREPENDED: &[&str] = &["runtime.debug"];

/// Part of a table file that this module reads.
#[cfg(feature = "generate")]
#[derive(serde::Deserialize)]
struct Text<'a> {
    #[serde(borrow)]
    recipes: Recipes<'a>,
}

/// Recipes of a release, one set for each compilation. Sets after the first two contain only the variables
/// that those two do not find in programs of that compilation.
#[cfg_attr(feature = "generate", derive(serde::Deserialize))]
pub(super) struct Recipes<'a> {
    #[cfg_attr(feature = "generate", serde(borrow))]
    pub(super) optimised: Set<'a>,
    #[cfg_attr(feature = "generate", serde(borrow))]
    pub(super) unoptimised: Set<'a>,
    #[cfg_attr(feature = "generate", serde(borrow, default))]
    pie: Set<'a>,
    #[cfg_attr(feature = "generate", serde(borrow, default))]
    inlined_more: Set<'a>,
    #[cfg_attr(feature = "generate", serde(borrow, default))]
    race: Set<'a>,
    #[cfg_attr(feature = "generate", serde(borrow, default))]
    profiled: Set<'a>,
    #[cfg_attr(feature = "generate", serde(borrow, default))]
    cover: Set<'a>,
    #[cfg_attr(feature = "generate", serde(borrow, default))]
    v3: Set<'a>,
}

impl<'a> Recipes<'a> {
    fn common(&self) -> [(Compilation, &Set<'a>); 2] {
        [(Compilation::Optimised, &self.optimised), (Compilation::Unoptimised, &self.unoptimised)]
    }

    fn supplements(&self) -> [(Compilation, &Set<'a>); 6] {
        [
            (Compilation::PositionIndependent, &self.pie),
            (Compilation::InlinedMore, &self.inlined_more),
            (Compilation::Race, &self.race),
            (Compilation::Profiled, &self.profiled),
            (Compilation::Covered, &self.cover),
            (Compilation::V3, &self.v3),
        ]
    }
}

/// Parses the recipes in the text of a table file.
#[cfg(feature = "generate")]
pub(super) fn recipes_of(text: &str) -> Option<Recipes<'_>> {
    serde_json::from_str::<Text<'_>>(text).ok().map(|text| text.recipes)
}

/// Returns the recipes of a table file, changed by the program's experiments.
pub(super) fn recipes(sheet: &Sheet) -> Recipes<'static> {
    // Order of the packed recipes.
    let [optimised, unoptimised, pie, inlined_more, race, profiled, cover, v3] = std::array::from_fn(|way| {
        let (functions, variables) = sheet.file.recipes(way);
        // Exclusion of other compilations: differences were measured with the usual one only.
        if sheet.difference.is_some() && way != 0 { Set::default() } else { Set { functions, variables } }
    });
    let mut recipes = Recipes { optimised, unoptimised, pie, inlined_more, race, profiled, cover, v3 };
    if let Some(difference) = &sheet.difference {
        recipes.optimised.functions.change(&difference.functions);
        recipes.optimised.variables.change(&difference.recipes);
    }
    recipes
}

/// Program with a cache of decoded functions. Each function is decoded at most once, on first use.
pub(super) struct Program<'p> {
    pub(super) image: &'p Image,
    pub(super) pclntab: &'p Pclntab,
    pub(super) decoded: &'p mut Decoded,
}

/// Decoded functions of the runtime, by name without package.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    functions: HashMap<String, Vec<Arc<code::Code>>>,
    references: usize,
}

/// Maximum number of references that are cached. The functions of all recipes have about ten thousand;
/// damaged functions can have more.
const MAX_REFERENCES: usize = 1 << 20;

impl Decoded {
    /// Clears the cache if it contains more than [`MAX_REFERENCES`].
    pub(super) fn limit(&mut self) {
        if self.references > MAX_REFERENCES {
            *self = Decoded::default();
        }
    }
}

impl Program<'_> {
    /// Returns true if the program has a function of this name (without package).
    pub(super) fn has(&self, name: &str) -> bool {
        named(self.pclntab, name).next().is_some()
    }

    /// Returns the decoded functions of this name (without package).
    pub(super) fn decoded(&mut self, name: &str) -> &[Arc<code::Code>] {
        let Decoded { functions, references } = &mut *self.decoded;
        functions.entry(name.to_owned()).or_insert_with(|| {
            let found = named(self.pclntab, name).filter_map(|f| code::decode(self.image, f));
            found.map(Arc::new).inspect(|code| *references += code.references.len()).collect()
        })
    }
}

/// Returns the functions of this name (without package). One name can have several functions: an ABI wrapper
/// has the name of the wrapped function.
fn named<'t>(pclntab: &'t Pclntab, name: &str) -> impl Iterator<Item = Func<'t>> + use<'t> {
    const SAME_NAME: usize = 4;
    pclntab.of_runtime(&format!("{PACKAGE}{name}")).take(SAME_NAME).collect::<Vec<_>>().into_iter()
}

/// Finds the `wanted` variables by recipes. The structs in `steady` are known to be unchanged since the
/// recipe was learned.
pub(super) fn apply(
    program: &mut Program<'_>,
    recipes: &Recipes<'_>,
    evidence: toolchain::Evidence,
    wanted: &[&str],
    steady: &HashSet<&str>,
) -> Globals {
    let mut globals = Globals::default();
    let image = program.image;
    let mut take = |view: &View<'_>| {
        for name in wanted {
            if globals.get(name).is_none()
                && let Some(found) = view.solve(image, name, evidence, steady.contains(name))
            {
                globals.found.insert((*name).to_owned(), found);
            }
        }
        wanted.iter().all(|name| globals.get(name).is_some())
    };
    // Order by recognised code, which shows the compiler options of the program.
    let common = recipes.common().map(|(compilation, set)| Plan::new(compilation, set, wanted));
    let mut views = common.each_ref().map(|plan| View::new(program, plan));
    views.sort_by_key(|view| std::cmp::Reverse(view.recognised()));
    if !views.iter().any(&mut take) {
        let _ = recipes.supplements().into_iter().any(|(compilation, set)| {
            let plan = Plan::new(compilation, set, wanted);
            take(&View::new(program, &plan))
        });
    }
    globals
}

/// Returns the addresses that single operands suggest for one variable.
pub(super) fn suspects(image: &Image, pclntab: &Pclntab, sheet: &Sheet, name: &str) -> Vec<LinkAddr> {
    let recipes = recipes(sheet);
    let wanted = [name];
    let plans = recipes.common().map(|(compilation, set)| Plan::new(compilation, set, &wanted));
    let names: BTreeSet<&str> =
        plans.iter().flat_map(|plan| plan.shapes.keys()).map(String::as_str).collect();
    let functions: Vec<Func<'_>> = names.iter().flat_map(|name| named(pclntab, name)).collect();
    let mut found = Vec::new();
    for plan in &plans {
        let Some(recipe) = plan.recipes.get(name) else { continue };
        let all = functions.iter().filter_map(|f| code::decode(image, *f));
        // References at any place in a function: the contents at the address decide later.
        for reference in all.flat_map(|code| code.references) {
            for witness in &recipe.witnesses {
                let address = LinkAddr(reference.target.0.wrapping_sub(witness.addend));
                let likely = reference.operation.is(&witness.operation) && possible(image, address, recipe);
                if likely && !found.contains(&address) && found.len() < MAX_SUSPECTS {
                    found.push(address);
                }
            }
        }
    }
    found
}

/// Maximum number of suspects. The functions of one variable have some tens of operands.
const MAX_SUSPECTS: usize = 1024;

/// Recipes and shapes of one recipe set that the wanted variables need.
struct Plan<'w> {
    compilation: Compilation,
    recipes: HashMap<&'w str, Recipe>,
    shapes: HashMap<String, Shape>,
}

impl<'w> Plan<'w> {
    fn new(compilation: Compilation, set: &Set<'_>, wanted: &[&'w str]) -> Self {
        let recipes: HashMap<&str, Recipe> =
            wanted.iter().filter_map(|w| Some((*w, set.recipe(w)?))).collect();
        let functions = recipes.values().flat_map(|r| &r.witnesses).map(|w| &w.function);
        let shapes = functions.filter_map(|f| Some((f.clone(), set.shape(f)?))).collect();
        Plan { compilation, recipes, shapes }
    }
}

/// Functions of the program that match the shapes in a plan.
struct View<'p> {
    plan: &'p Plan<'p>,
    /// Functions with the expected number of references. The flag is true if the code is exactly the expected
    /// one.
    functions: HashMap<&'p str, (Arc<code::Code>, bool)>,
}

impl<'p> View<'p> {
    fn new(program: &mut Program<'_>, plan: &'p Plan<'p>) -> Self {
        let mut view = View { plan, functions: HashMap::new() };
        for (name, shape) in &plan.shapes {
            let decoded = program.decoded(name).iter();
            let mut fitting: Vec<&Arc<code::Code>> =
                decoded.filter(|c| c.references.len() == shape.references).collect();
            if let Some(same) = fitting.iter().find(|c| c.fingerprint == shape.fingerprint) {
                view.functions.insert(name, (Arc::clone(same), true));
            } else if fitting.len() == 1 {
                view.functions.extend(fitting.pop().map(|c| (name.as_str(), (Arc::clone(c), false))));
            }
        }
        view
    }

    fn recognised(&self) -> usize {
        self.functions.values().filter(|(_, same)| *same).count()
    }

    fn solve(
        &self,
        image: &Image,
        name: &str,
        table: toolchain::Evidence,
        steady: bool,
    ) -> Option<FoundGlobal> {
        let recipe = self.plan.recipes.get(name)?;
        let neighbour = matches!(table, toolchain::Evidence::NeighbourMinor { .. });
        if neighbour && recipe.kind == RecipeKind::Aggregate {
            return None;
        }
        let mut ballot: BTreeMap<LinkAddr, Votes<'_>> = BTreeMap::new();
        for w in &recipe.witnesses {
            if neighbour && w.addend != 0 {
                continue;
            }
            let Some((code, same)) = self.functions.get(w.function.as_str()) else { continue };
            let Some(r) = code.references.get(w.ordinal).filter(|r| r.operation.is(&w.operation)) else {
                continue;
            };
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
        // Other patch release: fields can have moved. The base of a struct is accepted only if several fields
        // agree, the first field among them, and no field disagrees.
        let unanimous = winner.count == all && winner.addends.len() >= 2 && winner.addends.contains(&0);
        let prepended = PREPENDED.contains(&name);
        if recipe.kind == RecipeKind::Aggregate && !steady && (prepended || !unanimous) {
            return None;
        }
        let evidence = Evidence::Recipe {
            table,
            compilation: self.plan.compilation,
            votes: all,
            agreeing: winner.count,
            fingerprints: winner.fingerprints,
        };
        Some(FoundGlobal { address: *address, evidence })
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

    /// Weight of all votes. An operand in code with an equal fingerprint counts ten times.
    fn weight(&self) -> u32 {
        self.count + 9 * self.fingerprints
    }
}

/// Returns true if the variable can be at this address: aligned, wholly inside a segment, and not in code.
fn possible(image: &Image, address: LinkAddr, recipe: &Recipe) -> bool {
    let alignment = match recipe.kind {
        RecipeKind::Word => recipe.size.max(1),
        RecipeKind::Slice => 8,
        // Alignment 1, because the variable can consist of bytes.
        RecipeKind::Aggregate => 1,
    };
    address.0.is_multiple_of(alignment)
        && image
            .segment(address)
            .is_some_and(|s| !s.executable && recipe.size <= s.mem_size - (address.0 - s.start.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{self, releases};
    use crate::version::GoVersion;

    #[test]
    fn every_table_has_recipes_that_can_be_followed() {
        for release in releases() {
            let version = GoVersion::release(release.minor, release.patch);
            let recipes = recipes(&toolchain::files(crate::image::Arch::Amd64, &version)[0]);
            let layouts = layout::lookup(crate::image::Arch::Amd64, &version).unwrap().table;
            for (compilation, set) in recipes.common() {
                for name in
                    ["allgs", "allglen", "allgptr", "allm", "allp", "sched", "firstmoduledata", "debug"]
                {
                    let name = format!("runtime.{name}");
                    let recipe =
                        set.recipe(&name).unwrap_or_else(|| panic!("{release} {compilation:?}: no {name}"));
                    let functions: BTreeSet<_> = recipe.witnesses.iter().map(|w| &w.function).collect();
                    assert!(functions.len() >= 2, "{release} {compilation:?}: {name} {functions:?}");
                }
            }
            for (compilation, set) in recipes.common().into_iter().chain(recipes.supplements()) {
                for (name, _) in set.variables.iter() {
                    let what = format!("{release} {compilation:?}: {name}");
                    let recipe = set.recipe(name).unwrap_or_else(|| panic!("{what}"));
                    assert_eq!(layouts.size(name), Some(recipe.size), "{what}");
                    assert!(!recipe.witnesses.is_empty(), "{what}");
                    for w in &recipe.witnesses {
                        let shape =
                            set.shape(&w.function).unwrap_or_else(|| panic!("{what}: {}", w.function));
                        assert!(w.ordinal < shape.references && w.addend < recipe.size, "{what}");
                    }
                }
            }
        }
    }
}
