//! Arguments of the profile commands.

use clap::{Args, ValueEnum};

use super::WayArgs;
use crate::capture::cpu::session::Mode;
use crate::cli::duration::Period;
use crate::cli::target::{Target, TargetArgs};

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
    pub sampled: SampledArgs,
    /// Who answers.
    #[command(flatten)]
    pub way: WayArgs,
    /// How it is written.
    #[command(flatten)]
    pub format: FormatArgs,
    /// How long: a duration such as 500ms or 1m30s, or a number of seconds; Ctrl-C ends it before, and what there is then is
    /// written
    #[arg(short, long, value_name = "DURATION", default_value = "30s")]
    pub duration: Period,
}

/// What to sample, and how.
#[derive(Debug, Args)]
pub struct SampledArgs {
    /// Pids; name:REGEX, the one Go process with such a name; container:ID, the one in that container. Processes that are not
    /// Go's can be given by their pids. Or one HOST:PORT, a gops agent
    #[arg(value_name = "TARGET", required_unless_present = "system", conflicts_with = "system")]
    pub targets: Vec<Target>,
    /// Wait until there are such processes: a minute, or for a duration such as 30s
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "1m")]
    pub wait: Option<Period>,
    /// Samples of each CPU in a second
    #[arg(
        short, long, value_name = "HERTZ", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=20_000)
    )]
    pub rate: u32,
    /// Tell threads apart: each sample has the label `thread`
    #[arg(long)]
    pub threads: bool,
    /// Also the processes that the targets have begun and begin, and those that these do
    #[arg(long, conflicts_with = "system")]
    pub children: bool,
    /// All processes of the machine
    #[arg(long)]
    pub system: bool,
    /// How samples are taken; without it, in the first of these ways that is possible
    #[arg(long, value_enum, value_name = "MODE")]
    pub mode: Option<SamplingMode>,
}

/// How samples are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SamplingMode {
    /// BPF programs on perf events
    Bpf,
    /// Perf events
    Perf,
    /// Threads are stopped one at a time
    Ptrace,
}

impl From<SamplingMode> for Mode {
    fn from(mode: SamplingMode) -> Self {
        match mode {
            SamplingMode::Bpf => Mode::Bpf,
            SamplingMode::Perf => Mode::Perf,
            SamplingMode::Ptrace => Mode::Ptrace,
        }
    }
}
