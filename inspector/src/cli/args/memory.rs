//! Arguments of what counts memory, goroutines and threads.

use clap::Args;

use super::WayArgs;
use crate::cli::target::TargetArgs;

/// Arguments of `memstats`.
#[derive(Debug, Args)]
pub struct MemstatsArgs {
    /// What to look at.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Who answers.
    #[command(flatten)]
    pub way: WayArgs,
    /// Do not stop the process: the numbers are read one after another while it runs, and approximate
    #[arg(long)]
    pub no_pause: bool,
}

/// Arguments of `stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// What to look at.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Who answers.
    #[command(flatten)]
    pub way: WayArgs,
}
