//! What each command declares about itself, for help, man page and README alike.

use std::fmt;

/// What a command does to the process that it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Tier {
    /// Reads /proc and the executable only.
    Look,
    /// Reads memory; the process runs on.
    Read,
    /// Reads memory; single threads are stopped one at a time, for their registers.
    Touch,
    /// Stops all threads for a measured moment; reads only.
    Pause,
    /// Writes verified words of data.
    Write,
    /// Has the kernel run programs at events of the process.
    Probe,
    /// Asks the agent in the process, which does it there.
    Agent,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Look => "0 look",
            Tier::Read => "1 read",
            Tier::Touch => "1+ touch",
            Tier::Pause => "2 pause",
            Tier::Write => "3 write",
            Tier::Probe => "4 probe",
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
    needs: MEMORY,
};

/// What a command needs that reads the memory of a process.
const MEMORY: &str = "root or CAP_SYS_PTRACE, or the same user where ptrace is not restricted";

/// What a command needs that only an agent can answer.
const AN_AGENT: &str = "a gops agent in the process; root for the agent of another user or in a container";

/// What is needed to write into a process.
const TO_WRITE: &str = "root or CAP_SYS_PTRACE, or the same user where ptrace is not restricted; \
                        a Go release whose layouts are known exactly";

pub(in crate::cli) const GC: Declaration = Declaration {
    name: "gc",
    tier: Tier::Write,
    cost: "writes one word, which the runtime itself writes again, and the runtime runs a whole collection: CPU time for \
           each live object, and Go's own short stops. Where nothing runs, all threads are stopped for less than a \
           millisecond to wake it, and two more words written. With GOGC=off, GOGC is on until the collection has \
           begun; it is put back by whatever happens to gops-probe",
    needs: TO_WRITE,
};

pub(in crate::cli) const SETGC: Declaration = Declaration {
    name: "setgc",
    tier: Tier::Write,
    cost: "stops all threads for less than a millisecond and writes four words of the collector's pacing; \
           GOGC stays so until somebody sets it again",
    needs: TO_WRITE,
};

pub(in crate::cli) const SETMEMLIMIT: Declaration = Declaration {
    name: "setmemlimit",
    tier: Tier::Write,
    cost: "stops all threads for less than a millisecond and writes one word or two of the collector's pacing; \
           the limit stays so until somebody sets it again",
    needs: TO_WRITE,
};

pub(in crate::cli) const MEMSTATS: Declaration = Declaration {
    name: "memstats",
    tier: Tier::Pause,
    cost: "stops all threads for about a millisecond, reads memory, writes nothing; with --no-pause tier 1 read: nothing \
           is stopped, and the numbers are approximate",
    needs: MEMORY,
};

pub(in crate::cli) const STATS: Declaration = Declaration {
    name: "stats",
    tier: Tier::Read,
    cost: "reads some counters; with -v or --json also each goroutine's state; the process is not stopped",
    needs: MEMORY,
};

pub(in crate::cli) const HEAP: Declaration = Declaration {
    name: "heap",
    tier: Tier::Pause,
    cost: "stops all threads for about a millisecond at 10,000 spans (80 MB of small objects), reads memory, writes \
           nothing; with --no-pause, or where that takes longer than --max-pause, tier 1 read: nothing is stopped",
    needs: MEMORY,
};

pub(in crate::cli) const TRACE: Declaration = Declaration {
    name: "trace",
    tier: Tier::Agent,
    cost: "the agent in the process traces it for 5 s: some percent of its CPU time, and a stop of the world at each end",
    needs: AN_AGENT,
};

/// What it needs to read the memory of a process.
const READING: &str = "root or CAP_SYS_PTRACE, or the same user where ptrace is not restricted";

pub(in crate::cli) const PPROF_HEAP: Declaration = Declaration {
    name: "pprof-heap",
    tier: Tier::Read,
    cost: "reads the table that the runtime keeps; the process is not stopped",
    needs: READING,
};

pub(in crate::cli) const PPROF_ALLOCS: Declaration = Declaration {
    name: "pprof-allocs",
    tier: Tier::Read,
    cost: "reads the table that the runtime keeps; the process is not stopped",
    needs: READING,
};

pub(in crate::cli) const PPROF_GOROUTINE: Declaration = Declaration {
    name: "pprof-goroutine",
    tier: Tier::Touch,
    cost: "reads all stacks while the process runs; threads that run goroutines are stopped one at a time, each for \
           less than a millisecond",
    needs: READING,
};

pub(in crate::cli) const PPROF_THREADCREATE: Declaration = Declaration {
    name: "pprof-threadcreate",
    tier: Tier::Read,
    cost: "reads the list of threads that the runtime keeps; the process is not stopped",
    needs: READING,
};

pub(in crate::cli) const PPROF_BLOCK: Declaration = Declaration {
    name: "pprof-block",
    tier: Tier::Read,
    cost: "reads the table that the runtime keeps; the process is not stopped",
    needs: READING,
};

pub(in crate::cli) const PPROF_MUTEX: Declaration = Declaration {
    name: "pprof-mutex",
    tier: Tier::Read,
    cost: "reads the table that the runtime keeps; the process is not stopped",
    needs: READING,
};

pub(in crate::cli) const PPROF_CPU: Declaration = Declaration {
    name: "pprof-cpu",
    tier: Tier::Probe,
    cost: "the kernel interrupts each CPU 99 times a second, and a BPF program reads the stack, in some microseconds; \
           without BPF, the kernel copies stacks, or threads are stopped one at a time",
    needs: "root, or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE; without BPF, perf events where \
            kernel.perf_event_paranoid is at most 2, or else what `stack` needs",
};

pub(in crate::cli) const TOP: Declaration = Declaration {
    name: "top",
    tier: Tier::Probe,
    cost: "as `pprof-cpu`, until it is ended",
    needs: "as `pprof-cpu`",
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
    cost: "as `stack`, `memstats`, `gc` and `setgc`, each time that somebody asks for it",
    needs: "root or CAP_SYS_PTRACE, or the same user where ptrace is not restricted",
};

pub(in crate::cli) const DECLARATIONS: &[Declaration] = &[
    LIST,
    TREE,
    PROCESS,
    VERSION,
    STACK,
    GC,
    SETGC,
    SETMEMLIMIT,
    MEMSTATS,
    STATS,
    HEAP,
    TRACE,
    PPROF_HEAP,
    PPROF_ALLOCS,
    PPROF_GOROUTINE,
    PPROF_THREADCREATE,
    PPROF_BLOCK,
    PPROF_MUTEX,
    PPROF_CPU,
    TOP,
    BINARY,
    SERVE,
];

impl Declaration {
    pub(in crate::cli) fn help(&self) -> String {
        format!("Intrusion: tier {} - {}.\nNeeds: {}.", self.tier, self.cost, self.needs)
    }
}
