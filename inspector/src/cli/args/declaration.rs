//! What each command declares about itself, for help, man page and README alike.

use std::fmt;

/// What a command does to the process that it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Tier {
    /// Reads /proc and the executable only.
    Look,
    /// Stops all threads for a measured moment; reads only.
    Pause,
    /// Asks the agent in the process, which does it there.
    Agent,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Look => "0 look",
            Tier::Pause => "2 pause",
            Tier::Agent => "its agent",
        })
    }
}

/// What a command declares about itself, for help, man page and README alike.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Declaration {
    pub(in crate::cli) name: &'static str,
    pub(in crate::cli) tier: Tier,
    /// What the tier means for the target, and what it costs.
    cost: &'static str,
    /// What the user must be allowed to do.
    pub(in crate::cli) needs: &'static str,
}

pub(in crate::cli) const LIST: Declaration = Declaration {
    name: "list",
    tier: Tier::Look,
    cost: "reads /proc and each executable once; no process is touched",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for those of others",
};

pub(in crate::cli) const TREE: Declaration = Declaration {
    name: "tree",
    tier: Tier::Look,
    cost: "reads /proc and each executable once; no process is touched",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for those of others",
};

pub(in crate::cli) const PROCESS: Declaration = Declaration {
    name: "process",
    tier: Tier::Look,
    cost: "reads /proc; with -v or --json also the executable and the runtime's settings in memory (tier 1 read); \
           the process is not stopped",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for settings in the memory of those of others or \
            where ptrace is restricted, with CAP_DAC_READ_SEARCH for the connections of those of others",
};

pub(in crate::cli) const VERSION: Declaration = Declaration {
    name: "version",
    tier: Tier::Look,
    cost: "reads /proc and the executable; the process is not touched",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for those of others",
};

pub(in crate::cli) const STACK: Declaration = Declaration {
    name: "stack",
    tier: Tier::Pause,
    cost: "stops all threads for about a millisecond at 10,000 goroutines, reads memory, writes nothing; \
           with --no-pause tier 1+ touch: threads that run goroutines are stopped one at a time",
    needs: "root or CAP_SYS_PTRACE, or the same user where ptrace is not restricted",
};

/// What a command needs that only an agent can answer.
const AN_AGENT: &str = "a gops agent in the process; root for the agent of another user or in a container";

pub(in crate::cli) const GC: Declaration = Declaration {
    name: "gc",
    tier: Tier::Agent,
    cost: "the agent in the process runs a whole collection: CPU time for each live object, and Go's own short stops",
    needs: AN_AGENT,
};

pub(in crate::cli) const SETGC: Declaration = Declaration {
    name: "setgc",
    tier: Tier::Agent,
    cost: "the agent in the process sets GOGC, which stays so until somebody sets it again; Go stops the world for it",
    needs: AN_AGENT,
};

pub(in crate::cli) const MEMSTATS: Declaration = Declaration {
    name: "memstats",
    tier: Tier::Agent,
    cost: "the agent in the process calls runtime.ReadMemStats, which stops the world for some microseconds",
    needs: AN_AGENT,
};

pub(in crate::cli) const STATS: Declaration = Declaration {
    name: "stats",
    tier: Tier::Agent,
    cost: "the agent in the process reads some counters",
    needs: AN_AGENT,
};

pub(in crate::cli) const TRACE: Declaration = Declaration {
    name: "trace",
    tier: Tier::Agent,
    cost: "the agent in the process traces it for 5 s: some percent of its CPU time, and a stop of the world at each end",
    needs: AN_AGENT,
};

pub(in crate::cli) const PPROF_HEAP: Declaration = Declaration {
    name: "pprof-heap",
    tier: Tier::Agent,
    cost: "the agent in the process writes the profile that the runtime keeps",
    needs: AN_AGENT,
};

pub(in crate::cli) const PPROF_CPU: Declaration = Declaration {
    name: "pprof-cpu",
    tier: Tier::Agent,
    cost: "the agent in the process interrupts it 100 times a second on each CPU for 30 s",
    needs: AN_AGENT,
};

pub(in crate::cli) const BINARY: Declaration = Declaration {
    name: "binary",
    tier: Tier::Look,
    cost: "copies the executable, even a deleted one; the process is not touched",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for those of others",
};

pub(in crate::cli) const SERVE: Declaration = Declaration {
    name: "serve",
    tier: Tier::Pause,
    cost: "as `stack`, each time that somebody asks for it",
    needs: "root or CAP_SYS_PTRACE, or the same user where ptrace is not restricted",
};

pub(in crate::cli) const DECLARATIONS: [Declaration; 14] = [
    LIST, TREE, PROCESS, VERSION, STACK, GC, SETGC, MEMSTATS, STATS, TRACE, PPROF_HEAP, PPROF_CPU, BINARY,
    SERVE,
];

impl Declaration {
    pub(in crate::cli) fn help(&self) -> String {
        format!("Intrusion: tier {} - {}.\nNeeds: {}.", self.tier, self.cost, self.needs)
    }
}
