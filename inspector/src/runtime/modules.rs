//! The Go modules of a process: its program, plugins, Go shared objects.

use symbols::addr::{LinkAddr, LoadBias, RuntimeAddr};
use symbols::image::Image;
use symbols::moduledata::Moduledata;
use symbols::pclntab::{Func, Pclntab};

/// A Go module as loaded into a process.
#[derive(Debug)]
pub struct Module {
    /// What file it came from, for messages.
    pub name: String,
    /// Its ELF image.
    pub image: Image,
    /// Its functions.
    pub pclntab: Pclntab,
    /// The linker's description of it.
    pub data: Moduledata,
    /// Where it was loaded.
    pub bias: LoadBias,
}

/// A place in the code of a module.
#[derive(Debug, Clone, Copy)]
pub struct Place<'m> {
    /// The module.
    pub module: &'m Module,
    /// The function that holds it.
    pub func: Func<'m>,
    /// The address as the module's file has it.
    pub link: LinkAddr,
}

/// All Go modules of a process, the one that holds the runtime first.
#[derive(Debug)]
pub struct Modules(Vec<Module>);

impl Modules {
    /// A process with one Go module.
    pub fn single(module: Module) -> Self {
        Modules(vec![module])
    }

    /// Adds a plugin.
    pub fn add(&mut self, module: Module) {
        self.0.push(module);
    }

    /// The module that holds the runtime.
    pub fn main(&self) -> &Module {
        // Neither constructor leaves it empty.
        &self.0[0]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Module> {
        self.0.iter()
    }

    /// Reads the function tables of all of them as a whole.
    pub fn read_tables(&self) {
        self.0.iter().for_each(|module| module.pclntab.read_all());
    }

    /// The function whose code holds `pc`.
    pub fn lookup(&self, pc: u64) -> Option<Place<'_>> {
        self.0.iter().find_map(|module| {
            let link = module.bias.link(RuntimeAddr(pc));
            let func = module.pclntab.lookup(link)?;
            Some(Place { module, func, link })
        })
    }

    /// The runtime address of a function of the main module.
    pub fn function(&self, name: &str) -> Option<u64> {
        let main = self.main();
        main.pclntab.find(name).map(|f| main.bias.runtime(f.entry()).0)
    }
}
