//! Executable file of a process.

use std::io::{self, Write};
use std::ops::ControlFlow;

use symbols::image::Source as _;

use crate::process::executable::Executable;

/// Number of bytes read at once.
const BUFFER: usize = 1 << 20;
/// Zeros written at once in place of a hole.
const ZEROS: [u8; 4096] = [0; 4096];

/// Destination of a program's bytes, which may support holes.
pub(crate) trait Sink: Write {
    /// Writes `len` zeros, as a hole if possible.
    ///
    /// # Errors
    /// Returns an error if writing fails.
    fn hole(&mut self, len: u64) -> io::Result<()>;
}

/// Destination without holes: zeros are written as bytes.
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

/// Result of copying a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copied {
    /// Copied completely; number of bytes.
    Whole(u64),
    /// Stopped on request; number of bytes copied.
    Stopped(u64),
    /// Stopped at unreadable bytes; number of bytes copied before them.
    Unreadable(u64),
}

/// Copies an executable with its holes. `goes_on` is called with the number of bytes copied so far, and may
/// stop the copy.
///
/// # Errors
/// Returns an error if writing to `out` fails.
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
