//! Files with code, opened once for all processes that have them mapped.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use symbols::addr::{CodeAddr, LinkAddr, LoadBias};
use symbols::build_id;
use symbols::cfi::{FrameTable, Row};
use symbols::image::{Image, Segment, Source};
use symbols::native::{NativeFrame, NativeSymbols};

use super::budget::Budget;
use super::debug::{self, DebugFiles};
use crate::arch::page_size;
use crate::memory::Memory as _;
use crate::process::Process;
use crate::process::executable::Executable;
use crate::process::maps::Mapping;

/// Maximum number of open files; further files are left without names and tables.
const MAX_FILES: usize = 4096;
/// Maximum size of a vDSO in bytes; real ones have two pages.
const MAX_VDSO: u64 = 64 << 10;

/// Identity of a mapped file: device and inode. The identity is stable while the file is open.
type Key = ((u32, u32), u64);

fn key(mapping: &Mapping) -> Option<Key> {
    (mapping.inode != 0).then_some((mapping.device, mapping.inode))
}

/// Open files. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Files(Rc<RefCell<Open>>);

#[derive(Debug, Default)]
struct Open {
    files: HashMap<Key, Rc<CodeFile>>,
    /// Code that the kernel maps into processes (vDSO), by its bytes.
    vdsos: Vec<(Arc<Vec<u8>>, Rc<CodeFile>)>,
    build_ids: HashMap<Key, String>,
    budget: Rc<Budget>,
}

impl Files {
    /// Returns the file of a mapping; `None` if it has none, cannot be opened, or is no ELF file.
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
        let file = CodeFile::new(&mapping.path, source, debug, &open.budget)?;
        open.files.insert(key, Rc::clone(&file));
        Some(file)
    }

    fn vdso(&self, process: &Process, mapping: &Mapping) -> Option<Rc<CodeFile>> {
        let len = mapping.end.checked_sub(mapping.start).filter(|&len| len <= MAX_VDSO)?;
        if mapping.path != b"[vdso]" {
            return None;
        }
        let memory = process.memory();
        let bytes =
            memory.bytes(symbols::addr::RuntimeAddr(mapping.start), usize::try_from(len).ok()?).ok()?;
        let mut open = self.0.borrow_mut();
        let budget = Rc::clone(&open.budget);
        let vdsos = &mut open.vdsos;
        if let Some((_, file)) = vdsos.iter().find(|(known, _)| **known == bytes) {
            return Some(Rc::clone(file));
        }
        if vdsos.len() >= MAX_FILES {
            return None;
        }
        let bytes = Arc::new(bytes);
        let source: Arc<dyn Source> = Arc::<Vec<u8>>::clone(&bytes);
        let file = CodeFile::new(&mapping.path, source, DebugFiles::default(), &budget)?;
        vdsos.push((bytes, Rc::clone(&file)));
        Some(file)
    }

    /// Returns true and takes the room if `size` more bytes of mappings fit; `number` is their count.
    pub(super) fn take_maps(&self, size: u64, number: usize) -> bool {
        self.0.borrow().budget.take_maps(size, number)
    }

    /// Describes in sentences what was left out because it would take too much memory.
    pub fn notes(&self) -> Vec<String> {
        self.0.borrow().budget.notes()
    }

    /// Returns the GNU build id of the file of a mapping; empty if it has none.
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
    // The file was deleted, and we may not open mappings.
    process.executable().ok().filter(|file| file.id().inode == mapping.inode)
}

/// Bytes with several readers.
#[derive(Clone)]
struct Shared(Arc<dyn Source>);

impl Source for Shared {
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

/// Maximum number of times that the DWARF of a file is loaded, if other files take its room. Symbol tables
/// are loaded up to twice as often.
const MAX_LOADS: u32 = 4;

/// File with code. Its tables can be released and are read again when needed.
pub(super) struct CodeFile {
    path: Vec<u8>,
    source: Shared,
    debug: Option<Shared>,
    alt: Option<Shared>,
    /// Segments with code.
    segments: Vec<Segment>,
    budget: Rc<Budget>,
    table: RefCell<Option<FrameTable>>,
    symbols: RefCell<Option<NativeSymbols>>,
    table_size: Cell<u64>,
    symbols_size: Cell<u64>,
    loads: Cell<u32>,
    used: Cell<u64>,
}

impl fmt::Debug for CodeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeFile").field("table", &self.table).finish_non_exhaustive()
    }
}

impl CodeFile {
    fn new(path: &[u8], source: Arc<dyn Source>, debug: DebugFiles, budget: &Rc<Budget>) -> Option<Rc<Self>> {
        let source = Shared(source);
        let image = Image::parse(Box::new(source.clone())).ok()?;
        let shared = |file: Option<Executable>| file.map(|file| Shared(Arc::new(file)));
        let file = Rc::new(CodeFile {
            path: path.to_vec(),
            source,
            debug: shared(debug.debug),
            alt: shared(debug.alt),
            segments: image.segments().iter().filter(|s| s.executable).cloned().collect(),
            budget: Rc::clone(budget),
            table: RefCell::new(None),
            symbols: RefCell::new(None),
            table_size: Cell::new(0),
            symbols_size: Cell::new(0),
            loads: Cell::new(0),
            used: Cell::new(0),
        });
        budget.register(Rc::downgrade(&file));
        Some(file)
    }

    /// Returns the load bias of the file, by one of its mappings. The mapping must contain the segment with
    /// its offset.
    pub(super) fn bias(&self, mapping: &Mapping) -> Option<LoadBias> {
        // Segments are mapped in whole pages.
        let page = page_size();
        let segment = self.segments.iter().find(|s| {
            let first = s.file_offset / page * page;
            first <= mapping.offset && mapping.offset < s.file_offset.saturating_add(s.file_size)
        })?;
        let first_byte = segment.start.0.wrapping_sub(segment.file_offset).wrapping_add(mapping.offset);
        Some(LoadBias(mapping.start.wrapping_sub(first_byte)))
    }

    /// Returns the unwind row of an instruction.
    pub(super) fn row(&self, at: CodeAddr) -> Option<Arc<Row>> {
        self.used.set(self.budget.tick());
        let mut place = self.table.borrow_mut();
        if place.is_none() {
            *place = Some(FrameTable::load(Image::parse(Box::new(self.source.clone())).ok()?));
        }
        let table = place.as_mut()?;
        let row = table.row(at);
        self.budget.hold(&self.table_size, table.size() as u64);
        row
    }

    /// Returns the functions at the address of an instruction, innermost first.
    pub(super) fn frames(&self, at: LinkAddr) -> Vec<NativeFrame> {
        self.used.set(self.budget.tick());
        let mut symbols = self.symbols.borrow_mut();
        symbols.get_or_insert_with(|| self.load()).frames(at)
    }

    fn load(&self) -> NativeSymbols {
        let reader = |shared: &Shared| -> Box<dyn Source> { Box::new(shared.clone()) };
        let of = |shared: &Option<Shared>| shared.as_ref().map(reader);
        let loads = self.loads.get();
        self.loads.set(loads.saturating_add(1));
        let (debug, alt) = (self.debug.as_ref().map(|s| &*s.0), self.alt.as_ref().map(|s| &*s.0));
        let sizes = NativeSymbols::sizes(&self.source, debug, alt);
        if loads < MAX_LOADS && self.budget.make_room(sizes.with_dwarf) {
            self.budget.hold(&self.symbols_size, sizes.with_dwarf);
            return NativeSymbols::parse(reader(&self.source), of(&self.debug), of(&self.alt));
        }
        self.budget.leave_out(&self.path);
        if loads < 2 * MAX_LOADS && self.budget.make_room(sizes.tables) {
            self.budget.hold(&self.symbols_size, sizes.tables);
            return NativeSymbols::parse_tables(reader(&self.source), of(&self.debug));
        }
        NativeSymbols::parse_tables(Box::new(Vec::new()), None)
    }

    /// Number of bytes held in memory.
    pub(super) fn held(&self) -> u64 {
        self.table_size.get().saturating_add(self.symbols_size.get())
    }

    /// Time of the last use, as counted by [`Budget::tick`].
    pub(super) fn used(&self) -> u64 {
        self.used.get()
    }

    /// Releases all tables that are not in use. Returns the number of bytes released.
    pub(super) fn let_go(&self) -> u64 {
        let mut freed = 0;
        if let Ok(mut table) = self.table.try_borrow_mut() {
            *table = None;
            freed += self.table_size.take();
        }
        if let Ok(mut symbols) = self.symbols.try_borrow_mut() {
            *symbols = None;
            freed += self.symbols_size.take();
        }
        freed
    }
}
