//! The initial file system of a machine: an archive that the kernel unpacks into memory.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use cpio::newc::{Builder, ModeFileType, trailer};

use crate::error::{Error, Result};
use crate::programs::Program;

/// Empty folders that the runner mounts file systems on, and others that programs expect.
const FOLDERS: [&str; 10] = ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "targets", "home"];

/// The users that sub-tests run programs as.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                      daemon:x:1:1::/tmp:/bin/sh\n\
                      bin:x:2:2::/tmp:/bin/sh\n";

/// Writes the archive with these programs; the first of them is also what the kernel starts.
pub(crate) fn write(programs: &[Program], path: &Path) -> Result<()> {
    let file = File::create(path).map_err(Error::file(path))?;
    let mut archive = Archive { out: BufWriter::new(file), inode: 0 };
    let mut result = FOLDERS.iter().try_for_each(|name| archive.folder(name));
    for folder in folders_of(programs) {
        result = result.and_then(|()| archive.folder(&folder));
    }
    result = result.and_then(|()| archive.file("etc/passwd", 0o644, PASSWD.as_bytes()));
    for (n, program) in programs.iter().enumerate() {
        let bytes = fs::read(&program.path).map_err(Error::file(&program.path))?;
        result = result.and_then(|()| archive.file(&program.name, 0o755, &bytes));
        if n == 0 {
            result = result.and_then(|()| archive.file("init", 0o755, &bytes));
        }
    }
    result.and_then(|()| trailer(archive.out)?.flush()).map_err(Error::file(path))
}

fn folders_of(programs: &[Program]) -> Vec<String> {
    let mut folders: Vec<String> = Vec::new();
    for program in programs {
        let above = Path::new(&program.name).ancestors().skip(1);
        folders.extend(above.map(|folder| folder.display().to_string()));
    }
    folders.retain(|folder| !folder.is_empty() && !FOLDERS.contains(&folder.as_str()));
    // Each after the one that it is in.
    folders.sort();
    folders.dedup();
    folders
}

struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn folder(&mut self, name: &str) -> io::Result<()> {
        // As everywhere else, everybody may write to /tmp.
        let mode = if name == "tmp" { 0o1777 } else { 0o755 };
        self.entry(name, ModeFileType::Directory, mode, 2, &[])
    }

    fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.entry(name, ModeFileType::Regular, mode, 1, bytes)
    }

    fn entry(
        &mut self,
        name: &str,
        kind: ModeFileType,
        mode: u32,
        links: u32,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        // The type first: it sets the whole mode.
        let entry = Builder::new(name).ino(self.inode).nlink(links).mode(mode).set_mode_file_type(kind);
        let mut writer = entry.write(&mut self.out, size);
        writer.write_all(bytes)?;
        writer.finish()?;
        Ok(())
    }
}
