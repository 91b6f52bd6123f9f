//! Where variables of the runtime are in a process.

use std::sync::{Arc, OnceLock};

use symbols::addr::{LoadBias, RuntimeAddr};
use symbols::globals::{self, Agreement, Evidence, Globals, Search};
use symbols::version::GoVersion;

use super::modules::Module;
use super::view::View;

/// The variables of a program, as far as somebody asked for them: in its symbol table where there is one, else by recipes. Each is
/// looked for once.
#[derive(Debug)]
pub struct Variables {
    symbols: Arc<Symbols>,
    search: Search,
}

/// What the symbol table of a program says of all variables that there are recipes for, once somebody asks.
#[derive(Debug, Default)]
pub struct Symbols(OnceLock<Globals>);

impl Variables {
    /// Those of a program of this version, whose symbol table says what is in `symbols`.
    pub fn new(symbols: Arc<Symbols>, version: GoVersion) -> Self {
        Variables { symbols, search: Search::new(version) }
    }

    /// Finds the `wanted` ones. `module` is the program's each time.
    pub fn locate(&self, module: &Module, wanted: &[&str]) -> Located {
        let known = self.symbols.0.get_or_init(|| globals::from_symtab(&module.image, globals::VARIABLES));
        let (named, others): (Vec<&str>, Vec<&str>) =
            wanted.iter().copied().partition(|name| known.get(name).is_some());
        let mut globals = known.only(&named);
        if !others.is_empty() {
            globals.fill(self.search.find(&module.image, &module.pclntab, &others));
        }
        Located { globals, bias: module.bias }
    }

    /// How much of the program's runtime is that of its version.
    pub fn agreement(&self, module: &Module) -> Option<Agreement> {
        self.search.agreement(&module.image, &module.pclntab)
    }
}

/// Variables of the runtime that were found in a process. What was not found, or not beyond doubt, is absent.
///
/// Whoever uses one still checks it by its meaning.
#[derive(Debug, Clone)]
pub struct Located {
    globals: Globals,
    bias: LoadBias,
}

impl Located {
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
    /// Finds variables of its runtime. The first time costs up to a millisecond where there is no symbol table.
    pub fn locate(&self, wanted: &[&str]) -> Located {
        self.variables.locate(self.modules.main(), wanted)
    }
}
