//! What each command says about targets, against what is known of them otherwise.

use std::fs;

use fixtures::{Dump, Fixture, compare};
use serde_json::Value;

use super::machine::expect;
use super::targets::{COLLECTOR, MEMORY, STATES};
use super::{Done, Failure, Machine, ensure};

/// All targets at once, with the Go version of each.
fn all(machine: &Machine) -> Result<Vec<(Fixture, String)>, Failure> {
    STATES.iter().map(|cell| Ok((machine.target(cell)?, format!("go{}", cell.toolchain)))).collect()
}

fn untouched(targets: &mut [(Fixture, String)]) -> Result<(), Failure> {
    for (target, _) in targets {
        target.assert_untouched()?;
    }
    Ok(())
}

/// What `gops-probe` answers in JSON.
fn json(machine: &Machine, command: &[&str]) -> Result<Value, Failure> {
    let arguments = [command, &["--json"]].concat();
    let text = expect(&arguments.join(" "), &machine.probe(&arguments)?, 0, &[])?;
    Ok(serde_json::from_str(&text)?)
}

fn same(what: &str, found: &Value, expected: &Value) -> Result<(), Failure> {
    ensure(found == expected, || format!("{what} is {found} and not {expected}"))
}

pub(crate) fn list(machine: &Machine) -> Result<Done, Failure> {
    let mut targets = all(machine)?;
    let answer = json(machine, &["list"])?;
    let rows = answer["processes"].as_array().ok_or("no processes")?;
    for (target, version) in &targets {
        let row = rows.iter().find(|row| row["pid"] == target.pid());
        let row = row.ok_or_else(|| format!("process {} is not in the list", target.pid()))?;
        same("version", &row["version"], &version.as_str().into())?;
        same("parent", &row["ppid"], &std::process::id().into())?;
        same("name", &row["name"], &"states".into())?;
    }
    let text = expect("list", &machine.probe(&["list"])?, 0, &[])?;
    for (target, version) in &targets {
        let pid = target.pid().to_string();
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(&pid));
        ensure(line.is_some_and(|line| line.contains(version.as_str())), || format!("{pid} in {text}"))?;
    }
    untouched(&mut targets)?;
    Ok(Done::Passed(format!("{} targets, {} Go processes", targets.len(), rows.len())))
}

pub(crate) fn version(machine: &Machine) -> Result<Done, Failure> {
    let mut targets = all(machine)?;
    for (target, version) in &targets {
        let text = expect("version", &machine.probe(&["version", &target.pid().to_string()])?, 0, &[])?;
        ensure(text == format!("{version}\n"), || format!("{text:?} instead of {version}"))?;
    }
    untouched(&mut targets)?;
    let versions: Vec<&str> = targets.iter().map(|(_, version)| version.as_str()).collect();
    Ok(Done::Passed(versions.join(", ")))
}

pub(crate) fn process(machine: &Machine) -> Result<Done, Failure> {
    let mut targets = all(machine)?;
    for (target, version) in &mut targets {
        let pid = target.pid();
        let answer = json(machine, &["process", &pid.to_string()])?;
        same("version", &answer["go"]["version"], &version.as_str().into())?;
        same("parent", &answer["ppid"], &std::process::id().into())?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let number =
            |name: &str| field(name).and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        same("threads", &answer["threads"], &number("Threads:").into())?;
        same("user", &answer["uid"], &number("Uid:").into())?;
        // The runtime's own settings, from its memory.
        same("GOGC", &answer["go"]["gogc"], &100.into())?;
        let cpus = std::thread::available_parallelism()?.get();
        same("GOMAXPROCS", &answer["go"]["gomaxprocs"], &cpus.into())?;
    }
    untouched(&mut targets)?;
    Ok(Done::Passed(format!("{} targets: parent, threads, user, GOGC, GOMAXPROCS", targets.len())))
}

pub(crate) fn tree(machine: &Machine) -> Result<Done, Failure> {
    let mut targets = all(machine)?;
    let answer = json(machine, &["tree"])?;
    let nodes = answer["nodes"].as_array().ok_or("no nodes")?;
    for (target, version) in &targets {
        let node = nodes.iter().find(|node| node["pid"] == target.pid());
        let node = node.ok_or_else(|| format!("process {} is not in the tree", target.pid()))?;
        same("version", &node["process"]["version"], &version.as_str().into())?;
        same("parent", &node["process"]["ppid"], &std::process::id().into())?;
    }
    expect("tree", &machine.probe(&["tree"])?, 0, &[])?;
    untouched(&mut targets)?;
    Ok(Done::Passed(format!("{} targets among {} nodes", targets.len(), nodes.len())))
}

pub(crate) fn stack(machine: &Machine) -> Result<Done, Failure> {
    stacks(machine, &["stack"])
}

pub(crate) fn stack_no_pause(machine: &Machine) -> Result<Done, Failure> {
    stacks(machine, &["stack", "--no-pause"])
}

/// How often a comparison is made again where only the passing of a minute can be the difference.
const ATTEMPTS: usize = 3;

fn stacks(machine: &Machine, command: &[&str]) -> Result<Done, Failure> {
    let mut figures = Vec::new();
    for cell in &STATES {
        let mut target = machine.target(cell)?;
        target.order("gc")?;
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let before = Dump::parse(&target.dump()?);
            let output = machine.probe(&[command, &[&target.pid().to_string()]].concat())?;
            let found = Dump::parse(&expect(&command.join(" "), &output, 0, &[])?);
            let after = Dump::parse(&target.dump()?);
            target.assert_untouched()?;
            let comparison = compare(&before, &found, &after, target.dumper());
            if !comparison.moved.is_empty() && left > 0 {
                continue;
            }
            ensure(comparison.accepted() && comparison.total() > 20, || format!("{cell}: {comparison:?}"))?;
            figures.push(format!("{} of go{}", comparison.total(), cell.toolchain));
            break;
        }
    }
    Ok(Done::Passed(format!("goroutines as in the targets' own dumps: {}", figures.join(", "))))
}

/// Of the figures that the target itself knows, those that are not about memory of the runtime's own, which it uses to
/// stand still.
const FIGURES: [&str; 12] = [
    "Alloc",
    "TotalAlloc",
    "Mallocs",
    "Frees",
    "HeapAlloc",
    "HeapInuse",
    "HeapObjects",
    "NextGC",
    "LastGC",
    "NumGC",
    "NumForcedGC",
    "PauseTotalNs",
];

pub(crate) fn memstats(machine: &Machine) -> Result<Done, Failure> {
    let mut target = machine.target(&MEMORY)?;
    let pid = target.pid().to_string();
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        target.park("park")?;
        let answer = json(machine, &["memstats", &pid]);
        let theirs = target.unpark()?;
        let answer = answer?;
        same("consistency", &answer["consistency"], &"instant".into())?;
        let (ours, theirs) = (&answer["memstats"], &theirs["MemStats"]);
        // A goroutine of the runtime may have woken up between the target's reading and ours.
        if ours["Mallocs"] != theirs["Mallocs"] && left > 0 {
            continue;
        }
        ensure(ours["Mallocs"].is_u64(), || format!("no figures in {answer}"))?;
        for figure in FIGURES {
            same(figure, &ours[figure], &theirs[figure])?;
        }
        break;
    }
    target.assert_untouched()?;
    Ok(Done::Passed(format!("{} figures as the target's own", FIGURES.len())))
}

pub(crate) fn gc(machine: &Machine) -> Result<Done, Failure> {
    let mut target = machine.target(&COLLECTOR)?;
    let pid = target.pid().to_string();
    let before: u64 = target.command("numgc")?.parse()?;
    expect("gc", &machine.probe(&["gc", &pid])?, 0, &[])?;
    let after: u64 = target.command("numgc")?.parse()?;
    ensure(after > before, || format!("{before} collections before, {after} after"))?;
    let sound = target.command("check")?;
    ensure(sound.starts_with("sound "), || format!("its heap: {sound}"))?;
    target.assert_untouched()?;
    Ok(Done::Passed("a collection more, and its heap is sound".to_owned()))
}
