//! Header of a pclntab (`runtime.pcHeader`).

use crate::addr::LinkAddr;
use crate::image::Image;

/// Size of the header in bytes, in Go 1.18 and later on 64-bit machines.
pub const HEADER_SIZE: usize = 72;
/// Maximum number of functions; no program has more.
const MAX_FUNCTIONS: u64 = 1 << 26;
/// Maximum size of a pclntab in bytes; no real one is larger.
const MAX_SIZE: u64 = 4 << 30;

/// Format of a pclntab, shared by several releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Format of Go 1.16 and 1.17: recognised, but not supported.
    Go116,
    /// Format of Go 1.18 and 1.19.
    Go118,
    /// Format of Go 1.20 and later.
    Go120,
}

impl Format {
    fn from_magic(magic: u32) -> Option<Self> {
        match magic {
            0xffff_fffa => Some(Format::Go116),
            0xffff_fff0 => Some(Format::Go118),
            0xffff_fff1 => Some(Format::Go120),
            _ => None,
        }
    }
}

/// Header of a pclntab, with consistent numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Link address of the header.
    pub addr: LinkAddr,
    /// Format of the pclntab.
    pub format: Format,
    /// Unit of pc deltas in bytes: 1 on amd64, 4 on arm64.
    pub min_lc: u8,
    /// Number of functions.
    pub nfunc: u32,
    /// Number of source files.
    pub nfiles: u32,
    /// Start of the text. 0 from Go 1.26 on, and in position-independent images without applied relocations.
    pub text_start: u64,
    /// Offset of the function names from the header.
    pub funcname: u64,
    /// Offset of the compilation units' file indices from the header.
    pub cutab: u64,
    /// Offset of the file names from the header.
    pub filetab: u64,
    /// Offset of the pc-value tables from the header.
    pub pctab: u64,
    /// Offset of the function table from the header. The function records follow the table.
    pub pcln: u64,
}

impl Header {
    /// Parses a header. `None` if the bytes cannot be one.
    pub fn parse(addr: LinkAddr, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_SIZE)?;
        let word = |i: usize| -> Option<u64> {
            Some(u64::from_le_bytes(bytes.get(8 + 8 * i..16 + 8 * i)?.try_into().ok()?))
        };
        let format = Format::from_magic(u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?))?;
        let (min_lc, ptr_size) = (bytes[6], bytes[7]);
        if bytes[4] != 0 || bytes[5] != 0 || ptr_size != 8 || !matches!(min_lc, 1 | 2 | 4) {
            return None;
        }
        let (nfunc, nfiles) = (word(0)?, word(1)?);
        if format == Format::Go116 || nfunc == 0 || nfunc > MAX_FUNCTIONS || nfiles > MAX_SIZE {
            return None;
        }
        let header = Header {
            addr,
            format,
            min_lc,
            nfunc: u32::try_from(nfunc).ok()?,
            nfiles: u32::try_from(nfiles).ok()?,
            text_start: word(2)?,
            funcname: word(3)?,
            cutab: word(4)?,
            filetab: word(5)?,
            pctab: word(6)?,
            pcln: word(7)?,
        };
        let order =
            [HEADER_SIZE as u64, header.funcname, header.cutab, header.filetab, header.pctab, header.pcln];
        (order.is_sorted() && header.pcln < MAX_SIZE).then_some(header)
    }
}

const PIECE: usize = 1 << 20;
/// Maximum number of candidates. Programs that read pclntabs contain the magic as data many times; a real
/// program has one table.
const MAX_CANDIDATES: usize = 64;

/// Returns all headers that can belong to a pclntab, likely segments first. The order is: read-only, then
/// writable (relro data of a position-independent image), then executable.
pub fn candidates(image: &Image) -> Vec<Header> {
    let mut order: Vec<_> = image.segments().to_vec();
    order.sort_by_key(|s| (s.executable, s.writable));
    let mut found = Vec::new();
    for (base, bytes) in image.pieces(&order, PIECE, HEADER_SIZE) {
        // Searched bytes: the end of the magic, two zeros, the quantum and the pointer size. Rarer than runs
        // of 0xff.
        for quantum in [1u8, 4] {
            for hit in memchr::memmem::find_iter(&bytes, &[0xff, 0xff, 0xff, 0, 0, quantum, 8]) {
                let Some(start) = hit.checked_sub(1).filter(|s| s.is_multiple_of(8) && *s < PIECE) else {
                    continue;
                };
                if let Some(header) =
                    bytes.get(start..).and_then(|b| Header::parse(base.plus(start as u64), b))
                {
                    found.push(header);
                }
            }
        }
        if found.len() >= MAX_CANDIDATES {
            break;
        }
    }
    found.truncate(MAX_CANDIDATES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_numbers_are_no_header() {
        let mut bytes = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
        for w in [10u64, 3, 0x401000, 72, 100, 120, 200, 300] {
            bytes.extend(w.to_le_bytes());
        }
        assert!(Header::parse(LinkAddr(0), &bytes).is_some());
        for (at, value) in [(7, 4), (6, 3), (15, 0xff), (0, 0xf2), (32, 71), (40, 1)] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            assert_eq!(Header::parse(LinkAddr(0), &damaged), None, "byte {at}");
        }
        assert_eq!(Header::parse(LinkAddr(0), &bytes[..71]), None);
    }
}
