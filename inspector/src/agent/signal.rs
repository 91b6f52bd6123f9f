//! Commands of the gops protocol: one byte; one command is followed by a number. The answer is
//! everything until the agent closes the connection (package `signal` of gops).

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::time::Duration;

/// Command of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Prints all goroutines with their stacks, as `runtime.Stack` does.
    StackTrace,
    /// Runs a garbage collection, then answers `ok`.
    Gc,
    /// Prints the values of `runtime.ReadMemStats`, line by line.
    MemStats,
    /// Prints `runtime.Version()`.
    Version,
    /// Sends a heap profile: protocol buffers for pprof, in gzip.
    HeapProfile,
    /// Sends a CPU profile of 30 seconds: protocol buffers for pprof, in gzip.
    CpuProfile,
    /// Prints the numbers of goroutines, threads and CPUs, line by line.
    Stats,
    /// Sends an execution trace of 5 seconds.
    Trace,
    /// Sends the executable.
    BinaryDump,
    /// Sets GOGC; prints the new value and the old one.
    SetGcPercent,
}

impl Signal {
    /// All commands.
    pub const ALL: [Signal; 10] = [
        Signal::StackTrace,
        Signal::Gc,
        Signal::MemStats,
        Signal::Version,
        Signal::HeapProfile,
        Signal::CpuProfile,
        Signal::Stats,
        Signal::Trace,
        Signal::BinaryDump,
        Signal::SetGcPercent,
    ];

    /// Byte that encodes the command.
    pub fn byte(self) -> u8 {
        match self {
            Signal::StackTrace => 0x1,
            Signal::Gc => 0x2,
            Signal::MemStats => 0x3,
            Signal::Version => 0x4,
            Signal::HeapProfile => 0x5,
            Signal::CpuProfile => 0x6,
            Signal::Stats => 0x7,
            Signal::Trace => 0x8,
            Signal::BinaryDump => 0x9,
            Signal::SetGcPercent => 0x10,
        }
    }

    /// Command that a byte encodes.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.byte() == byte)
    }

    /// Name of the command of this program.
    pub fn command(self) -> &'static str {
        match self {
            Signal::StackTrace => "stack",
            Signal::Gc => "gc",
            Signal::MemStats => "memstats",
            Signal::Version => "version",
            Signal::HeapProfile => "pprof-heap",
            Signal::CpuProfile => "pprof-cpu",
            Signal::Stats => "stats",
            Signal::Trace => "trace",
            Signal::BinaryDump => "binary",
            Signal::SetGcPercent => "setgc",
        }
    }

    /// Time that the agent measures before it answers. It is fixed in the agent.
    pub fn measures_for(self) -> Duration {
        match self {
            Signal::CpuProfile => Duration::from_secs(30),
            Signal::Trace => Duration::from_secs(5),
            _ => Duration::ZERO,
        }
    }
}

/// Percentage of `setgc`: GOGC, or a negative number to switch collections off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcPercent(pub i64);

impl FromStr for GcPercent {
    type Err = String;

    /// Parses a number, or `off` in any case, as gops does. Negative numbers are refused, as they
    /// are more likely a slip than the wish to have no collections any more.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(GcPercent(-1));
        }
        match text.parse::<i64>() {
            Ok(negative) if negative < 0 => {
                Err(format!("{negative} would switch the collector off: write `off` if you want that"))
            }
            Ok(percent) => Ok(GcPercent(percent)),
            Err(_) => Err(format!("{text:?} is neither a percentage, nor `off`")),
        }
    }
}

impl fmt::Display for GcPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 { f.write_str("off") } else { self.0.fmt(f) }
    }
}

/// Request in the form in which it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Command without parameters.
    Plain(Signal),
    /// Command [`Signal::SetGcPercent`] with its percentage.
    SetGc(GcPercent),
}

impl Request {
    /// Command of the request.
    pub fn signal(&self) -> Signal {
        match self {
            Request::Plain(signal) => *signal,
            Request::SetGc(_) => Signal::SetGcPercent,
        }
    }

    /// Bytes to send.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.signal().byte()];
        if let Request::SetGc(percent) = self {
            write_varint(percent.0, &mut bytes);
        }
        bytes
    }
}

/// Appends a number as Go's `binary.PutVarint` writes it: zigzag, seven bits in a byte, low ones
/// first.
fn write_varint(value: i64, out: &mut Vec<u8>) {
    let mut rest = value.cast_unsigned() << 1;
    if value < 0 {
        rest = !rest;
    }
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Reads a number as Go's `binary.ReadVarint` does.
///
/// # Errors
/// Returns the errors of `from`, and [`io::ErrorKind::InvalidData`] for a number of more than 64
/// bits.
pub fn read_varint(from: &mut impl Read) -> io::Result<i64> {
    let mut bits = 0u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        let part = u64::from(byte[0] & 0x7f);
        if shift == 63 && part > 1 {
            break;
        }
        bits |= part << shift;
        if byte[0] < 0x80 {
            let value = (bits >> 1).cast_signed();
            return Ok(if bits & 1 == 0 { value } else { !value });
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a number of more than 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_the_commands() {
        let bytes: Vec<_> = Signal::ALL.iter().map(|s| s.byte()).collect();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0x10]);
        assert!(Signal::ALL.iter().all(|&s| Signal::from_byte(s.byte()) == Some(s)));
        assert_eq!((Signal::from_byte(0), Signal::from_byte(0xa)), (None, None));
        assert_eq!(Request::Plain(Signal::Stats).encode(), [7]);
    }

    #[test]
    fn percentages() {
        assert_eq!("100".parse(), Ok(GcPercent(100)));
        assert_eq!("OFF".parse(), Ok(GcPercent(-1)));
        assert!("-1".parse::<GcPercent>().is_err_and(|e| e.contains("off")));
        for wrong in ["", "50%", "1.5", "on", "9223372036854775808"] {
            assert!(wrong.parse::<GcPercent>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_as_go_encodes_them() {
        // Values with the bytes that binary.PutVarint writes.
        for (value, bytes) in [
            (0, &[0][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (64, &[0x80, 0x01]),
            (100, &[0xc8, 0x01]),
            (-65, &[0x81, 0x01]),
            (i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            let sent = Request::SetGc(GcPercent(value)).encode();
            assert_eq!((sent[0], &sent[1..]), (0x10, bytes), "{value}");
            assert_eq!(read_varint(&mut &bytes[..]).unwrap(), value);
        }
        assert!(read_varint(&mut &[0xff; 10][..]).is_err());
        assert!(read_varint(&mut &[0x80; 3][..]).is_err());
    }
}
