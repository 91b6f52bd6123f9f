//! Arguments of commands that change a process.

use std::fmt;
use std::str::FromStr;

use clap::Args;

use super::WayArgs;
use crate::agent::GcPercent;
use crate::change::knob::NO_LIMIT;
use crate::cli::runtimes::RuntimeArgs;
use crate::cli::target::TargetArgs;

/// Arguments of `gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// What to look at.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Who does it.
    #[command(flatten)]
    pub way: WayArgs,
    /// Which runtime.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Change nothing; only print what would be written
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `setgc`.
#[derive(Debug, Args)]
pub struct SetGcArgs {
    /// What to do it to.
    #[command(flatten)]
    pub knob: GcArgs,
    /// The percentage, or `off` for no collections
    #[arg(value_name = "PERCENT", allow_negative_numbers = true)]
    pub percent: GcPercent,
}

/// Arguments of `setmemlimit`.
#[derive(Debug, Args)]
pub struct SetMemLimitArgs {
    /// What to do it to.
    #[command(flatten)]
    pub knob: GcArgs,
    /// The limit: a number of bytes, a number with a unit (B, KiB, MiB, GiB, TiB), or `off` for no limit
    #[arg(value_name = "LIMIT")]
    pub limit: MemoryLimit,
    /// Set the limit even if it is below the memory that no collection can free
    #[arg(long)]
    pub force: bool,
}

/// Soft memory limit in bytes, in the notation of GOMEMLIMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit(pub i64);

impl FromStr for MemoryLimit {
    type Err = String;

    /// Parses the notation of `runtime.parseByteCount`, and `off`.
    fn from_str(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, u32); 5] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0)];
        if text.eq_ignore_ascii_case("off") {
            return Ok(MemoryLimit(NO_LIMIT));
        }
        let unit = UNITS.iter().find_map(|&(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
        let (digits, shift) = unit.unwrap_or((text, 0));
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let bytes = digits.parse::<i64>().ok().filter(|_| plain).and_then(|n| n.checked_mul(1 << shift));
        bytes
            .map(MemoryLimit)
            .ok_or_else(|| format!("{text:?} is neither a number of bytes such as 512MiB, nor `off`"))
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == NO_LIMIT { f.write_str("off") } else { self.0.fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_limits() {
        let parsed = |text: &str| text.parse::<MemoryLimit>().map(|limit| limit.0);
        for (text, bytes) in [
            ("0", 0),
            ("123", 123),
            ("5B", 5),
            ("5KiB", 5 << 10),
            ("64MiB", 64 << 20),
            ("3GiB", 3 << 30),
            ("1TiB", 1 << 40),
            ("off", i64::MAX),
            ("OFF", i64::MAX),
        ] {
            assert_eq!(parsed(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "-1", "+1", "1.5GiB", "1 GiB", "1GB", "1gib", "9000000TiB", "B", "none"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
