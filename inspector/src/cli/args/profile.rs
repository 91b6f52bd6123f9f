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
    /// How far apart these are: a duration such as 500ms or 1m30s, or a number of seconds
    #[arg(short, long, value_name = "DURATION", requires = "diff")]
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
