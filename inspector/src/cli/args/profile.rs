//! Arguments of the profile commands.

use std::path::Path;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use super::WayArgs;
use crate::capture::cpu::session::Mode;
use crate::cli::completion::targets;
use crate::cli::duration::Period;
use crate::cli::runtimes::RuntimeArgs;
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

impl Format {
    /// How names of files end, and which formats a file of that name can have, the likeliest first. The first that fits counts.
    const NAMES: [(&'static str, &'static [Format]); 10] = [
        (".pb.gz", &[Format::Pprof]),
        (".pprof", &[Format::Pprof]),
        (".prof", &[Format::Pprof]),
        (".svg", &[Format::Flamegraph]),
        (".folded", &[Format::Folded]),
        (".collapsed", &[Format::Folded]),
        (".speedscope.json", &[Format::Speedscope]),
        (".speedscope", &[Format::Speedscope]),
        (".json", &[Format::Json, Format::Speedscope]),
        (".txt", &[Format::Text, Format::Folded]),
    ];
}

/// How a profile is written, and shown.
#[derive(Debug, Clone, Args)]
pub struct FormatArgs {
    /// How it is written [default: as the name of FILE says (.pb.gz, .svg, .folded, .speedscope.json, .json, .txt), else
    /// pprof]; text, folded and json go to standard output, the others to a file
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Which of its values: inuse_space, alloc_objects, delay …; a pprof file has all of them, and shows this one first
    #[arg(long, value_name = "NAME")]
    pub sample_type: Option<String>,
    /// Show the file in the browser, with `go tool pprof -http`
    #[arg(long)]
    pub open: bool,
}

impl FormatArgs {
    /// The format that is wanted of a file with this name.
    ///
    /// # Errors
    /// Where the name says another one than `--format`, in words.
    pub fn for_file(&self, file: Option<&Path>) -> Result<Format, String> {
        let name = file.and_then(Path::file_name).map(|name| name.to_string_lossy().to_lowercase());
        let name = name.unwrap_or_default();
        let by_name = Format::NAMES.iter().find(|(suffix, _)| name.ends_with(suffix));
        match (self.format, by_name) {
            (Some(format), Some((suffix, formats))) if !formats.contains(&format) => {
                let wanted = format.to_possible_value();
                let wanted = wanted.as_ref().map_or("", |value| value.get_name());
                Err(format!(
                    "a file whose name ends in {suffix} is not of the format {wanted}: leave out --format, or give it another name"
                ))
            }
            (Some(format), _) => Ok(format),
            (None, Some((_, formats))) => Ok(formats.first().copied().unwrap_or(Format::Pprof)),
            (None, None) => Ok(Format::Pprof),
        }
    }
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
    /// Which runtime.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
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

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// What to look at.
    #[command(flatten)]
    pub sampled: SampledArgs,
    /// The order of functions
    #[arg(short, long, value_enum, default_value_t = TopSort::Flat, value_name = "BY")]
    pub sort: TopSort,
    /// How often it is refreshed: a duration such as 500ms, or a number of seconds
    #[arg(short, long, value_name = "DURATION", default_value = "1s")]
    pub interval: Period,
    /// How long a time is shown
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub window: Period,
    /// Write it so many times to standard output, and end; without a terminal, it is written until somebody interrupts
    #[arg(short = 'n', long, value_name = "TIMES", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// Orders of functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TopSort {
    /// By what they have themselves
    Flat,
    /// By what they have with all that they call
    Cum,
    /// By name
    Name,
}

/// What to sample, and how.
#[derive(Debug, Args)]
pub struct SampledArgs {
    /// Pids; name:REGEX, the one Go process with such a name; container:ID, the one in that container. Processes that are not
    /// Go's can be given by their pids. Or one HOST:PORT, a gops agent
    #[arg(
        value_name = "TARGET", required_unless_present = "system", conflicts_with = "system",
        add = ArgValueCompleter::new(targets)
    )]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_follow_names() {
        let of = |format, name: &str| {
            let args = FormatArgs { format, sample_type: None, open: false };
            args.for_file(Some(Path::new(name)))
        };
        for (name, format) in [
            ("h.svg", Format::Flamegraph),
            ("H.SVG", Format::Flamegraph),
            ("a/h.pb.gz", Format::Pprof),
            ("h.speedscope.json", Format::Speedscope),
            ("h.json", Format::Json),
            ("h.txt", Format::Text),
            ("heap", Format::Pprof),
            ("-", Format::Pprof),
            ("a.svg/h", Format::Pprof),
        ] {
            assert_eq!(of(None, name), Ok(format), "{name}");
        }
        assert_eq!(of(Some(Format::Speedscope), "h.json"), Ok(Format::Speedscope));
        assert_eq!(of(Some(Format::Text), "heap"), Ok(Format::Text));
        let error = of(Some(Format::Pprof), "h.svg").unwrap_err();
        assert!(error.contains(".svg") && error.contains("pprof"), "{error}");
    }
}
