//! Small Go programs to begin with (`seed/main.go`, stripped): the oldest supported release, and the newest,
//! position-independent. Kept compressed beside the corpora.

use std::io::Read as _;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use symbols::image::{Image, Source};
use symbols::moduledata::Moduledata;
use symbols::pclntab::Pclntab;
use symbols::pclntab::header::{HEADER_SIZE, Header};
use symbols::program::{self, GoProgram};

use crate::input::Input;

/// A program, and where its interesting parts are.
#[derive(Debug)]
pub struct Base {
    /// The file.
    pub bytes: Arc<[u8]>,
    /// What it is recognised as.
    pub program: GoProgram,
    /// Its function table's header.
    pub header: Header,
    /// Its moduledata.
    pub module: Moduledata,
    /// Offsets in the file of parts that parsers look at; the last is all of it.
    pub parts: Vec<Range<usize>>,
}

/// The programs.
pub static BASES: LazyLock<[Base; 2]> = LazyLock::new(|| {
    [
        Base::new(include_bytes!("../seed/go1.18.10.zst")),
        Base::new(include_bytes!("../seed/go1.27.4-pie.zst")),
    ]
});

impl Base {
    fn new(packed: &[u8]) -> Self {
        let mut bytes = Vec::new();
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed).expect("a kept file");
        decoder.read_to_end(&mut bytes).expect("a kept file");
        let bytes: Arc<[u8]> = bytes.into();
        let image = image(Patched::new(&bytes)).expect("an ELF file");
        let program = program::recognise(&image).expect("a Go program");
        let (header, module) = program.module.clone().expect("a Go program");
        let offset = |addr: symbols::addr::LinkAddr| {
            let segment = image.segment(addr).expect("a part of the program");
            (segment.file_offset + (addr.0 - segment.start.0)) as usize
        };
        let at = offset(header.addr);
        let table = at + header.pcln as usize;
        let records = table + 8 * header.nfunc as usize;
        let pctab = at + header.pctab as usize;
        let data = offset(module.addr);
        let sections = u64::from_le_bytes(bytes[40..48].try_into().expect("eight bytes")) as usize;
        let find = |what: &[u8]| bytes.windows(what.len()).step_by(16).position(|w| w == what);
        let blob = 16 * find(b"\xff Go buildinf:").expect("build info");
        let names = at + header.funcname as usize;
        let mut parts = vec![
            0..64,
            64..64 + 56 * 12,
            at..at + HEADER_SIZE,
            data..data + 640,
            table..table + 4096,
            records..records + 8192,
            pctab..pctab + 8192,
            blob..blob + 512,
            sections..bytes.len().min(sections + 64 * 40),
            names..names + 4096,
            offset(module.gofunc)..offset(module.gofunc) + 8192,
        ];
        for segment in image.segments() {
            let start = segment.file_offset as usize;
            parts.push(start..start + segment.file_size as usize);
        }
        parts.push(0..bytes.len());
        parts.retain(|p| p.start < p.end && p.end <= bytes.len());
        Base { program, header, module, parts, bytes }
    }

    /// The program with changes that the input chooses.
    pub fn patched(&self, input: &mut Input<'_>) -> Patched {
        let mut file = Patched::new(&self.bytes);
        let count = input.u8() % 24;
        if count == 23 {
            file.len = input.below(self.bytes.len());
        }
        for _ in 0..count {
            if input.is_empty() {
                break;
            }
            let part = &self.parts[usize::from(input.u8()) % self.parts.len()];
            let kind = input.u8();
            let width = 1usize << (kind & 3);
            // Fields are aligned; so are most changes.
            let mut at = part.start + input.u16() as usize * width;
            if kind & 4 != 0 {
                at = part.start + input.below(part.len());
            }
            at = part.start + (at - part.start) % part.len();
            let old = self
                .bytes
                .get(at..at + 8)
                .map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or_default()));
            let value = match kind >> 3 & 7 {
                0 => 0,
                1 => u64::MAX,
                2 => old.wrapping_add(u64::from(input.u8())),
                3 => old.wrapping_sub(u64::from(input.u8())),
                4 => old ^ 1 << (input.u8() & 63),
                5 => 1 << (input.u8() & 63),
                6 => u64::from(input.u16()),
                _ => input.u64(),
            };
            file.edits.push((at as u64, value.to_le_bytes(), width));
        }
        file
    }

    /// Image and function table without changes.
    pub fn tables(&self) -> (Image, Pclntab) {
        let image = image(Patched::new(&self.bytes)).expect("an ELF file");
        let pclntab = Pclntab::load(&image, &self.header, &self.module).expect("a function table");
        (image, pclntab)
    }
}

/// A file with changes.
#[derive(Debug, Clone)]
pub struct Patched {
    bytes: Arc<[u8]>,
    len: usize,
    edits: Vec<(u64, [u8; 8], usize)>,
}

impl Patched {
    /// The file as it is.
    pub fn new(bytes: &Arc<[u8]>) -> Self {
        Patched { bytes: Arc::clone(bytes), len: bytes.len(), edits: Vec::new() }
    }
}

impl Source for Patched {
    fn len(&self) -> u64 {
        self.len as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> bool {
        let Some(end) = offset.checked_add(buf.len() as u64).filter(|&end| end <= self.len as u64) else {
            return false;
        };
        buf.copy_from_slice(&self.bytes[offset as usize..end as usize]);
        for (at, value, width) in &self.edits {
            for (i, byte) in value.iter().take(*width).enumerate() {
                let at = at + i as u64;
                if (offset..end).contains(&at) {
                    buf[(at - offset) as usize] = *byte;
                }
            }
        }
        true
    }
}

/// The image of a file, if it is one.
pub fn image(file: Patched) -> Option<Image> {
    Image::parse(Box::new(file)).ok()
}
