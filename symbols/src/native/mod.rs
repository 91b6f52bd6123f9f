//! Names and lines of machine code from other languages than Go: C, C++, Rust, assembly, and the kernel.

mod demangle;
mod dwarf;
mod elf;
mod kallsyms;
mod links;
mod reader;

use std::cell::OnceCell;

pub use demangle::demangle;
pub use kallsyms::KernelSymbols;
pub use links::{AltLink, DebugLink, Links};

use crate::addr::LinkAddr;
use crate::image::Source;

/// Function at an address of machine code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NativeFrame {
    /// Name as in the source.
    pub name: String,
    /// Name as linkers use it. Equal to `name` if it is not mangled.
    pub system_name: String,
    /// Source file, if DWARF contains it.
    pub file: Option<String>,
    /// Line in the source file; 0 if unknown.
    pub line: u32,
    /// Line where the function begins; 0 if unknown.
    pub start_line: u32,
    /// True if the function was inlined into the next frame.
    pub inlined: bool,
}

/// Symbols of one ELF file. DWARF is read on first use.
pub struct NativeSymbols {
    functions: elf::Functions,
    sources: Vec<Box<dyn Source>>,
    alt: Option<Box<dyn Source>>,
    lines: OnceCell<Option<dwarf::Lines>>,
}

impl std::fmt::Debug for NativeSymbols {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NativeSymbols").field("functions", &self.functions.len()).finish_non_exhaustive()
    }
}

/// Sizes of symbols in memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Size of the functions from the symbol tables.
    pub tables: u64,
    /// Size of these functions together with DWARF.
    pub with_dwarf: u64,
}

impl NativeSymbols {
    /// Reads the symbol tables of a file, and of its separate debug file, if any. `alt` is the file that
    /// several debug files share (`.gnu_debugaltlink`). Damaged parts are left out.
    pub fn parse(
        file: Box<dyn Source>,
        debug: Option<Box<dyn Source>>,
        alt: Option<Box<dyn Source>>,
    ) -> Self {
        let mut functions = elf::Functions::default();
        let sources: Vec<Box<dyn Source>> = std::iter::once(file).chain(debug).collect();
        for source in &sources {
            functions.add(&elf::Sections::read(&**source));
        }
        NativeSymbols { functions, sources, alt, lines: OnceCell::new() }
    }

    /// Reads the symbol tables only. Without DWARF, there are names of functions, but no lines and no inlined
    /// functions.
    pub fn parse_tables(file: Box<dyn Source>, debug: Option<Box<dyn Source>>) -> Self {
        let mut symbols = Self::parse(file, debug, None);
        symbols.sources.clear();
        symbols
    }

    /// Returns the maximum size of [`NativeSymbols::parse`] in memory, in bytes: for the symbol tables alone,
    /// and together with DWARF. The sizes come from the section headers of the files.
    pub fn sizes(file: &dyn Source, debug: Option<&dyn Source>, alt: Option<&dyn Source>) -> Sizes {
        let all: Vec<elf::Sections<'_>> =
            std::iter::once(file).chain(debug).map(elf::Sections::read).collect();
        let alt = alt.map(elf::Sections::read);
        let tables = all.iter().map(elf::Sections::functions_size).fold(0, u64::saturating_add);
        let of = all.iter().rev().find(|sections| sections.named(".debug_info").is_some());
        let dwarf = of.map_or(0, |sections| dwarf::size(sections, alt.as_ref()));
        Sizes { tables, with_dwarf: tables.saturating_add(dwarf) }
    }

    /// Number of functions in the symbol tables.
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// Returns true if the symbol tables have no functions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the name and the start of the function at an address, from the symbol tables.
    pub fn function(&self, addr: LinkAddr) -> Option<(String, LinkAddr)> {
        let (name, start) = self.functions.at(addr.0)?;
        Some((String::from_utf8_lossy(name).into_owned(), LinkAddr(start)))
    }

    /// Returns the functions at the address of an instruction, innermost first: inlined functions, then the
    /// called one. For a return address, pass the address minus one. Empty if nothing is known.
    pub fn frames(&self, addr: LinkAddr) -> Vec<NativeFrame> {
        let symbol = self.function(addr).map(|(name, _)| name);
        let found = self.lines().map(|lines| lines.at(addr.0)).unwrap_or_default();
        let last = found.len().saturating_sub(1);
        let mut frames: Vec<NativeFrame> = found
            .into_iter()
            .enumerate()
            .filter_map(|(i, found)| {
                let inlined = i < last;
                let system_name = match (&symbol, found.name) {
                    // Preference for the symbol's name: only it distinguishes clones of a function. Local
                    // functions can be without a linker name in DWARF.
                    (Some(symbol), _) if !inlined => symbol.clone(),
                    (_, name) => name?,
                };
                let name = demangle(&system_name);
                let (file, line, start_line) = (found.file, found.line, found.start_line);
                Some(NativeFrame { name, system_name, file, line, start_line, inlined })
            })
            .collect();
        if frames.is_empty()
            && let Some(system_name) = symbol
        {
            frames.push(NativeFrame { name: demangle(&system_name), system_name, ..NativeFrame::default() });
        }
        frames
    }

    fn lines(&self) -> Option<&dwarf::Lines> {
        let load = || {
            let alt = self.alt.as_deref().map(elf::Sections::read);
            // DWARF of the debug file first, if there is one.
            self.sources
                .iter()
                .rev()
                .find_map(|s| dwarf::Lines::load(&elf::Sections::read(&**s), alt.as_ref()))
        };
        self.lines.get_or_init(load).as_ref()
    }
}

/// Returns the absolute path of the debug file for a build id, by the convention of gdb. `None` if the text
/// is no build id.
pub fn debug_path(gnu_build_id: &str) -> Option<String> {
    let (first, rest) = gnu_build_id.split_at_checked(2)?;
    let valid = !rest.is_empty() && gnu_build_id.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then(|| format!("/usr/lib/debug/.build-id/{first}/{rest}.debug"))
}
