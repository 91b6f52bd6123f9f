//! Go modules of a process: its program, plugins and Go shared objects.

use symbols::addr::{LinkAddr, LoadBias, RuntimeAddr};
use symbols::image::Image;
use symbols::moduledata::Moduledata;
use symbols::pclntab::{Func, Pclntab};

/// Go module as loaded into a process.
#[derive(Debug)]
pub struct Module {
    /// File of the module, for messages.
    pub name: String,
    /// ELF image of the module.
    pub image: Image,
    /// Function table of the module.
    pub pclntab: Pclntab,
    /// Linker's description of the module.
    pub data: Moduledata,
    /// Difference between runtime addresses and link addresses.
    pub bias: LoadBias,
}

/// Place in the code of a module.
#[derive(Debug, Clone, Copy)]
pub struct Place<'m> {
    /// Module that contains the place.
    pub module: &'m Module,
    /// Function that contains the place.
    pub func: Func<'m>,
    /// Address of the place in the module's file.
    pub link: LinkAddr,
}

/// All Go modules of a process. The first one contains the runtime.
#[derive(Debug)]
pub struct Modules(Vec<Module>);

impl Modules {
    /// Creates the list for a process with one Go module.
    pub fn single(module: Module) -> Self {
        Modules(vec![module])
    }

    /// Adds a plugin.
    pub fn add(&mut self, module: Module) {
        self.0.push(module);
    }

    /// Module that contains the runtime.
    pub fn main(&self) -> &Module {
        // The list is never empty: no constructor creates an empty one.
        &self.0[0]
    }

    /// Iterates over all modules.
    pub fn iter(&self) -> impl Iterator<Item = &Module> {
        self.0.iter()
    }

    /// Reads the whole function tables of all modules.
    pub fn read_tables(&self) {
        self.0.iter().for_each(|module| module.pclntab.read_all());
    }

    /// Returns the function that contains `pc`.
    pub fn lookup(&self, pc: u64) -> Option<Place<'_>> {
        self.0.iter().find_map(|module| {
            let link = module.bias.link(RuntimeAddr(pc));
            let func = module.pclntab.lookup(link)?;
            Some(Place { module, func, link })
        })
    }

    /// Returns the runtime address of a function of the main module.
    pub fn function(&self, name: &str) -> Option<u64> {
        let main = self.main();
        main.pclntab.find(name).map(|f| main.bias.runtime(f.entry()).0)
    }
}
