//! Learns recipes from a program with a symbol table. A recipe says which operands of which functions refer
//! to a variable.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use object::{Object as _, ObjectSymbol as _};
use symbols::addr::LinkAddr;
use symbols::globals::code;
pub(crate) use symbols::globals::recipe::Shape;
use symbols::globals::recipe::{PACKAGE, Recipe, RecipeKind, Witness};
use symbols::image::Image;
use symbols::layout::{Struct, Table};
use symbols::moduledata;
use symbols::pclntab::Pclntab;

use crate::Outcome;

/// Maximum number of witnesses of a variable.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    functions: usize,
    /// Maximum number of references, for variables with few functions that have several references.
    witnesses: usize,
}

/// Limit for unknown code: enough that two or more functions remain in a program with other inlining
/// decisions.
pub(crate) const MANY: Limit = Limit { functions: 8, witnesses: 10 };
/// Limit for code known to the byte, as in all programs compiled in the same way.
pub(crate) const FEW: Limit = Limit { functions: 4, witnesses: 5 };

/// Decoded program.
pub(crate) struct Program {
    functions: BTreeMap<String, code::Code>,
    /// Address, size and name of each variable, sorted by address.
    variables: Vec<(u64, u64, String)>,
}

impl Program {
    /// Reads an unstripped program and decodes its runtime.
    pub(crate) fn open(elf: Vec<u8>) -> Outcome<Self> {
        let mut variables = Vec::new();
        for symbol in object::File::parse(&*elf)?.symbols() {
            if let Ok(name) = symbol.name()
                && symbol.size() > 0
            {
                variables.push((symbol.address(), symbol.size(), name.to_owned()));
            }
        }
        variables.sort_unstable();
        let image = Image::parse(Box::new(elf))?;
        let (header, module) = moduledata::find(&image, None).ok_or("no moduledata")?;
        let pclntab = Pclntab::load(&image, &header, &module)?;
        let mut functions: BTreeMap<String, code::Code> = BTreeMap::new();
        let mut ambiguous = HashSet::new();
        for func in pclntab.functions() {
            let name = func.name_text();
            // Exclusion of generic instances: their names contain types of the program.
            let usable = !name.contains(|c: char| c.is_whitespace() || c == '[' || c == ':');
            let Some(name) = name.strip_prefix(PACKAGE).filter(|_| usable) else { continue };
            let Some(code) = code::decode(&image, func) else { continue };
            // Choice between two functions of one name: an ABI wrapper has the name of the wrapped function
            // and fewer references.
            match functions.get(name).map(|other| other.references.len().cmp(&code.references.len())) {
                None | Some(Ordering::Less) => {
                    functions.insert(name.to_owned(), code);
                }
                Some(Ordering::Equal) => {
                    ambiguous.insert(name.to_owned());
                }
                Some(Ordering::Greater) => {}
            }
        }
        functions.retain(|name, _| !ambiguous.contains(name));
        Ok(Program { functions, variables })
    }

    /// Returns the variable that contains an address, and the offset of the address in it.
    fn variable(&self, at: LinkAddr) -> Option<(&str, u64)> {
        let i = self.variables.partition_point(|(start, ..)| *start <= at.0).checked_sub(1)?;
        let (start, size, name) = self.variables.get(i)?;
        (at.0 - start < *size).then_some((name, at.0 - start))
    }
}

/// Recipes of one compilation.
pub(crate) struct Learned {
    pub(crate) functions: BTreeMap<String, Shape>,
    pub(crate) variables: BTreeMap<String, Recipe>,
}

/// Learns the recipes of the variables in `table` that are `wanted`, from a large and a minimal program.
pub(crate) fn learn(
    large: &Program,
    minimal: &Program,
    table: &Table,
    wanted: &BTreeSet<&str>,
    limit: Limit,
) -> Learned {
    let mut witnesses: HashMap<&str, Vec<Witness>> = HashMap::new();
    for (function, code) in &large.functions {
        for (ordinal, reference) in code.references.iter().enumerate() {
            let Some((name, addend)) = large.variable(reference.target) else { continue };
            if wanted.contains(name) {
                let operation = reference.operation.to_string();
                witnesses.entry(name).or_default().push(Witness {
                    function: function.clone(),
                    ordinal,
                    addend,
                    operation,
                });
            }
        }
    }
    let mut learned = Learned { functions: BTreeMap::new(), variables: BTreeMap::new() };
    for (name, mut candidates) in witnesses {
        let Some(layout) = table.get(name) else { continue };
        candidates.sort_by_cached_key(|w| rank(large, minimal, w));
        let chosen = choose(candidates, kind(layout) == RecipeKind::Aggregate, limit);
        for w in &chosen {
            if let Some(code) = large.functions.get(&w.function) {
                let shape = Shape { references: code.references.len(), fingerprint: code.fingerprint };
                learned.functions.insert(w.function.clone(), shape);
            }
        }
        let recipe = Recipe { kind: kind(layout), size: layout.size, witnesses: chosen };
        learned.variables.insert(name.to_owned(), recipe);
    }
    learned
}

/// Sort key of a witness, best first. Functions that every program links come first, then small functions: a
/// compiler option changes their code least.
fn rank(large: &Program, minimal: &Program, w: &Witness) -> (bool, usize, String, usize) {
    let code = large.functions.get(&w.function);
    let always = match (code, minimal.functions.get(&w.function)) {
        (Some(a), Some(b)) => a.fingerprint == b.fingerprint,
        _ => false,
    };
    (!always, code.map_or(0, |c| c.references.len()), w.function.clone(), w.ordinal)
}

/// Chooses one reference of each of the best functions, then more of the same functions. For a struct,
/// different fields come first: the votes for its base are then independent.
fn choose(candidates: Vec<Witness>, aggregate: bool, limit: Limit) -> Vec<Witness> {
    let (mut functions, mut addends) = (BTreeSet::new(), BTreeMap::<u64, usize>::new());
    let (mut chosen, mut second, mut third) = (Vec::new(), Vec::new(), Vec::new());
    for w in candidates {
        let seen = addends.entry(w.addend).or_default();
        if functions.contains(&w.function) {
            third.push(w);
        } else if functions.len() >= limit.functions {
            break;
        } else if aggregate && *seen >= 2 {
            second.push(w);
        } else {
            *seen += 1;
            functions.insert(w.function.clone());
            chosen.push(w);
        }
    }
    for w in second {
        if functions.len() < limit.functions && functions.insert(w.function.clone()) {
            chosen.push(w);
        }
    }
    third.truncate(limit.witnesses.saturating_sub(chosen.len()));
    chosen.extend(third);
    chosen
}

fn kind(layout: &Struct) -> RecipeKind {
    let fields: Vec<&str> = layout.fields().map(|(name, _)| name).collect();
    match fields.as_slice() {
        _ if layout.size <= 8 => RecipeKind::Word,
        ["array", "cap", "len"] | ["len", "str"] => RecipeKind::Slice,
        _ => RecipeKind::Aggregate,
    }
}
