//! Files with code, opened once for all processes that have them mapped.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use symbols::addr::{CodeAddr, LinkAddr, LoadBias};
use symbols::build_id;
use symbols::cfi::{FrameTable, Row};
use symbols::image::{Image, Source};
use symbols::native::{NativeFrame, NativeSymbols};

use super::debug::{self, DebugFiles};
use crate::memory::{LiveMemory, Memory as _};
use crate::process::Process;
use crate::process::executable::Executable;
use crate::process::maps::Mapping;

/// Each is an open file: more are left without names and tables.
const MAX_FILES: usize = 4096;
/// The kernel's own code in processes has two pages.
const MAX_VDSO: u64 = 64 << 10;

/// Which file a mapping is of. It stays the same file while it is open.
type Key = ((u32, u32), u64);

fn key(mapping: &Mapping) -> Option<Key> {
    (mapping.inode != 0).then_some((mapping.device, mapping.inode))
}

/// The files that are open. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Files(Rc<RefCell<Open>>);

#[derive(Debug, Default)]
struct Open {
    files: HashMap<Key, Rc<CodeFile>>,
    /// What the kernel maps into processes, by its bytes.
    vdsos: Vec<(Arc<Vec<u8>>, Rc<CodeFile>)>,
    build_ids: HashMap<Key, String>,
}

impl Files {
    /// The file of a mapping of a process; `None` where it has none, or it cannot be opened or is no ELF file.
    pub(super) fn of(&self, process: &Process, mapping: &Mapping) -> Option<Rc<CodeFile>> {
        let Some(key) = key(mapping) else { return self.vdso(process, mapping) };
        let mut open = self.0.borrow_mut();
        if let Some(file) = open.files.get(&key) {
            return Some(Rc::clone(file));
        }
        if open.files.len() >= MAX_FILES {
            return None;
        }
        let source = Arc::new(executable(process, mapping)?);
        let debug = debug::find(process, &mapping.path, &*source);
        let file = Rc::new(CodeFile::new(Shared(source), debug)?);
        open.files.insert(key, Rc::clone(&file));
        Some(file)
    }

    fn vdso(&self, process: &Process, mapping: &Mapping) -> Option<Rc<CodeFile>> {
        let len = mapping.end.checked_sub(mapping.start).filter(|&len| len <= MAX_VDSO)?;
        if mapping.path != b"[vdso]" {
            return None;
        }
        let memory = LiveMemory::new(process.pid().as_raw());
        let bytes =
            memory.bytes(symbols::addr::RuntimeAddr(mapping.start), usize::try_from(len).ok()?).ok()?;
        let vdsos = &mut self.0.borrow_mut().vdsos;
        if let Some((_, file)) = vdsos.iter().find(|(known, _)| **known == bytes) {
            return Some(Rc::clone(file));
        }
        if vdsos.len() >= MAX_FILES {
            return None;
        }
        let bytes = Arc::new(bytes);
        let file = Rc::new(CodeFile::new(Shared(Arc::clone(&bytes)), DebugFiles::default())?);
        vdsos.push((bytes, Rc::clone(&file)));
        Some(file)
    }

    /// The GNU build id of the file of a mapping; empty where there is none.
    pub(super) fn build_id(&self, process: &Process, mapping: &Mapping) -> String {
        let Some(key) = key(mapping) else { return String::new() };
        if let Some(known) = self.0.borrow().build_ids.get(&key) {
            return known.clone();
        }
        let image = executable(process, mapping).and_then(|f| Image::parse(Box::new(f)).ok());
        let id = image.and_then(|image| build_id::of(&image).gnu).unwrap_or_default();
        let ids = &mut self.0.borrow_mut().build_ids;
        if ids.len() < 16 * MAX_FILES {
            ids.insert(key, id.clone());
        }
        id
    }
}

fn executable(process: &Process, mapping: &Mapping) -> Option<Executable> {
    if let Ok(file) = process.open_mapping(mapping) {
        return Some(file);
    }
    // Where it was deleted, and we may not open mappings.
    process.executable().ok().filter(|file| file.id().inode == mapping.inode)
}

/// Bytes that several read.
struct Shared<S>(Arc<S>);

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Shared(Arc::clone(&self.0))
    }
}

impl<S: Source> Source for Shared<S> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> bool {
        self.0.read_at(offset, buf)
    }

    fn data(&self, offset: u64) -> Option<Range<u64>> {
        self.0.data(offset)
    }
}

/// A file with code.
pub(super) struct CodeFile {
    table: RefCell<FrameTable>,
    symbols: OnceCell<NativeSymbols>,
    /// What symbols are read from, until they are.
    sources: RefCell<Option<(Box<dyn Source>, DebugFiles)>>,
}

impl fmt::Debug for CodeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeFile").field("table", &self.table).finish_non_exhaustive()
    }
}

impl CodeFile {
    fn new<S: Source + 'static>(source: Shared<S>, debug: DebugFiles) -> Option<Self> {
        let image = Image::parse(Box::new(source.clone())).ok()?;
        Some(CodeFile {
            table: RefCell::new(FrameTable::load(image)),
            symbols: OnceCell::new(),
            sources: RefCell::new(Some((Box::new(source), debug))),
        })
    }

    /// Where it was loaded, by one of its mappings: which has the segment in it that is mapped with its offset.
    pub(super) fn bias(&self, mapping: &Mapping) -> Option<LoadBias> {
        // Segments are mapped by pages.
        const PAGE: u64 = 4096;
        let table = self.table.borrow();
        let segment = table.image().segments().iter().find(|s| {
            let first = s.file_offset / PAGE * PAGE;
            s.executable
                && first <= mapping.offset
                && mapping.offset < s.file_offset.saturating_add(s.file_size)
        })?;
        let first_byte = segment.start.0.wrapping_sub(segment.file_offset).wrapping_add(mapping.offset);
        Some(LoadBias(mapping.start.wrapping_sub(first_byte)))
    }

    /// What holds at an instruction.
    pub(super) fn row(&self, at: CodeAddr) -> Option<Arc<Row>> {
        self.table.borrow_mut().row(at)
    }

    /// The functions at the address of an instruction, innermost first.
    pub(super) fn frames(&self, at: LinkAddr) -> Vec<NativeFrame> {
        let symbols = self.symbols.get_or_init(|| {
            let (source, debug) =
                self.sources.take().unwrap_or_else(|| (Box::new(Vec::new()), DebugFiles::default()));
            let boxed = |file: Option<Executable>| file.map(|f| -> Box<dyn Source> { Box::new(f) });
            NativeSymbols::parse(source, boxed(debug.debug), boxed(debug.alt))
        });
        symbols.frames(at)
    }
}
