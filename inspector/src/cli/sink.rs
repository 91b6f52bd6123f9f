//! New file for an answer, with holes instead of zeros.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};

use crate::operations::binary::Sink;

const BUFFER: usize = 1 << 20;

/// New file for an answer.
pub(super) struct NewFile<'f>(BufWriter<&'f File>);

impl<'f> NewFile<'f> {
    pub(super) fn new(file: &'f File) -> Self {
        NewFile(BufWriter::with_capacity(BUFFER, file))
    }

    /// Writes the rest of the buffer, and sets the file's length to include a hole at the end.
    ///
    /// # Errors
    /// Returns an error if writing fails.
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
