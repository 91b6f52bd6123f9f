//! Declarations of commands, for help, man page and README alike.

use std::fmt;

/// Intrusion tier: effect of a command on the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Tier {
    /// Reads /proc and the executable only.
    Look,
    /// Reads memory; the process runs on.
    Read,
    /// Reads memory; single threads are stopped one at a time, for their registers.
    Touch,
    /// Stops all threads for a measured moment, and only reads.
    Pause,
    /// Writes verified words of data.
    Write,
    /// Makes the kernel run programs at events of the process.
    Probe,
    /// Asks the agent in the process, which does the work there.
    Agent,
    /// Does the work that clients ask for, each request with a tier of its own.
    AsAsked,
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
            Tier::AsAsked => "up to 4 probe",
        })
    }
}

/// Declaration of a command, for help, man page and README alike.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Declaration {
    pub(in crate::cli) name: &'static str,
    pub(in crate::cli) tier: Tier,
    /// Effect of the tier on the target, and its cost.
    pub(in crate::cli) cost: &'static str,
    /// Rights that the user needs.
    pub(in crate::cli) needs: &'static str,
    /// Examples: command lines with their purposes.
    pub(in crate::cli) examples: &'static [(&'static str, &'static str)],
}

pub(in crate::cli) const LIST: Declaration = Declaration {
    name: "list",
    tier: Tier::Look,
    cost: "reads /proc and each executable once; no process is touched",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for those of others",
    examples: &[
        ("gops-probe", "the Go processes of this machine"),
        ("gops-probe list --json", "the same as data, with build and container of each"),
        ("sudo gops-probe list -v", "also those of other users, and how each was recognised"),
    ],
};

pub(in crate::cli) const TREE: Declaration = Declaration {
    name: "tree",
    tier: Tier::Look,
    cost: "reads /proc and each executable once; no process is touched",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for those of others",
    examples: &[
        ("gops-probe tree", "which Go process started which"),
        ("gops-probe tree --json", "the same as data"),
    ],
};

pub(in crate::cli) const PROCESS: Declaration = Declaration {
    name: "process",
    tier: Tier::Look,
    cost: "reads /proc; with -v or --json also the executable and the runtime's settings in memory (tier 1 read); \
           the process is not stopped",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for settings in the memory of those of others or \
            where ptrace is restricted, with CAP_DAC_READ_SEARCH for the connections of those of others",
    examples: &[
        ("gops-probe 4711", "parent, memory, CPU, command line and connections"),
        ("gops-probe process 4711 10s", "also the CPU usage of the next ten seconds"),
        ("gops-probe process -v name:orders", "also its Go program, container, limits and GOGC"),
    ],
};

pub(in crate::cli) const VERSION: Declaration = Declaration {
    name: "version",
    tier: Tier::Look,
    cost: "reads /proc and the executable; the process is not touched",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for those of others",
    examples: &[
        ("gops-probe version 4711", "the Go release that built it"),
        ("gops-probe version -v name:orders", "also its modules and build settings"),
    ],
};

pub(in crate::cli) const STACK: Declaration = Declaration {
    name: "stack",
    tier: Tier::Pause,
    cost: "stops all threads for about a millisecond at 10,000 goroutines, reads memory, writes nothing; \
           with --no-pause tier 1+ touch: threads that run goroutines are stopped one at a time",
    needs: MEMORY,
    examples: &[
        ("sudo gops-probe stack 4711", "every goroutine, as Go itself prints them"),
        ("sudo gops-probe stack --state 'chan receive' 4711", "only those that wait for a channel"),
        (
            r"sudo gops-probe stack --when-stuck 1m --wait=10m name:'^orders\.test$'",
            "a test that hangs, once it does",
        ),
    ],
};

/// Needs of commands that read the memory of a process.
const MEMORY: &str = "root or CAP_SYS_PTRACE, or the same user where ptrace is not restricted";

/// Needs of commands that only an agent can answer.
const AN_AGENT: &str = "a gops agent in the process; root for the agent of another user or in a container";

/// Needs of commands that write into a process.
const TO_WRITE: &str = "root or CAP_SYS_PTRACE, or the same user where ptrace is not restricted; \
                        a Go release whose layouts are known exactly";

pub(in crate::cli) const GC: Declaration = Declaration {
    name: "gc",
    tier: Tier::Write,
    cost: "writes one word that the runtime itself overwrites later, and the runtime runs a complete collection: CPU time \
           for each live object, and Go's own short pauses. If no goroutine runs, all threads are stopped for less than a \
           millisecond to wake the collector, and two more words are written. If GOGC is off, it is switched on until the \
           collection has begun, and then restored, even if gops-probe is killed",
    needs: TO_WRITE,
    examples: &[
        ("sudo gops-probe gc 4711", "run a collection and wait until it has finished"),
        ("sudo gops-probe gc --dry-run 4711", "only print what would be written"),
    ],
};

pub(in crate::cli) const SETGC: Declaration = Declaration {
    name: "setgc",
    tier: Tier::Write,
    cost: "stops all threads for less than a millisecond and writes four words of the collector's pacing; \
           the new GOGC stays until it is set again",
    needs: TO_WRITE,
    examples: &[
        ("sudo gops-probe setgc 4711 50", "collect when the heap has grown by half"),
        ("sudo gops-probe setgc 4711 off", "no more collections, except those for the memory limit"),
    ],
};

pub(in crate::cli) const SETMEMLIMIT: Declaration = Declaration {
    name: "setmemlimit",
    tier: Tier::Write,
    cost: "stops all threads for less than a millisecond and writes one or two words of the collector's pacing; \
           the new limit stays until it is set again",
    needs: TO_WRITE,
    examples: &[
        ("sudo gops-probe setmemlimit 4711 2GiB", "a soft limit of 2 GiB"),
        ("sudo gops-probe setmemlimit 4711 off", "no limit"),
    ],
};

pub(in crate::cli) const MEMSTATS: Declaration = Declaration {
    name: "memstats",
    tier: Tier::Pause,
    cost: "stops all threads for about a millisecond, reads memory, writes nothing; with --no-pause tier 1 read: nothing \
           is stopped, and the numbers are approximate",
    needs: MEMORY,
    examples: &[
        ("sudo gops-probe memstats 4711", "what runtime.ReadMemStats would say"),
        ("sudo gops-probe memstats --no-pause --json 4711", "approximate, as data, without a pause"),
    ],
};

pub(in crate::cli) const STATS: Declaration = Declaration {
    name: "stats",
    tier: Tier::Read,
    cost: "reads some counters; with -v or --json also each goroutine's state; the process is not stopped",
    needs: MEMORY,
    examples: &[
        ("sudo gops-probe stats 4711", "goroutines, threads and GOMAXPROCS"),
        ("sudo gops-probe stats -v 4711", "also how many goroutines are in which state"),
    ],
};

pub(in crate::cli) const HEAP: Declaration = Declaration {
    name: "heap",
    tier: Tier::Pause,
    cost: "stops all threads for about a millisecond at 10,000 spans (80 MB of small objects), reads memory, writes \
           nothing; with --no-pause, or if that would take longer than --max-pause, tier 1 read: nothing is stopped",
    needs: MEMORY,
    examples: &[
        ("sudo gops-probe heap 4711", "what holds the memory, by size of objects"),
        ("sudo gops-probe heap --top 20 4711", "with the 20 largest objects, stacks and origins"),
    ],
};

pub(in crate::cli) const TRACE: Declaration = Declaration {
    name: "trace",
    tier: Tier::Agent,
    cost: "the agent in the process traces it for 5 s: a few percent of its CPU time, and a stop-the-world pause at the start and \
           at the end",
    needs: AN_AGENT,
    examples: &[
        ("gops-probe trace 4711", "five seconds, to a file in this folder"),
        ("gops-probe trace --open localhost:6060", "of an agent elsewhere, shown in the browser"),
    ],
};

pub(in crate::cli) const PPROF_HEAP: Declaration = Declaration {
    name: "pprof-heap",
    tier: Tier::Read,
    cost: "reads the table that the runtime keeps; the process is not stopped",
    needs: MEMORY,
    examples: &[
        (
            "sudo gops-probe pprof-heap --format text 4711",
            "where the memory in use was allocated, printed as text",
        ),
        ("sudo gops-probe pprof-heap -o heap.pb.gz 4711", "a file for go tool pprof"),
        (
            "sudo gops-probe pprof-heap --diff -d 1m -o growth.svg 4711",
            "a flame graph of the growth in one minute",
        ),
    ],
};

pub(in crate::cli) const PPROF_ALLOCS: Declaration = Declaration {
    name: "pprof-allocs",
    tier: Tier::Read,
    cost: "reads the table that the runtime keeps; the process is not stopped",
    needs: MEMORY,
    examples: &[
        ("sudo gops-probe pprof-allocs --format text 4711", "where most was allocated since the start"),
        (
            "sudo gops-probe pprof-allocs --enable -d 30s -o allocs.pb.gz 4711",
            "in a program whose profiler is off: the next 30 seconds",
        ),
    ],
};

pub(in crate::cli) const PPROF_GOROUTINE: Declaration = Declaration {
    name: "pprof-goroutine",
    tier: Tier::Touch,
    cost: "reads all stacks while the process runs; threads that run goroutines are stopped one at a time, each for \
           less than a millisecond",
    needs: MEMORY,
    examples: &[
        ("sudo gops-probe pprof-goroutine --format text 4711", "how many goroutines are where"),
        ("sudo gops-probe pprof-goroutine -o goroutines.svg 4711", "the same as a flame graph"),
    ],
};

pub(in crate::cli) const PPROF_THREADCREATE: Declaration = Declaration {
    name: "pprof-threadcreate",
    tier: Tier::Read,
    cost: "reads the list of threads that the runtime keeps; the process is not stopped",
    needs: MEMORY,
    examples: &[
        ("sudo gops-probe pprof-threadcreate --format text 4711", "where its threads were created"),
        ("sudo gops-probe pprof-threadcreate -o threads.pb.gz 4711", "a file for go tool pprof"),
    ],
};

pub(in crate::cli) const PPROF_BLOCK: Declaration = Declaration {
    name: "pprof-block",
    tier: Tier::Read,
    cost: "reads the table that the runtime keeps; the process is not stopped",
    needs: MEMORY,
    examples: &[
        (
            "sudo gops-probe pprof-block --enable -d 30s --format text 4711",
            "what goroutines wait for in the next 30 seconds",
        ),
        (
            "sudo gops-probe pprof-block -o block.pb.gz 4711",
            "the samples of a program that has its profiler on",
        ),
    ],
};

pub(in crate::cli) const PPROF_MUTEX: Declaration = Declaration {
    name: "pprof-mutex",
    tier: Tier::Read,
    cost: "reads the table that the runtime keeps; the process is not stopped",
    needs: MEMORY,
    examples: &[
        (
            "sudo gops-probe pprof-mutex --enable -d 30s --format text 4711",
            "which locks goroutines compete for in the next 30 seconds",
        ),
        (
            "sudo gops-probe pprof-mutex -o mutex.pb.gz 4711",
            "the samples of a program that has its profiler on",
        ),
    ],
};

pub(in crate::cli) const PPROF_CPU: Declaration = Declaration {
    name: "pprof-cpu",
    tier: Tier::Probe,
    cost: "the kernel interrupts each CPU 99 times a second, and a BPF program reads the stack, in a few microseconds; \
           without BPF, the kernel copies stacks, or threads are stopped one at a time",
    needs: "root, or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE; without BPF, perf events where \
            kernel.perf_event_paranoid is at most 2, or else what `stack` needs",
    examples: &[
        ("sudo gops-probe pprof-cpu -d 10s -o cpu.svg 4711", "a flame graph of ten seconds"),
        ("sudo gops-probe pprof-cpu --system --format text", "the whole machine, printed as text"),
        ("sudo gops-probe pprof-cpu --children -o cpu.pb.gz name:server", "including its child processes"),
    ],
};

pub(in crate::cli) const TOP: Declaration = Declaration {
    name: "top",
    tier: Tier::Probe,
    cost: "as `pprof-cpu`, until you end it",
    needs: "as `pprof-cpu`",
    examples: &[
        ("sudo gops-probe top 4711", "which functions run now"),
        ("sudo gops-probe top --system -n 1 --interval 3s", "the whole machine, three seconds, once"),
    ],
};

pub(in crate::cli) const BINARY: Declaration = Declaration {
    name: "binary",
    tier: Tier::Look,
    cost: "copies the executable, even a deleted one; the process is not touched",
    needs: "nothing for your own processes; root or CAP_SYS_PTRACE for those of others",
    examples: &[
        ("sudo gops-probe binary -o orders 4711", "the program, even where its file was deleted"),
        ("sudo gops-probe binary -o - 4711 | sha256sum", "its checksum, without a file"),
    ],
};

pub(in crate::cli) const SERVE: Declaration = Declaration {
    name: "serve",
    tier: Tier::AsAsked,
    cost: "each request has the cost of its command: `stack` and `memstats` tier 2 pause, `gc` and `setgc` tier 3 write, \
           `pprof-cpu` tier 4 probe",
    needs: "root or CAP_SYS_PTRACE, or the same user where ptrace is not restricted",
    examples: &[
        ("sudo gops-probe serve 4711 --gops", "an address that gops can use for a process without an agent"),
        ("sudo gops-probe serve name:orders --gops --listen 127.0.0.1:6060", "at a port of your choice"),
    ],
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
        let examples: String =
            self.examples.iter().map(|(command, about)| format!("\n  {command}\n      {about}")).collect();
        format!(
            "Intrusion: tier {} - {}.\nNeeds: {}.\n\nExamples:{examples}",
            self.tier, self.cost, self.needs
        )
    }
}
