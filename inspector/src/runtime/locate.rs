//! Addresses of runtime variables in a process.

use std::sync::{Arc, OnceLock};

use symbols::addr::{LoadBias, RuntimeAddr};
use symbols::globals::{self, Agreement, Evidence, Globals, Search};
use symbols::version::GoVersion;

use super::modules::Module;
use super::view::View;

/// Variables of a program, found on demand: in its symbol table if present, otherwise by recipes. Each
/// variable is searched once.
#[derive(Debug)]
pub struct Variables {
    symbols: Arc<Symbols>,
    search: Search,
}

/// Variables in the symbol table of a program, out of all those with recipes. Read on first use.
#[derive(Debug, Default)]
pub struct Symbols(OnceLock<Globals>);

impl Variables {
    /// Creates an empty set for a program of this version. `symbols` holds the contents of its symbol table.
    pub fn new(symbols: Arc<Symbols>, version: GoVersion) -> Self {
        Variables { symbols, search: Search::new(version) }
    }

    /// Finds the `wanted` variables. Each call needs the same `module`, that of the program.
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

    /// Measures how much of the program's runtime code equals that of its version.
    pub fn agreement(&self, module: &Module) -> Option<Agreement> {
        self.search.agreement(&module.image, &module.pclntab)
    }
}

/// Runtime variables found in a process. A variable that was not found, or not with certainty, is absent.
///
/// The user of a variable must still check its value for plausibility.
#[derive(Debug, Clone)]
pub struct Located {
    globals: Globals,
    bias: LoadBias,
}

impl Located {
    /// Address of the variable `name`, such as `runtime.allgs`.
    pub fn at(&self, name: &str) -> Option<RuntimeAddr> {
        self.globals.address(name).map(|link| self.bias.runtime(link))
    }

    /// Describes the evidence for `name`; empty if the variable was not found.
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
    /// Finds variables of the runtime. The first search takes up to a millisecond if there is no symbol
    /// table.
    pub fn locate(&self, wanted: &[&str]) -> Located {
        self.variables.locate(self.modules.main(), wanted)
    }
}
