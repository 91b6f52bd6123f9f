//! The program that a process executes, as a file.

use std::io::{self, Write};
use std::ops::ControlFlow;

use symbols::image::Source as _;

use crate::process::executable::Executable;

/// So many bytes are read at once.
const BUFFER: usize = 1 << 20;
/// Written in place of a hole at once.
const ZEROS: [u8; 4096] = [0; 4096];

/// What a program can be written to: it may have holes.
pub(crate) trait Sink: Write {
    /// So many zeros, which take no place where that is possible.
    ///
    /// # Errors
    /// What the kernel says.
    fn hole(&mut self, len: u64) -> io::Result<()>;
}

/// What can only be written byte by byte.
pub(crate) struct Stream<W>(pub(crate) W);

impl<W: Write> Write for Stream<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Sink for Stream<W> {
    fn hole(&mut self, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let size = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
            self.0.write_all(ZEROS.get(..size).unwrap_or_default())?;
            len -= size as u64;
        }
        Ok(())
    }
}

/// How much of a program was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copied {
    /// All of it: so many bytes.
    Whole(u64),
    /// So many bytes; then somebody wanted to end it.
    Stopped(u64),
    /// So many bytes; what is behind them cannot be read.
    Unreadable(u64),
}

/// Copies an executable, with its holes. `goes_on` hears how many bytes are there, and may end it.
///
/// # Errors
/// Those of `out`.
pub(crate) fn copy(
    executable: &Executable,
    out: &mut dyn Sink,
    goes_on: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> io::Result<Copied> {
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    while at < executable.len() {
        let data = executable.data(at).unwrap_or(executable.len()..executable.len());
        out.hole(data.start.saturating_sub(at))?;
        at = at.max(data.start);
        while at < data.end {
            if goes_on(at).is_break() {
                return Ok(Copied::Stopped(at));
            }
            let size = usize::try_from(data.end - at).map_or(BUFFER, |left| left.min(BUFFER));
            let part = buffer.get_mut(..size).unwrap_or_default();
            if !executable.read_at(at, part) {
                return Ok(Copied::Unreadable(at));
            }
            out.write_all(part)?;
            at += size as u64;
        }
    }
    out.flush()?;
    Ok(Copied::Whole(at))
}
