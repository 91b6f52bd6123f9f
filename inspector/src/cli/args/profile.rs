//! Arguments of the profile commands.

use std::path::Path;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use super::WayArgs;
use crate::capture::cpu::mode::Mode;
use crate::cli::completion::targets;
use crate::cli::duration::Period;
use crate::cli::runtimes::RuntimeArgs;
use crate::cli::target::{TargetArgs, TargetArgument};

/// How a profile is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For `go tool pprof`: compressed protocol buffers, with all names
    Pprof,
    /// One line for each stack, `main;a;b 12`, for flame graph tools
    Folded,
    /// A flame graph: one SVG file
    Flamegraph,
    /// For speedscope
    Speedscope,
    /// For people: the functions and places with the largest values
    Text,
    /// The whole profile, as JSON
    Json,
}

impl Format {
    /// Endings of file names, with the formats that such a file can have, the likeliest first. The first
    /// matching ending counts.
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
    /// Output format [default: by the ending of FILE (.pb.gz, .svg, .folded, .speedscope.json, .json, .txt), else pprof];
    /// text, folded and json go to standard output, the others to a file
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Which values to show: inuse_space, alloc_objects, delay …; a pprof file has all of them, and shows these first
    #[arg(long, value_name = "NAME")]
    pub sample_type: Option<String>,
    /// Open the file in the browser, with `go tool pprof -http`
    #[arg(long)]
    pub open: bool,
}

impl FormatArgs {
    /// Returns the format for a file with this name.
    ///
    /// # Errors
    /// Returns a message if the ending of the name contradicts `--format`.
    pub fn for_file(&self, file: Option<&Path>) -> Result<Format, String> {
        let name = file.and_then(Path::file_name).map(|name| name.to_string_lossy().to_lowercase());
        let name = name.unwrap_or_default();
        let by_name = Format::NAMES.iter().find(|(suffix, _)| name.ends_with(suffix));
        match (self.format, by_name) {
            (Some(format), Some((suffix, formats))) if !formats.contains(&format) => {
                let wanted = format.to_possible_value();
                let wanted = wanted.as_ref().map_or("", |value| value.get_name());
                Err(format!(
                    "--format {wanted} does not fit a file name that ends in {suffix}: omit --format, or choose another name"
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
    /// Read twice, --duration apart, and write the difference
    #[arg(long, requires = "duration")]
    pub diff: bool,
    /// If the profiler is off, switch it on for --duration, and off again (tier 3 write); the profile covers only that time.
    /// RATE means one sample for each so many bytes allocated (pprof-heap, pprof-allocs) [default: 512KiB], for each so long a
    /// wait (pprof-block) [default: 10us], or for each so many events (pprof-mutex) [default: 10]
    #[arg(
        long, value_name = "RATE", num_args = 0..=1, require_equals = true, default_missing_value = "",
        requires = "duration", conflicts_with = "diff"
    )]
    pub enable: Option<String>,
    /// Time for --diff or --enable: a duration such as 500ms or 1m30s, or a number of seconds
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
    /// How long to take samples: a duration such as 500ms or 1m30s, or a number of seconds; Ctrl-C ends it early, and writes
    /// the samples so far
    #[arg(short, long, value_name = "DURATION", default_value = "30s")]
    pub duration: Period,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// What to look at.
    #[command(flatten)]
    pub sampled: SampledArgs,
    /// How functions are sorted
    #[arg(short, long, value_enum, default_value_t = TopSort::Flat, value_name = "BY")]
    pub sort: TopSort,
    /// Time between two updates: a duration such as 500ms, or a number of seconds
    #[arg(short, long, value_name = "DURATION", default_value = "1s")]
    pub interval: Period,
    /// The most recent time that the numbers cover
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub window: Period,
    /// Print this many updates to standard output, and end; without this option and without a terminal, updates are printed
    /// until Ctrl-C
    #[arg(short = 'n', long, value_name = "TIMES", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// Orders of functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TopSort {
    /// By the CPU time of the function itself
    Flat,
    /// By the CPU time of the function and of all that it calls
    Cum,
    /// By name
    Name,
}

/// What to sample, and how.
#[derive(Debug, Args)]
pub struct SampledArgs {
    /// One or more of: a pid, also of a process that is not Go; name:REGEX, for the one Go process whose name matches;
    /// container:ID, for the one Go process in that container. Or one HOST:PORT of a gops agent
    #[arg(
        value_name = "TARGET", required_unless_present = "system", conflicts_with = "system",
        add = ArgValueCompleter::new(targets)
    )]
    pub targets: Vec<TargetArgument>,
    /// Wait until such processes appear: for one minute, or as long as given (--wait=30s)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "1m")]
    pub wait: Option<Period>,
    /// Samples per second on each CPU
    #[arg(
        short, long, value_name = "HERTZ", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=20_000)
    )]
    pub rate: u32,
    /// Distinguish threads: each sample gets the label `thread`
    #[arg(long)]
    pub threads: bool,
    /// Also sample the child processes of the targets, and their children, including those that start later
    #[arg(long, conflicts_with = "system")]
    pub children: bool,
    /// Sample all processes of the machine
    #[arg(long)]
    pub system: bool,
    /// How samples are taken [default: the first of these ways that is possible]
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
    /// Stop threads, one at a time
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
