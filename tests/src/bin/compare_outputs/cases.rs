//! What is asked of both programs.

use crate::forms::Form;
use crate::targets::Pids;

/// One command line.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) arguments: Vec<String>,
    pub(crate) form: Form,
    /// It is run by a user who may look at none of the processes.
    pub(crate) without_rights: bool,
    /// It goes on until it is interrupted, once it says that it serves.
    pub(crate) until_served: bool,
    /// What takes back a change, so that both programs find the process the same.
    pub(crate) undo: Option<Vec<String>>,
}

impl Case {
    /// The command line, for people.
    pub(crate) fn line(&self) -> String {
        let user = if self.without_rights { "nobody$ " } else { "" };
        format!("{user}gops-probe {}", self.arguments.join(" "))
    }

    fn of(words: &[&str]) -> Self {
        Case {
            arguments: words.iter().map(|&word| word.to_owned()).collect(),
            form: Form::Exact,
            without_rights: false,
            until_served: false,
            undo: None,
        }
    }

    fn form(self, form: Form) -> Self {
        Case { form, ..self }
    }

    fn without_rights(self) -> Self {
        Case { without_rights: true, ..self }
    }

    fn undone_by(self, words: &[&str]) -> Self {
        Case { undo: Some(words.iter().map(|&word| word.to_owned()).collect()), ..self }
    }
}

const COMMANDS: [&str; 22] = [
    "list",
    "tree",
    "process",
    "version",
    "stack",
    "gc",
    "setgc",
    "setmemlimit",
    "memstats",
    "stats",
    "heap",
    "trace",
    "pprof-heap",
    "pprof-allocs",
    "pprof-goroutine",
    "pprof-threadcreate",
    "pprof-block",
    "pprof-mutex",
    "pprof-cpu",
    "top",
    "binary",
    "serve",
];
const PROFILES: [&str; 6] =
    ["pprof-heap", "pprof-allocs", "pprof-goroutine", "pprof-threadcreate", "pprof-block", "pprof-mutex"];
/// Those that answer about a process in text.
const ANSWERS: [&str; 6] = ["process", "version", "stack", "memstats", "stats", "heap"];

/// Every case. Those that change a process come last.
pub(crate) fn all(pids: &Pids) -> Vec<Case> {
    let mut cases = help();
    cases.extend(lists());
    cases.extend(answers(pids));
    cases.extend(stacks(pids));
    cases.extend(profiles(pids));
    cases.extend(samples(pids));
    cases.extend(files(pids));
    cases.extend(agents(pids));
    cases.extend(refusals(pids));
    cases.extend(usage(pids));
    cases.extend(changes(pids));
    cases
}

fn help() -> Vec<Case> {
    let mut cases = vec![
        Case::of(&["--help"]),
        Case::of(&["-h"]),
        Case::of(&["--version"]),
        Case::of(&["generate", "commands-table"]),
        Case::of(&["generate", "schema"]),
        Case::of(&["generate", "man"]),
    ];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        cases.push(Case::of(&["generate", "completions", shell]));
    }
    for command in COMMANDS {
        cases.push(Case::of(&[command, "--help"]));
        cases.push(Case::of(&[command, "-h"]));
        cases.push(Case::of(&["generate", "man", command]));
    }
    cases
}

fn lists() -> Vec<Case> {
    let mut cases = Vec::new();
    for words in [
        ["list"].as_slice(),
        &["tree"],
        &[],
        &["list", "-v"],
        &["tree", "-v"],
        &["list", "--json"],
        &["tree", "--json"],
    ] {
        cases.push(Case::of(words));
        cases.push(Case::of(words).without_rights());
    }
    cases.push(Case::of(&["list", "--color", "always"]).without_rights());
    cases
}

fn answers(pids: &Pids) -> Vec<Case> {
    let mut cases = vec![Case::of(&[&pids.quiet]), Case::of(&[&pids.quiet, "20ms"])];
    for pid in [&pids.quiet, &pids.oldest, &pids.many, &pids.held, &pids.several, &pids.profiles] {
        for command in ANSWERS {
            for options in [[].as_slice(), &["-v"], &["--json"]] {
                cases.push(Case::of(&[&[command, pid.as_str()], options].concat()));
            }
        }
        for command in ["stack", "memstats", "heap"] {
            cases.push(Case::of(&[command, pid, "--no-pause", "--json"]));
            cases.push(Case::of(&[command, pid, "--no-pause"]));
        }
        cases.push(Case::of(&["heap", pid, "--top", "3", "--max-pause", "1us"]));
    }
    for command in ANSWERS {
        cases.push(Case::of(&[command, &pids.several, "--runtime", "shop.so"]));
        cases.push(Case::of(&[command, &pids.several, "--runtime", "none.so"]));
        cases.push(Case::of(&[command, &pids.busy, "--json"]).form(Form::Names));
        cases.push(Case::of(&[command, &pids.quiet, "-v", "--color", "always"]).form(Form::Numbers));
    }
    for command in ["memstats", "stats", "version"] {
        cases.push(Case::of(&[command, &pids.busy]).form(Form::Numbers));
    }
    cases
}

fn stacks(pids: &Pids) -> Vec<Case> {
    let mut cases = Vec::new();
    for pid in [&pids.quiet, &pids.held] {
        for options in [
            ["--all"].as_slice(),
            &["--all", "--json"],
            &["--goroutine", "1"],
            &["--goroutine", "99999"],
            &["--state", "chan receive"],
            &["--state", "select"],
            &["--state", "chan recieve"],
            &["--match", "main.main"],
            &["--match", "no such text"],
            &["--state", "chan receive", "--json"],
            &["--max-pause", "1us"],
            &["--after", "10ms"],
            &["--when-stuck", "100ms"],
            &["-o", "stacks"],
            &["--json", "-o", "stacks"],
            &["-o", "no/such/folder"],
        ] {
            cases.push(Case::of(&[&["stack", pid.as_str()], options].concat()));
        }
    }
    cases
}

fn profiles(pids: &Pids) -> Vec<Case> {
    let mut cases = Vec::new();
    for command in PROFILES {
        for pid in [&pids.quiet, &pids.oldest, &pids.many, &pids.profiles, &pids.held, &pids.several] {
            for format in ["text", "folded", "json"] {
                cases.push(Case::of(&[command, pid, "--format", format]));
            }
            cases.push(Case::of(&[command, pid, "-v"]));
            cases.push(Case::of(&[command, pid, "--json"]));
            cases.push(Case::of(&[command, pid, "-o", "out.pb.gz"]));
        }
        for format in ["flamegraph", "speedscope"] {
            cases.push(Case::of(&[command, &pids.profiles, "--format", format]));
        }
        cases.push(Case::of(&[command, &pids.profiles, "--diff", "--duration", "10ms", "-f", "text"]));
        cases.push(Case::of(&[command, &pids.profiles, "--sample-type", "nothing", "-f", "text"]));
        cases.push(Case::of(&[command, &pids.profiles, "--sample-type", "alloc_space", "-f", "text"]));
        cases.push(Case::of(&[command, &pids.profiles, "--open", "-f", "text"]));
        cases.push(Case::of(&[command, &pids.profiles, "--duration", "1s"]));
        cases.push(Case::of(&[command, &pids.profiles, "--enable=nonsense", "--duration", "10ms"]));
        cases.push(Case::of(&[command, &pids.profiles, "-f", "pprof", "-o", "out.svg"]));
    }
    cases
}

fn samples(pids: &Pids) -> Vec<Case> {
    let mut cases = Vec::new();
    // Nothing runs in it.
    for mode in ["perf", "ptrace"] {
        for format in ["text", "folded", "json", "pprof"] {
            cases.push(
                Case::of(&["pprof-cpu", &pids.held, "-d", "50ms", "--mode", mode, "-f", format])
                    .form(Form::Names),
            );
        }
    }
    // Samples by ptrace may all be lost where others have the CPUs.
    let perf = ["--mode", "perf"];
    cases.push(
        Case::of(&[&["pprof-cpu", pids.busy.as_str(), "-d", "300ms", "-f", "json"], &perf[..]].concat())
            .form(Form::Names),
    );
    let top = ["top", pids.busy.as_str(), "-n", "1", "--interval", "300ms", "--json"];
    cases.push(Case::of(&[&top, &perf[..]].concat()).form(Form::Names));
    cases.push(Case::of(&["top", &pids.busy, "--interval", "1ms"]));
    cases.push(Case::of(&["top", "localhost:1"]));
    cases.push(Case::of(&["top", "--system", &pids.busy]));
    cases.push(Case::of(&["top"]));
    cases.push(Case::of(&["pprof-cpu", &pids.gone]));
    cases.push(Case::of(&["pprof-cpu", &pids.busy, "--rate", "0"]));
    cases
}

fn files(pids: &Pids) -> Vec<Case> {
    let mut serve = vec![
        Case::of(&["serve", &pids.quiet, "--gops", "--listen", "unix:socket"]),
        Case::of(&["serve", &pids.quiet, "--gops", "--listen", "unix:socket", "--json"]),
        Case::of(&[
            "serve",
            &pids.quiet,
            "--gops",
            "--listen",
            "unix:socket",
            "--allow-uid",
            "7",
            "--allow-changes",
        ]),
        Case::of(&["serve", &pids.quiet, "--gops", "--listen", "127.0.0.1:46061", "--allow-remote"]),
        Case::of(&["serve", &pids.several, "--gops", "--runtime", "shop.so", "--listen", "unix:socket"]),
        Case::of(&["serve", &pids.foreign, "--gops"]),
        Case::of(&["serve", &pids.quiet]),
        Case::of(&["serve", &pids.quiet, "--gops", "--listen", "nonsense"]),
    ];
    serve.iter_mut().for_each(|case| case.until_served = true);
    let binary = ["binary", &pids.quiet];
    serve.push(Case::of(&binary));
    serve.push(Case::of(&[&binary[..], &["-o", "program", "--json"]].concat()));
    serve.push(Case::of(&[&binary[..], &["-o", "-"]].concat()));
    serve
}

fn agents(pids: &Pids) -> Vec<Case> {
    let pid = pids.agent.as_str();
    let mut cases = Vec::new();
    for command in ["version", "stack", "stats", "memstats", "pprof-heap", "binary"] {
        for options in [[].as_slice(), &["--json"], &["-v"]] {
            cases.push(Case::of(&[&[command, pid, "--via", "agent"], options].concat()).form(Form::Numbers));
        }
        cases.push(Case::of(&[command, "localhost:1"]));
        cases.push(Case::of(&[command, "localhost:1", "--via", "probe"]));
        cases.push(Case::of(&[command, &pids.quiet, "--via", "agent"]));
    }
    for options in
        [["--goroutine", "1"], ["--state", "chan receive"], ["--match", "main"], ["--state", "nonsense"]]
    {
        cases.push(Case::of(&[&["stack", pid, "--via", "agent"], &options[..]].concat()).form(Form::Numbers));
    }
    cases.push(Case::of(&["stack", pid, "--via", "agent", "--no-pause"]));
    cases.push(Case::of(&["pprof-heap", pid, "--via", "agent", "-f", "text"]).form(Form::Numbers));
    cases.push(Case::of(&["pprof-block", pid, "--via", "agent"]));
    cases.push(Case::of(&["trace", &pids.quiet]));
    cases.push(Case::of(&["trace", pid, "--via", "probe"]));
    cases.push(Case::of(&["heap", "localhost:1"]));
    cases.push(Case::of(&["setmemlimit", pid, "off", "--via", "agent"]));
    for options in [[].as_slice(), &["--json"]] {
        cases.push(
            Case::of(&[&["setgc", pid, "70", "--via", "agent"], options].concat())
                .undone_by(&["setgc", pid, "100"]),
        );
        cases.push(Case::of(&[&["gc", pid, "--via", "agent", "-v"], options].concat()));
    }
    cases
}

/// What cannot be answered.
fn refusals(pids: &Pids) -> Vec<Case> {
    let mut cases = Vec::new();
    for command in COMMANDS.into_iter().filter(|command| !matches!(*command, "list" | "tree")) {
        let more: &[&str] = match command {
            "setgc" => &["50"],
            "setmemlimit" => &["1GiB"],
            "serve" => &["--gops"],
            "pprof-cpu" => &["--duration", "50ms"],
            "top" => &["-n", "1", "--interval", "50ms"],
            _ => &[],
        };
        let of = |pid: &str| Case::of(&[&[command, pid], more].concat());
        cases.push(of(&pids.gone));
        cases.push(of("name:^no such process$"));
        cases.push(of("name:parked"));
        cases.push(of("container:0123456789ab"));
        if command != "process" && command != "binary" && command != "pprof-cpu" && command != "top" {
            cases.push(of(&pids.foreign));
            cases.push(of(&pids.foreign).without_rights());
        }
        if command != "pprof-cpu" && command != "top" {
            cases.push(of(&pids.quiet).without_rights());
        } else {
            cases.push(of(&pids.quiet).without_rights().form(Form::Names));
        }
        cases.push(Case::of(&[&[command, "--wait=50ms", "name:^no such process$"], more].concat()));
    }
    cases
}

/// Slips of the pen.
fn usage(pids: &Pids) -> Vec<Case> {
    let pid = pids.quiet.as_str();
    [
        ["stack"].as_slice(),
        &["nonsense"],
        &["parked"],
        &["stack", "nonsense"],
        &["stack", "name:("],
        &["stack", "name:"],
        &["stack", "container:"],
        &["stack", "0"],
        &["stack", "99999999999"],
        &["stack", "a:b"],
        &["stack", pid, "--max-pause", "5"],
        &["stack", pid, "--max-pause", "soon"],
        &["stack", pid, "--no-pause", "--max-pause", "1ms"],
        &["stack", pid, "--after", "soon"],
        &["stack", pid, "--match", "("],
        &["stack", pid, "--goroutine", "x"],
        &["stack", "localhost:1", "--after", "1s"],
        &["stack", pid, "--via", "nobody"],
        &["stack", pid, "--bogus"],
        &["setgc", pid],
        &["setgc", pid, "-5"],
        &["setgc", pid, "many"],
        &["setmemlimit", pid, "1GB"],
        &["setmemlimit", pid, "1"],
        &["process", pid, "soon"],
        &["process", pid, &pids.many],
        &["process", "localhost:1"],
        &["stats", pid, "--timeout", "5"],
        &["pprof-heap", pid, "--diff"],
        &["pprof-heap", pid, "--format", "nonsense"],
        &["pprof-heap", pid, "--enable", "--diff", "--duration", "1s"],
        &["generate", "man", "nonsense"],
        &["generate", "schema", "nonsense"],
        &["help", "nonsense"],
    ]
    .into_iter()
    .map(Case::of)
    .collect()
}

/// What changes a process. Each is taken back.
fn changes(pids: &Pids) -> Vec<Case> {
    let mut cases = Vec::new();
    for pid in [&pids.quiet, &pids.oldest] {
        for options in [[].as_slice(), &["-v"], &["--json"], &["--dry-run"], &["--dry-run", "--json"]] {
            cases.push(
                Case::of(&[&["setgc", pid.as_str(), "50"], options].concat())
                    .undone_by(&["setgc", pid, "100"]),
            );
            let limit = ["setmemlimit", pid.as_str(), "3GiB"];
            cases.push(Case::of(&[&limit, options].concat()).undone_by(&["setmemlimit", pid, "off"]));
            // Collections are counted, and each leaves another heap.
            cases.push(Case::of(&[&["gc", pid.as_str()], options].concat()).form(Form::Numbers));
        }
        cases.push(Case::of(&["setgc", pid, "off", "-v"]).undone_by(&["setgc", pid, "100"]));
    }
    for options in [[].as_slice(), &["--runtime", "shop.so"]] {
        cases.push(
            Case::of(&[&["gc", pids.several.as_str(), "--dry-run"], options].concat()).form(Form::Numbers),
        );
        cases.push(Case::of(&[&["setgc", pids.several.as_str(), "50", "--dry-run"], options].concat()));
    }
    cases.push(Case::of(&["gc", &pids.held, "--timeout", "100ms"]).form(Form::Numbers));
    for (command, rate) in [("pprof-heap", ""), ("pprof-block", "=10us"), ("pprof-mutex", "=5")] {
        let enable = format!("--enable{rate}");
        let words = [command, &pids.oldest, &enable, "--duration", "50ms", "-f", "text", "-v"];
        cases.push(Case::of(&words).form(Form::Numbers));
    }
    cases
}
