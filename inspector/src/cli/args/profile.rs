//! Arguments of the profile commands.

use clap::{Args, ValueEnum};

use super::WayArgs;
use crate::cli::duration::Period;
use crate::cli::target::TargetArgs;

/// How a profile is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For `go tool pprof`: protocol buffers in gzip, with all names
    Pprof,
    /// A line for each stack, `main;a;b 12`, for flame graph tools
    Folded,
    /// A flame graph: one SVG file
    Flamegraph,
    /// For speedscope
    Speedscope,
    /// For people: functions and places with the most
    Text,
    /// All of it, in JSON
    Json,
}

/// How a profile is written, and shown.
#[derive(Debug, Clone, Args)]
pub struct FormatArgs {
    /// How it is written; text, folded and json go to standard output, the others to a file
    #[arg(short, long, value_enum, default_value_t = Format::Pprof, value_name = "FORMAT")]
    pub format: Format,
    /// Which of its values: inuse_space, alloc_objects, delay …; a pprof file has all of them, and shows this one first
    #[arg(long, value_name = "NAME")]
    pub sample_type: Option<String>,
    /// Show the file in the browser, with `go tool pprof -http`
    #[arg(long)]
    pub open: bool,
}

/// Arguments of the profiles that the runtime keeps.
#[derive(Debug, Args)]
pub struct RuntimeProfileArgs {
    /// What to look at.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Who answers.
    #[command(flatten)]
    pub way: WayArgs,
    /// How it is written.
    #[command(flatten)]
    pub format: FormatArgs,
    /// Only what comes between two readings
    #[arg(long, requires = "duration")]
    pub diff: bool,
    /// Where the profiler is off, switch it on for the time of --duration and off again (tier 3 write): the profile is of that
    /// time only. RATE is a sample each so many bytes for allocations [default: 512KiB], for each so long a wait for
    /// pprof-block [10us], for one in so many events for pprof-mutex [10]
    #[arg(
        long, value_name = "RATE", num_args = 0..=1, require_equals = true, default_missing_value = "",
        requires = "duration", conflicts_with = "diff"
    )]
    pub enable: Option<String>,
    /// How long --diff or --enable take: a duration such as 500ms or 1m30s, or a number of seconds
    #[arg(short, long, value_name = "DURATION")]
    pub duration: Option<Period>,
}

/// Arguments of `pprof-cpu`.
#[derive(Debug, Args)]
pub struct CpuProfileArgs {
    /// What to look at.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Who answers.
    #[command(flatten)]
    pub way: WayArgs,
    /// How it is written.
    #[command(flatten)]
    pub format: FormatArgs,
}
