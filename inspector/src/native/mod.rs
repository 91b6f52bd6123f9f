//! Native code, not compiled by Go: its files, stack walks and function names.

mod budget;
mod debug;
mod files;
pub mod frame;
mod kernel;
mod space;
mod walk;

use symbols::native::NativeFrame;

pub use self::files::Files;
use self::frame::{Foreign, Named, SampleRegisters, Unwound};
pub use self::kernel::Kernel;
use self::space::Space;
use crate::process::{self, Process};
use crate::profile::{Function, Mapping};

/// Native code of a process.
#[derive(Debug)]
pub struct Native {
    space: Space,
}

impl Native {
    /// Reads the memory map of a process. Files are opened when code in them is looked up.
    ///
    /// # Errors
    /// Returns an error if the memory map cannot be read.
    pub fn open(process: &Process, files: &Files) -> Result<Self, process::Error> {
        Ok(Native { space: Space::read(process, files)? })
    }

    /// Returns the executable mappings, with the build ids of their files.
    pub fn mappings(&self, process: &Process) -> Vec<Mapping> {
        self.space.mappings(process)
    }
}

impl Foreign for Native {
    fn unwind(
        &mut self,
        start: SampleRegisters,
        stack: &[u8],
        is_go: &mut dyn FnMut(u64) -> bool,
    ) -> Unwound {
        walk::walk(&mut self.space, start, stack, is_go)
    }

    fn is_code(&mut self, pc: u64) -> bool {
        self.space.is_code(pc)
    }

    fn names(&mut self, address: u64) -> Vec<Named> {
        let Some((file, link)) = self.space.find(address) else { return Vec::new() };
        let frames = file.frames(link);
        let named = |frame: NativeFrame| Named {
            line: frame.line,
            function: Function {
                name: frame.name,
                system_name: frame.system_name,
                file: frame.file.unwrap_or_default(),
                start_line: frame.start_line,
            },
        };
        frames.into_iter().map(named).collect()
    }

    fn added(&mut self) -> Vec<Mapping> {
        self.space.take_added()
    }
}
