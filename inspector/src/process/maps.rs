//! Memory mappings of a process.

/// File-backed or anonymous mapping (a line of `/proc/PID/maps`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// End address: one past the last.
    pub end: u64,
    /// True if readable.
    pub readable: bool,
    /// True if writable.
    pub writable: bool,
    /// True if executable.
    pub executable: bool,
    /// Offset in the file.
    pub offset: u64,
    /// Major and minor number of the file's device.
    pub device: (u32, u32),
    /// The file's inode, 0 for none.
    pub inode: u64,
    /// Path, or a name in brackets. Must not be opened as it is, and not be printed unescaped.
    pub path: Vec<u8>,
}

impl Mapping {
    /// Returns true if `other` maps the same file.
    pub fn is_of_file_of(&self, other: &Mapping) -> bool {
        (self.device, self.inode) == (other.device, other.inode) && self.inode != 0
    }

    /// Returns true if `addr` is inside the mapping.
    pub fn contains(&self, addr: u64) -> bool {
        self.start <= addr && addr < self.end
    }

    /// Parses `/proc/PID/maps`; malformed lines are skipped.
    pub fn parse_all(text: &[u8]) -> Vec<Mapping> {
        text.split(|&b| b == b'\n').filter_map(Mapping::parse).collect()
    }

    fn parse(line: &[u8]) -> Option<Mapping> {
        let mut rest = line;
        let mut field = || -> Option<&[u8]> {
            let end = rest.iter().position(|&b| b == b' ').unwrap_or(rest.len());
            let (field, tail) = rest.split_at(end);
            rest = tail.get(1..).unwrap_or_default();
            (!field.is_empty()).then_some(field)
        };
        let hex = |bytes: &[u8]| u64::from_str_radix(std::str::from_utf8(bytes).ok()?, 16).ok();
        let range = field()?;
        let dash = range.iter().position(|&b| b == b'-')?;
        let (start, end) = (hex(&range[..dash])?, hex(range.get(dash + 1..)?)?);
        let flags = field()?;
        let offset = hex(field()?)?;
        let device = field()?;
        let colon = device.iter().position(|&b| b == b':')?;
        let number = |bytes| u32::try_from(hex(bytes)?).ok();
        let device = (number(&device[..colon])?, number(device.get(colon + 1..)?)?);
        let inode = std::str::from_utf8(field()?).ok()?.parse().ok()?;
        let path = rest.iter().position(|&b| b != b' ').and_then(|i| rest.get(i..)).unwrap_or_default();
        Some(Mapping {
            start,
            end,
            readable: flags.first() == Some(&b'r'),
            writable: flags.get(1) == Some(&b'w'),
            executable: flags.get(2) == Some(&b'x'),
            offset,
            device,
            inode,
            path: path.to_vec(),
        })
    }
}

/// Writes a path as /proc/PID/maps does: the kernel writes a line end as an escape, and escapes
/// nothing else (`seq_path` with "\n" in show_map_vma, Linux's fs/proc/task_mmu.c). /proc/PID/exe
/// gives the path unchanged.
pub fn path_in_maps(path: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = path.split(|&b| b == b'\n').collect();
    lines.join(NEWLINE)
}

/// Replaces the escapes of [`path_in_maps`] by line ends; `None` if the path has no such escape.
/// The path itself may also hold the text of the escape.
pub fn with_newlines(path: &[u8]) -> Option<Vec<u8>> {
    let mut rest = path;
    let mut out = Vec::with_capacity(path.len());
    while let Some(at) = rest.windows(NEWLINE.len()).position(|window| window == NEWLINE) {
        out.extend_from_slice(rest.get(..at)?);
        out.push(b'\n');
        rest = rest.get(at + NEWLINE.len()..)?;
    }
    (rest.len() < path.len()).then(|| [out.as_slice(), rest].concat())
}

const NEWLINE: &[u8] = b"\\012";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_in_paths() {
        assert_eq!(path_in_maps(b"/a\nb\\c"), b"/a\\012b\\c");
        assert_eq!(with_newlines(b"/a\\012b\\012").as_deref(), Some(&b"/a\nb\n"[..]));
        assert_eq!(with_newlines(b"/a"), None);
    }

    #[test]
    fn lines() {
        let text = b"00400000-004ab000 r-xp 00001000 fe:00 131 /usr/bin/a b\n\
                     c000000000-c000400000 rw-p 00000000 00:00 0 \n\
                     7ffd-7ffe r-xp 0 00:00 0                          [vdso]\nnonsense\n\n";
        let maps = Mapping::parse_all(text);
        assert_eq!(maps.len(), 3);
        assert_eq!((maps[0].start, maps[0].offset, maps[0].inode), (0x400000, 0x1000, 131));
        assert_eq!(maps[0].path, b"/usr/bin/a b");
        assert!(maps[0].executable && !maps[0].writable && maps[1].writable && maps[1].path.is_empty());
        assert_eq!(maps[0].device, (0xfe, 0));
        assert_eq!(maps[2].path, b"[vdso]");
    }
}
