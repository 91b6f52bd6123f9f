//! Output of answers to standard output or to a file.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, Write};
use std::path::Path;

use serde::Serialize;

use super::args::Common;
use super::place::{Place, open_special};
use crate::Error;
use crate::report::terminal::TerminalSafe;

const BUFFER: usize = 64 << 10;

/// Writes an answer to standard output, or to the file that was asked for.
pub(super) fn write(
    common: &Common,
    answer: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    match common.output.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let failed = |source| Error::Output { to: path.display().to_string(), source };
            to_path(path, answer).map_err(failed)
        }
        None => {
            let failed = |source| Error::Output { to: "standard output".to_owned(), source };
            to(io::stdout().lock(), answer).map_err(failed)
        }
    }
}

/// Writes text made by others as [`write`] does; on a terminal, characters that could act on it are made
/// visible.
pub(super) fn write_foreign(
    common: &Common,
    answer: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let to_stdout = common.output.as_deref().is_none_or(|path| path == Path::new("-"));
    let terminal = to_stdout && io::stdout().is_terminal();
    write(common, |out| {
        if !terminal {
            return answer(out);
        }
        let mut safe = TerminalSafe::new(out);
        answer(&mut safe)?;
        safe.flush()
    })
}

/// Writes an answer to a path. An existing file is replaced once the whole answer is written: a full disk
/// destroys neither.
fn to_path(path: &Path, answer: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let entry = match Place::find(path)? {
        Place::Inherited(fd) => return to(File::from(fd), answer),
        Place::Special(found) => return to(open_special(&found)?, answer),
        Place::Entry(entry) => entry,
    };
    match entry.begin() {
        Ok(new) => {
            to(&new.file, answer)?;
            new.keep(false)
        }
        // A folder that takes no new files may have an existing file that can be overwritten.
        Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            to(entry.overwrite().map_err(|_| e)?, answer)
        }
        Err(e) => Err(e),
    }
}

fn to(out: impl Write, answer: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, out);
    answer(&mut out)?;
    out.flush()
}

/// Writer that escapes DEL and the C1 controls, which JSON allows in strings and some terminals obey. JSON
/// has them only in strings: the text need not be parsed.
struct Escaped<'w> {
    out: &'w mut dyn Write,
    /// True if the last byte was the first of a C1 control's two bytes.
    lead: bool,
}

impl Write for Escaped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut plain = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            let lead = std::mem::replace(&mut self.lead, byte == 0xc2);
            let control = byte == 0x7f || (lead && (0x80..0xa0).contains(&byte));
            if !control && !lead && !self.lead {
                continue;
            }
            self.out.write_all(bytes.get(plain..at).unwrap_or_default())?;
            plain = at + 1;
            if control {
                write!(self.out, "\\u{byte:04x}")?;
            } else if lead {
                self.out.write_all(&[0xc2])?;
                plain = at + usize::from(self.lead);
            }
        }
        self.out.write_all(bytes.get(plain..).unwrap_or_default())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Returns JSON with the characters escaped that could act on a terminal.
pub(super) fn escaped(json: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(json.len() + 1);
    Escaped { out: &mut bytes, lead: false }.write_all(json)?;
    Ok(bytes)
}

/// Writes an answer that is JSON, as [`write`] does, with terminal controls escaped.
pub(super) fn write_escaped(
    common: &Common,
    answer: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    write(common, |out| answer(&mut Escaped { out, lead: false }))
}

/// Writes one of several answers as JSON, on a line of its own.
pub(super) fn write_json_line(common: &Common, answer: &impl Serialize) -> Result<(), Error> {
    write_escaped(common, |out| {
        serde_json::to_writer(&mut *out, answer)?;
        writeln!(out)
    })
}

/// Writes an answer as JSON, with a line end behind it.
pub(super) fn write_json(common: &Common, answer: &impl Serialize) -> Result<(), Error> {
    write_escaped(common, |out| {
        serde_json::to_writer_pretty(&mut *out, answer)?;
        writeln!(out)
    })
}
