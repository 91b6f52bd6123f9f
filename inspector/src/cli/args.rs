//! The one definition of the command line. Help, man page, completions and the table of commands come from it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::duration::Period;
use super::target::TargetArgs;

/// Diagnoses Go processes from outside: no agent, no rebuild, no restart
#[derive(Debug, Parser)]
#[command(
    name = "gops-probe",
    version,
    about,
    long_about = "Diagnoses Go processes from outside: no agent in the program, no rebuild, no restart.\n\n\
                  Without a command it lists the Go processes of this machine, as `list` does; \
                  with a target alone it says what that process is, as `process` does.",
    after_long_help = EXIT_CODES,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
    /// What to do; `list` where nothing is given.
    #[command(subcommand)]
    pub command: Option<Command>,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done (also where the reader of the output went away)
  1    failed
  2    wrong command line
  3    no such process, or it exited
  4    not a Go process
  5    not permitted, or traced by another process
  6    Go release or machine not supported, or nothing that the answer needs could be verified
  7    a partial answer was written
  130  interrupted";

/// Options of every command.
#[derive(Debug, Args)]
pub struct Common {
    /// Answer in JSON (format: docs/schema)
    #[arg(long, global = true)]
    pub json: bool,
    /// Write the answer to FILE; `-` is standard output
    #[arg(short, long, global = true, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also say how things are known and what they cost; twice and more: log to standard error
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Colour on standard error
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR, CLICOLOR=0 or TERM=dumb is set; anywhere with CLICOLOR_FORCE
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
    /// Print what a process is and uses: parent, memory, CPU, user, command line, connections; with -v or --json also
    /// its Go program, container, limits and runtime settings
    #[command(visible_aliases = ["pid", "proc"], after_long_help = PROCESS.help())]
    Process(ProcessArgs),
    /// Print the Go version that built a process; with -v or --json its whole build info
    #[command(after_long_help = VERSION.help())]
    Version(VersionArgs),
    /// Print every goroutine with its stack, as Go itself would
    #[command(after_long_help = STACK.help())]
    Stack(StackArgs),
    /// Write what packages need: man pages, completions, the table of commands
    #[command(hide = true)]
    Generate(GenerateArgs),
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
}

/// Arguments of `stack`.
#[derive(Debug, Args)]
pub struct StackArgs {
    /// What to look at.
    #[command(flatten)]
    pub target: TargetArgs,
    /// The runtime's own goroutines and frames too, with addresses: as GOTRACEBACK=system prints
    #[arg(long)]
    pub all: bool,
    /// Do not stop the process: each goroutine is true by itself, threads are stopped singly for their registers
    #[arg(long, conflicts_with = "max_pause")]
    pub no_pause: bool,
    /// Longest pause; what does not fit is verified after it
    #[arg(long, value_name = "DURATION", default_value = "20ms", value_parser = super::duration::parse_duration)]
    pub max_pause: Duration,
    /// Only the goroutine with this number
    #[arg(long, value_name = "ID")]
    pub goroutine: Option<u64>,
    /// Only goroutines in this state, such as "chan receive" or running
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Only goroutines whose text matches this regular expression
    #[arg(long = "match", value_name = "REGEX")]
    pub pattern: Option<String>,
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
    /// The table of commands in the README
    CommandsTable,
}

/// What a command does to the process that it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    /// Reads /proc and the executable only.
    Look,
    /// Stops all threads for a measured moment; reads only.
    Pause,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Look => "0 look",
            Tier::Pause => "2 pause",
        })
    }
}

/// What a command declares about itself, for help, man page and README alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Declaration {
    pub(super) name: &'static str,
    pub(super) tier: Tier,
    /// What the tier means for the target, and what it costs.
    cost: &'static str,
    /// What the user must be allowed to do.
    pub(super) needs: &'static str,
}

const LIST: Declaration = Declaration {
    name: "list",
    tier: Tier::Look,
    cost: "reads /proc and each executable once; no process is touched",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for those of others",
};

const TREE: Declaration = Declaration {
    name: "tree",
    tier: Tier::Look,
    cost: "reads /proc and each executable once; no process is touched",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for those of others",
};

const PROCESS: Declaration = Declaration {
    name: "process",
    tier: Tier::Look,
    cost: "reads /proc; with -v or --json also the executable and the runtime's settings in memory (tier 1 read); \
           the process is not stopped",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for the connections of those of others, and for \
            settings in memory where ptrace is restricted",
};

const VERSION: Declaration = Declaration {
    name: "version",
    tier: Tier::Look,
    cost: "reads /proc and the executable; the process is not touched",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for those of others",
};

const STACK: Declaration = Declaration {
    name: "stack",
    tier: Tier::Pause,
    cost: "stops all threads for about a millisecond at 10,000 goroutines, reads memory, writes nothing; \
           with --no-pause tier 1+ touch: threads that run goroutines are stopped one at a time",
    needs: "root or CAP_SYS_PTRACE, or the same user where ptrace is not restricted",
};

pub(super) const DECLARATIONS: [Declaration; 5] = [LIST, TREE, PROCESS, VERSION, STACK];

impl Declaration {
    fn help(&self) -> String {
        format!("Intrusion: tier {} - {}.\nNeeds: {}.", self.tier, self.cost, self.needs)
    }
}
