//! Definition of the command line. Help, man page, completions and the table of commands are made from it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

mod declaration;
mod deferred;
mod knobs;
mod memory;
mod profile;

use super::command::Run;
use super::duration::Period;
use super::list::ListCommand;
use super::profile::ProfileCommand;
use super::runtimes::RuntimeArgs;
use super::target::TargetArgs;
use super::tree::TreeCommand;
use crate::Error;
use crate::agent::socket::Listen;
use crate::operations::profile::ProfileKind;
use crate::process::find::Detail;
use declaration::{
    BINARY, GC, HEAP, LIST, MEMSTATS, PPROF_ALLOCS, PPROF_BLOCK, PPROF_CPU, PPROF_GOROUTINE, PPROF_HEAP,
    PPROF_MUTEX, PPROF_THREADCREATE, PROCESS, SERVE, SETGC, SETMEMLIMIT, STACK, STATS, TOP, TRACE, TREE,
    VERSION,
};
pub(super) use declaration::{DECLARATIONS, Declaration};
pub use deferred::Deferred;
pub use knobs::{GcArgs, MemoryLimit, SetGcArgs, SetMemLimitArgs};
pub use memory::{HeapArgs, MemstatsArgs, StatsArgs};
pub use profile::{CpuProfileArgs, Format, FormatArgs, RuntimeProfileArgs, SampledArgs, TopArgs, TopSort};

/// Diagnoses Go processes from outside: no agent, no rebuild, no restart
#[derive(Debug, Parser)]
#[command(
    name = "gops-probe",
    version,
    about,
    long_about = "Diagnoses Go processes from outside: no agent in the program, no rebuild, no restart.\n\n\
                  Without a command it lists the Go processes of this machine, as `list` does; \
                  with a target alone it says what that process is, as `process` does.",
    after_long_help = EXIT_CODES
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
    /// What to do; `list` where nothing is given.
    #[command(subcommand)]
    pub command: Option<Command>,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0    success (also if the reader of the output closed it)
  1    failed
  2    wrong command line
  3    no such process, or it exited
  4    not a Go process
  5    not permitted, or traced by another process
  6    Go release or architecture not supported, or what the answer needs could not be verified
  7    a partial answer was written
  130  interrupted";

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Print the answer as JSON (`gops-probe generate schema` prints the schemas)
    #[arg(long, global = true)]
    pub json: bool,
    /// Write the answer to FILE (`-` for standard output)
    #[arg(short, long, global = true, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also print how each fact was found and what the answer cost the process; -vv and -vvv also write a log to standard error
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// When to use colour on standard error
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

impl Common {
    /// Returns the detail to read about each process that is listed or described.
    pub(super) fn detail(&self) -> Detail {
        if self.json || self.verbose > 0 { Detail::All } else { Detail::Text }
    }
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal only; NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM=dumb are respected
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the Go processes: pid, parent, name (`*`: has a gops agent), Go version, path
    #[command(after_long_help = LIST.help())]
    List,
    /// Print the Go processes as a tree below their parents (`[*]`: has a gops agent)
    #[command(after_long_help = TREE.help())]
    Tree,
    /// Print facts about a process: parent, memory, CPU, user, command line, connections; with -v or --json also its Go
    /// program, container, limits and runtime settings
    #[command(visible_aliases = ["pid", "proc"], after_long_help = PROCESS.help())]
    Process(Deferred<ProcessArgs>),
    /// Print the Go version that a program was built with; with -v or --json all of its build info
    #[command(after_long_help = VERSION.help())]
    Version(Deferred<VersionArgs>),
    /// Print the stacks of all goroutines, in the format of Go itself
    #[command(after_long_help = STACK.help())]
    Stack(Deferred<StackArgs>),
    /// Run the garbage collector and wait until it has finished
    #[command(after_long_help = GC.help())]
    Gc(Deferred<GcArgs>),
    /// Set the garbage collection target percentage (GOGC)
    #[command(after_long_help = SETGC.help())]
    Setgc(Deferred<SetGcArgs>),
    /// Set the soft memory limit (GOMEMLIMIT)
    #[command(after_long_help = SETMEMLIMIT.help())]
    Setmemlimit(Deferred<SetMemLimitArgs>),
    /// Print memory allocation and garbage collection statistics
    #[command(after_long_help = MEMSTATS.help())]
    Memstats(Deferred<MemstatsArgs>),
    /// Print the numbers of goroutines, threads and CPUs
    #[command(after_long_help = STATS.help())]
    Stats(Deferred<StatsArgs>),
    /// Print what uses the memory now: objects by size, large objects, stacks, unused memory
    #[command(after_long_help = HEAP.help())]
    Heap(Deferred<HeapArgs>),
    /// Write an execution trace of 5 seconds to a file; needs a gops agent in the process
    #[command(after_long_help = TRACE.help())]
    Trace(Deferred<TraceArgs>),
    /// Write a heap profile: where the memory in use was allocated
    #[command(after_long_help = PPROF_HEAP.help())]
    PprofHeap(Deferred<RuntimeProfileArgs>),
    /// Write an allocation profile: where memory was allocated since the program started
    #[command(after_long_help = PPROF_ALLOCS.help())]
    PprofAllocs(Deferred<RuntimeProfileArgs>),
    /// Write a goroutine profile: how many goroutines have each stack and labels
    #[command(after_long_help = PPROF_GOROUTINE.help())]
    PprofGoroutine(Deferred<RuntimeProfileArgs>),
    /// Write a thread creation profile: where threads were created
    #[command(after_long_help = PPROF_THREADCREATE.help())]
    PprofThreadcreate(Deferred<RuntimeProfileArgs>),
    /// Write a blocking profile: where goroutines waited for channels, locks and conditions, and how long
    #[command(after_long_help = PPROF_BLOCK.help())]
    PprofBlock(Deferred<RuntimeProfileArgs>),
    /// Write a mutex profile: which code held locks while other goroutines waited, and how long they waited
    #[command(after_long_help = PPROF_MUTEX.help())]
    PprofMutex(Deferred<RuntimeProfileArgs>),
    /// Write a CPU profile of one process, of several or of all: functions in Go, C, C++, Rust and the kernel
    #[command(after_long_help = PPROF_CPU.help())]
    PprofCpu(Deferred<CpuProfileArgs>),
    /// Show live which functions, goroutines and processes use the CPUs
    #[command(after_long_help = TOP.help())]
    Top(Deferred<TopArgs>),
    /// Write the executable of a process to a file
    #[command(after_long_help = BINARY.help())]
    Binary(Deferred<CaptureArgs>),
    /// Answer the requests of gops for a process that has no agent
    #[command(after_long_help = SERVE.help())]
    Serve(Deferred<ServeArgs>),
    /// Write what packages need: man pages, completions, schemas of JSON, the table of commands
    #[command(hide = true)]
    Generate(Deferred<GenerateArgs>),
    /// Put back what another gops-probe changes, when that is killed
    #[command(hide = true)]
    GuardOfChange(GuardArgs),
}

impl Cli {
    /// Calls `act` with the command to run.
    pub(in crate::cli) fn with_command<T>(&self, act: impl FnOnce(&dyn Run) -> T) -> T {
        match &self.command {
            None | Some(Command::List) => act(&ListCommand),
            Some(Command::Tree) => act(&TreeCommand),
            Some(Command::Process(args)) => act(&**args),
            Some(Command::Version(args)) => act(&**args),
            Some(Command::Stack(args)) => act(&**args),
            Some(Command::Gc(args)) => act(&**args),
            Some(Command::Setgc(args)) => act(&**args),
            Some(Command::Setmemlimit(args)) => act(&**args),
            Some(Command::Memstats(args)) => act(&**args),
            Some(Command::Stats(args)) => act(&**args),
            Some(Command::Heap(args)) => act(&**args),
            Some(Command::Trace(args)) => act(&**args),
            Some(Command::PprofHeap(args)) => act(&ProfileCommand(ProfileKind::Heap, args)),
            Some(Command::PprofAllocs(args)) => act(&ProfileCommand(ProfileKind::Allocs, args)),
            Some(Command::PprofGoroutine(args)) => act(&ProfileCommand(ProfileKind::Goroutine, args)),
            Some(Command::PprofThreadcreate(args)) => act(&ProfileCommand(ProfileKind::ThreadCreate, args)),
            Some(Command::PprofBlock(args)) => act(&ProfileCommand(ProfileKind::Block, args)),
            Some(Command::PprofMutex(args)) => act(&ProfileCommand(ProfileKind::Mutex, args)),
            Some(Command::PprofCpu(args)) => act(&**args),
            Some(Command::Top(args)) => act(&**args),
            Some(Command::Binary(args)) => act(&**args),
            Some(Command::Serve(args)) => act(&**args),
            Some(Command::Generate(args)) => act(&**args),
            Some(Command::GuardOfChange(args)) => act(args),
        }
    }
}

/// Arguments of the guard of a change.
#[derive(Debug, Clone, Copy, Args)]
pub struct GuardArgs {
    /// The process that is changed.
    pub pid: crate::process::Pid,
    /// After so many milliseconds it puts everything back, if nothing has been written by then.
    pub opening: u64,
    /// So many milliseconds after the last word was written, it puts everything back.
    pub open: u64,
}

/// Arguments of `process`.
#[derive(Debug, Args)]
pub struct ProcessArgs {
    /// What to look at.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Also measure CPU usage over this period: a duration such as 500ms or 1m30s, or a number of seconds
    #[arg(value_name = "PERIOD")]
    pub period: Option<Period>,
}

/// Arguments of `version`.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// What to look at.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Who answers.
    #[command(flatten)]
    pub way: WayArgs,
}

/// Who answers, and how long an agent may take.
#[derive(Debug, Clone, Copy, Args)]
pub struct WayArgs {
    /// How to get the answer
    #[arg(long, value_enum, default_value_t = Via::Auto, value_name = "WAY")]
    pub via: Via,
    /// Agent inactivity timeout; also limits forced operations (gc, setgc, setmemlimit) and reads of memory and files that do
    /// not finish [default: 60s, plus the time of a measurement]
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse_duration)]
    pub timeout: Option<Duration>,
}

impl WayArgs {
    /// Returns the way of answering if `option` is set, which no agent supports: gops-probe itself.
    ///
    /// # Errors
    /// Returns [`Error::Usage`] if an agent is asked for.
    pub(in crate::cli) fn without_agent(self, option: Option<&str>) -> Result<Self, Error> {
        match (option, self.via) {
            (None, _) => Ok(self),
            (Some(option), Via::Agent) => {
                Err(Error::Usage(format!("agents do not support {option}: use --via probe")))
            }
            (Some(_), Via::Auto | Via::Probe) => Ok(WayArgs { via: Via::Probe, ..self }),
        }
    }
}

/// Ways to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// From outside; if that is not possible, from the gops agent in the process
    Auto,
    /// Only from outside
    Probe,
    /// Only from the gops agent in the process
    Agent,
}

/// Arguments of what an agent answers in text.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// What to look at.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Who answers.
    #[command(flatten)]
    pub way: WayArgs,
}

/// Arguments of what answers with a file.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// What to look at.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Who answers.
    #[command(flatten)]
    pub way: WayArgs,
}

/// Arguments of `trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// What is wanted of whom.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// Open the file with `go tool trace`
    #[arg(long)]
    pub open: bool,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// What to answer for.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Which runtime.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Use the protocol of gops; it is the only one, and must be given
    #[arg(long, required = true)]
    pub gops: bool,
    /// Address to listen on, or unix:PATH
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: Listen,
    /// Also answer the user with this number, not only root and the user who runs gops-probe; may be repeated
    #[arg(long, value_name = "UID")]
    pub allow_uid: Vec<u32>,
    /// Also answer requests from other machines
    #[arg(long)]
    pub allow_remote: bool,
    /// Let those whom --allow-uid and --allow-remote admit also use gc, setgc, pprof-cpu and binary
    #[arg(long)]
    pub allow_changes: bool,
}

/// Arguments of `stack`.
#[derive(Debug, Args)]
pub struct StackArgs {
    /// What to look at.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Who answers.
    #[command(flatten)]
    pub way: WayArgs,
    /// Which runtime.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Also print the runtime's own goroutines and frames, with addresses, as GOTRACEBACK=system does
    #[arg(long)]
    pub all: bool,
    /// Do not stop the whole process, only one thread at a time: the goroutines are not all seen at the same instant
    #[arg(long, conflicts_with = "max_pause")]
    pub no_pause: bool,
    /// Longest pause of the process. Goroutines that do not fit into it are verified after it; if there are too many threads to
    /// stop in that time, they are stopped one at a time, as with --no-pause
    #[arg(long, value_name = "DURATION", default_value = "20ms", value_parser = super::duration::parse_duration)]
    pub max_pause: Duration,
    /// Wait this long before the dump: a duration such as 30s, or a number of seconds
    #[arg(long, value_name = "DURATION")]
    pub after: Option<Period>,
    /// Wait until no goroutine of the program's own module has moved for this long; if the process ends first, the exit code is
    /// 3
    #[arg(long, value_name = "DURATION")]
    pub when_stuck: Option<Period>,
    /// Print only the goroutine with this number
    #[arg(long, value_name = "ID")]
    pub goroutine: Option<u64>,
    /// Print only goroutines in this state, such as "chan receive" or running
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Print only goroutines whose text matches this regular expression
    #[arg(long = "match", value_name = "REGEX", value_parser = crate::cli::pattern::parse_pattern)]
    pub pattern: Option<regex::bytes::Regex>,
}

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// What to write.
    #[command(subcommand)]
    pub what: Generate,
}

/// What can be generated.
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// The man page of the program, or of one command
    Man {
        /// The command.
        command: Option<String>,
    },
    /// Completions for a shell
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// The JSON Schema of an answer, or of all of them
    Schema {
        /// Whose: a command that answers with --json, or `saved` for what writes a file.
        name: Option<String>,
    },
    /// The table of commands in the README
    CommandsTable,
}
