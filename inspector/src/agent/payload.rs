//! Checks of answers that are files: their first bytes, and their completeness.

use std::io::{self, Write};

use flate2::write::GzDecoder;

/// Number of bytes that determine the kind of a file.
const HEAD: usize = 16;
/// Number of bytes kept of a refused answer, for the message.
const SHOWN: usize = 120;
/// Maximum unpacked size of a profile that is checked; the rest is not checked.
const MAX_UNPACKED: u64 = 8 << 30;

/// Kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Profile for pprof: protocol buffers in gzip.
    Profile,
    /// Go execution trace.
    Trace,
    /// Executable.
    Program,
}

impl Payload {
    /// Name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Payload::Profile => "a profile",
            Payload::Trace => "an execution trace",
            Payload::Program => "a program",
        }
    }

    /// Returns true if a file of this kind can begin with `head`.
    pub fn begins(self, head: &[u8]) -> bool {
        match self {
            Payload::Profile => head.starts_with(&[0x1f, 0x8b, 8]),
            Payload::Trace => head.starts_with(b"go 1.") && head.windows(6).any(|w| w == b" trace"),
            // ELF, Mach-O and PE, as an agent may be on another machine.
            Payload::Program => {
                [&b"\x7fELF"[..], b"MZ", b"\xcf\xfa\xed\xfe"].iter().any(|magic| head.starts_with(magic))
            }
        }
    }
}

/// Writer that passes on files of one kind, and refuses others before any of it is written.
pub struct Checked<W> {
    out: W,
    payload: Payload,
    head: Vec<u8>,
    begun: bool,
    refused: bool,
    unpacked: Option<GzDecoder<Counter>>,
    damage: Option<String>,
}

impl<W> std::fmt::Debug for Checked<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checked")
            .field("payload", &self.payload)
            .field("damage", &self.damage)
            .finish_non_exhaustive()
    }
}

impl<W: Write> Checked<W> {
    /// Makes a checking writer to `out`.
    pub fn new(payload: Payload, out: W) -> Self {
        let unpacked = (payload == Payload::Profile).then(|| GzDecoder::new(Counter(0)));
        Checked { out, payload, head: Vec::new(), begun: false, refused: false, unpacked, damage: None }
    }

    /// First bytes of the answer, if it was refused.
    pub fn refused(&self) -> Option<String> {
        self.refused.then(|| String::from_utf8_lossy(&self.head).trim_end().to_owned())
    }

    /// Ends the answer. Returns a description of what is missing or damaged, as far as the kind of
    /// file shows it.
    ///
    /// # Errors
    /// Returns the errors of the output, or an error if the answer was refused.
    pub fn finish(&mut self) -> io::Result<Option<String>> {
        self.begin(true)?;
        self.out.flush()?;
        if let Some(mut gzip) = self.unpacked.take()
            && gzip.try_finish().is_err()
        {
            self.damage = Some("its compressed data end early".to_owned());
        }
        Ok(self.damage.take())
    }

    /// Decides on the kind once enough bytes are there.
    fn begin(&mut self, end: bool) -> io::Result<()> {
        if self.begun || (self.head.len() < HEAD && !end) {
            return Ok(());
        }
        if !self.payload.begins(&self.head) {
            self.refused = true;
            self.head.truncate(SHOWN);
            return Err(io::Error::new(io::ErrorKind::InvalidData, "refused"));
        }
        self.begun = true;
        let head = std::mem::take(&mut self.head);
        self.pass(&head)
    }

    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        if let Some(gzip) = &mut self.unpacked
            && let Err(e) = gzip.write_all(bytes)
        {
            self.unpacked = None;
            if e.kind() != io::ErrorKind::FileTooLarge {
                self.damage = Some(format!("its compressed data are damaged: {e}"));
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.begun {
            self.pass(bytes)?;
        } else {
            self.head.extend_from_slice(bytes);
            self.begin(false)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writer that counts the unpacked bytes, up to a limit.
#[derive(Debug)]
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        if self.0 > MAX_UNPACKED {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        payload: Payload,
        bytes: &[u8],
        step: usize,
    ) -> (Vec<u8>, io::Result<Option<String>>, Option<String>) {
        let mut checked = Checked::new(payload, Vec::new());
        let written = bytes.chunks(step).try_for_each(|part| checked.write_all(part));
        let end = written.and_then(|()| checked.finish());
        let refused = checked.refused();
        (checked.out, end, refused)
    }

    #[test]
    fn profiles() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&(0..200_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>()).unwrap();
        let whole = gzip.finish().unwrap();
        for step in [1, 7, 4096, whole.len()] {
            let (out, end, refused) = check(Payload::Profile, &whole, step);
            assert_eq!((out == whole, end.unwrap(), refused), (true, None, None));
        }
        let (out, end, _) = check(Payload::Profile, &whole[..whole.len() - 1], 512);
        assert_eq!(out.len(), whole.len() - 1);
        assert_eq!(end.unwrap().unwrap(), "its compressed data end early");
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 0xff;
        assert!(check(Payload::Profile, &damaged, 512).1.unwrap().is_some());
    }

    #[test]
    fn what_is_none_is_refused_before_it_is_written() {
        for payload in [Payload::Profile, Payload::Trace, Payload::Program] {
            for bytes in [&b"error: no such thing, and a long text about it"[..], b"short", b"\0"] {
                let (out, end, refused) = check(payload, bytes, 4);
                assert!(out.is_empty() && end.is_err(), "{payload:?}");
                assert!(bytes.starts_with(refused.unwrap().as_bytes()));
            }
        }
        let trace = b"go 1.23 trace\0\0\0and more";
        assert_eq!(check(Payload::Trace, trace, 3).0, trace);
        assert_eq!(check(Payload::Program, b"\x7fELF\x02\x01", 3).0, b"\x7fELF\x02\x01");
    }
}
