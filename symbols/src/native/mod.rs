//! Names and lines of machine code that is not Go's: C, C++, Rust, assembly, and the kernel.

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

/// A function that an address belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NativeFrame {
    /// The name as the source has it.
    pub name: String,
    /// The name as linkers have it; the same where it is not mangled.
    pub system_name: String,
    /// The source file, where DWARF tells.
    pub file: Option<String>,
    /// The line in it, 0 for unknown.
    pub line: u32,
    /// The line where the function begins, 0 for unknown.
    pub start_line: u32,
    /// Its code was put into that of the next frame.
    pub inlined: bool,
}

/// What is known of the functions of one ELF file. DWARF is read when it is first asked for.
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

/// What symbols take in memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Those of the symbol tables.
    pub tables: u64,
    /// The same and DWARF.
    pub with_dwarf: u64,
}

impl NativeSymbols {
    /// Reads the symbol tables of a file, and of the file with its debug information where that is apart. `alt` is the
    /// file that several debug files share (`.gnu_debugaltlink`). What is damaged is left out.
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

    /// The same without DWARF: names of functions, but neither lines nor what was inlined.
    pub fn parse_tables(file: Box<dyn Source>, debug: Option<Box<dyn Source>>) -> Self {
        let mut symbols = Self::parse(file, debug, None);
        symbols.sources.clear();
        symbols
    }

    /// What [`NativeSymbols::parse`] takes in memory at most, in bytes, by what the files say of their sections: the symbol
    /// tables, and with them what DWARF takes when it is asked for.
    pub fn sizes(file: &dyn Source, debug: Option<&dyn Source>, alt: Option<&dyn Source>) -> Sizes {
        let all: Vec<elf::Sections<'_>> =
            std::iter::once(file).chain(debug).map(elf::Sections::read).collect();
        let alt = alt.map(elf::Sections::read);
        let tables = all.iter().map(elf::Sections::functions_size).fold(0, u64::saturating_add);
        let of = all.iter().rev().find(|sections| sections.named(".debug_info").is_some());
        let dwarf = of.map_or(0, |sections| dwarf::size(sections, alt.as_ref()));
        Sizes { tables, with_dwarf: tables.saturating_add(dwarf) }
    }

    /// How many functions the symbol tables name.
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// Whether the symbol tables name none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name and the start of the function at an address, by the symbol tables.
    pub fn function(&self, addr: LinkAddr) -> Option<(String, LinkAddr)> {
        let (name, start) = self.functions.at(addr.0)?;
        Some((String::from_utf8_lossy(name).into_owned(), LinkAddr(start)))
    }

    /// The functions at the address of an instruction, innermost first: inlined ones, then the one that is called. For a
    /// return address ask for the byte before it. Empty where nothing is known.
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
                    // Only the symbol's name tells clones of a function apart; local functions may have no linker's name in DWARF.
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
            // That of the debug file, where there is one.
            self.sources
                .iter()
                .rev()
                .find_map(|s| dwarf::Lines::load(&elf::Sections::read(&**s), alt.as_ref()))
        };
        self.lines.get_or_init(load).as_ref()
    }
}

/// The path of the file with the debug information of a build, below the root: gdb's convention. `None` for an id that is
/// none.
pub fn debug_path(gnu_build_id: &str) -> Option<String> {
    let (first, rest) = gnu_build_id.split_at_checked(2)?;
    let valid = !rest.is_empty() && gnu_build_id.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then(|| format!("/usr/lib/debug/.build-id/{first}/{rest}.debug"))
}
