//! What the bytes of an answer are written to: a file, with holes where there was nothing to write, or anything else.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};

const BUFFER: usize = 1 << 20;
/// Written in place of a hole at once.
const ZEROS: [u8; 4096] = [0; 4096];

/// Something to write to.
pub(super) trait Sink: Write {
    /// So many zeros, which take no place where that is possible.
    ///
    /// # Errors
    /// What the kernel says.
    fn hole(&mut self, len: u64) -> io::Result<()>;
}

/// What can only be written byte by byte.
pub(super) struct Stream<W>(pub(super) W);

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

/// A new file.
pub(super) struct NewFile<'f>(BufWriter<&'f File>);

impl<'f> NewFile<'f> {
    pub(super) fn new(file: &'f File) -> Self {
        NewFile(BufWriter::with_capacity(BUFFER, file))
    }

    /// Writes what is left, and what a hole at the end leaves out.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let len = self.0.stream_position()?;
        self.0.flush()?;
        self.0.get_ref().set_len(len)
    }
}

impl Write for NewFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Sink for NewFile<'_> {
    fn hole(&mut self, len: u64) -> io::Result<()> {
        let len = i64::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.0.seek(SeekFrom::Current(len)).map(drop)
    }
}
