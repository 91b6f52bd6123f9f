//! Arguments of commands that count memory, goroutines and threads.

use std::time::Duration;

use clap::Args;

use super::WayArgs;
use crate::cli::duration::parse_duration;
use crate::cli::runtimes::RuntimeArgs;
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
    /// Which runtime.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Do not stop the process: the numbers are read one after another while it runs, so they are approximate
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
    /// Which runtime.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
}

/// Arguments of `heap`.
#[derive(Debug, Args)]
pub struct HeapArgs {
    /// What to look at.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Which runtime.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Do not stop the process: the numbers are read while it runs, so they are approximate
    #[arg(long, conflicts_with = "max_pause")]
    pub no_pause: bool,
    /// Longest pause of the process; a heap that takes longer is read while the process runs
    #[arg(long, value_name = "DURATION", default_value = "20ms", value_parser = parse_duration)]
    pub max_pause: Duration,
    /// How many of the largest objects, stacks and origins to show
    #[arg(long, value_name = "N", default_value_t = crate::runtime::heap::TOP)]
    pub top: usize,
}
