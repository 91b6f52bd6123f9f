//! Foreign text made safe for a terminal: line ends and tabs stay, other characters that could act
//! on the terminal become visible.

use std::io::{self, Write};

use crate::printable::printable;

/// Maximum length of a line in bytes. Longer lines are written in parts.
const MAX_LINE: usize = 64 << 10;

/// Writer that passes text on line by line, with characters that could act on a terminal made visible.
#[derive(Debug)]
pub struct TerminalSafe<W: Write> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> TerminalSafe<W> {
    /// Makes a writer that passes safe text to `out`.
    pub fn new(out: W) -> Self {
        TerminalSafe { out, line: Vec::new() }
    }

    /// Returns the inner writer.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn write_line(&mut self) -> io::Result<()> {
        for (i, cell) in self.line.split(|&b| b == b'\t').enumerate() {
            if i > 0 {
                self.out.write_all(b"\t")?;
            }
            self.out.write_all(printable(cell).as_bytes())?;
        }
        self.line.clear();
        Ok(())
    }
}

impl<W: Write> Write for TerminalSafe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|&b| b == b'\n') {
            let (text, ends) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            self.line.extend_from_slice(text);
            if ends {
                self.write_line()?;
                self.out.write_all(b"\n")?;
            } else if self.line.len() >= MAX_LINE {
                self.write_line()?;
            }
        }
        Ok(bytes.len())
    }

    /// Writes an unfinished line, too.
    fn flush(&mut self) -> io::Result<()> {
        self.write_line()?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_tabs_stay() {
        let mut out = Vec::new();
        let mut safe = TerminalSafe::new(&mut out);
        for part in ["main.f(0x1", ")\n\t/a/b.go:7 +0x1\n", "\x1b]0;x\x07\r\n\u{202e}e", "nd"] {
            safe.write_all(part.as_bytes()).unwrap();
        }
        safe.flush().unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "main.f(0x1)\n\t/a/b.go:7 +0x1\n\\x1b]0;x\\x07\\r\n\\u{202e}end");
    }

    #[test]
    fn long_lines_stay_bounded() {
        let mut safe = TerminalSafe::new(Vec::new());
        for _ in 0..100 {
            safe.write_all(&[b'x'; 10_000]).unwrap();
            assert!(safe.line.len() < MAX_LINE + 10_000);
        }
        safe.flush().unwrap();
        assert_eq!(safe.out.len(), 1_000_000);
    }
}
