//! Where variables of the runtime are in a process.

use symbols::addr::{LoadBias, RuntimeAddr};
use symbols::globals::{self, Evidence, Globals};
use symbols::version::GoVersion;

use super::modules::Module;
use super::view::View;

/// Variables of the runtime that were found in a process. What was not found, or not beyond doubt, is absent.
///
/// Whoever uses one still checks it by its meaning.
#[derive(Debug, Clone)]
pub struct Located {
    globals: Globals,
    bias: LoadBias,
}

impl Located {
    /// Finds the `wanted` variables of a program of this version: in its symbol table where there is one, else by
    /// recipes.
    pub fn find(module: &Module, version: &GoVersion, wanted: &[&str]) -> Self {
        let mut globals = globals::from_symtab(&module.image, wanted);
        if wanted.iter().any(|name| globals.get(name).is_none()) {
            globals.fill(globals::solve(&module.image, &module.pclntab, version, wanted));
        }
        Located { globals, bias: module.bias }
    }

    /// Where `name` (`runtime.allgs`) is.
    pub fn at(&self, name: &str) -> Option<RuntimeAddr> {
        self.globals.address(name).map(|link| self.bias.runtime(link))
    }

    /// How `name` was found, in words; empty where it was not.
    pub fn how(&self, name: &str) -> String {
        match self.globals.get(name).map(|f| f.evidence) {
            None => String::new(),
            Some(Evidence::SymbolTable) => "symbol table".to_owned(),
            Some(Evidence::Recipe { votes, agreeing, fingerprints, .. }) => {
                format!("{agreeing} of {votes} code references agree, {fingerprints} in code known exactly")
            }
            Some(other) => format!("{other:?}"),
        }
    }
}

impl View {
    /// Finds variables of its runtime. Costs some milliseconds where there is no symbol table: ask once for all that
    /// an answer needs.
    pub fn locate(&self, wanted: &[&str]) -> Located {
        Located::find(self.modules.main(), &self.fitting, wanted)
    }
}
