//! Tests of the sampler with each loader.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};

use super::*;

/// Locks out other tests: these tests count the open files of this process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn options(loader: Loader) -> SamplerOptions {
    SamplerOptions { rate: 199, whole_system: false, kernel_frames: true, stack: 4096, follow: true, loader }
}

/// Loads a sampler; prints a note and returns `None` if that is denied.
fn loaded(loader: Loader) -> Option<Sampler> {
    match Sampler::load(&options(loader)) {
        Err(error) if error.is_denied() => {
            println!("NOT TESTED: {error}");
            None
        }
        other => Some(other.unwrap()),
    }
}

fn spin(time: Duration) {
    let start = Instant::now();
    let mut spins = 0u64;
    while start.elapsed() < time {
        spins = std::hint::black_box(spins + 1);
    }
}

#[test]
fn sees_what_a_thread_does() {
    let _alone = alone();
    for &loader in Loader::ALL {
        let Some(mut sampler) = loaded(loader) else { return };
        sampler.measure().unwrap();
        sampler.add(std::process::id(), &SampledTarget::default()).unwrap();
        sampler.start(&options(loader)).unwrap();
        spin(Duration::from_millis(500));
        let (mut samples, mut stacks) = (0, 0);
        sampler.read(|record| match record {
            Record::Sample(s) => {
                assert_eq!(s.pid, std::process::id());
                assert!(s.user.is_some_and(|r| r.sp != 0) && s.goid == 0 && !s.resumed_after_cgo);
                samples += 1;
            }
            Record::Stack(part) => {
                assert!(!part.bytes.is_empty());
                stacks += 1;
            }
            _ => {}
        });
        let counts = sampler.counts().unwrap();
        // The scheduler decides how much CPU time the thread got in its half second.
        assert!(samples >= 10, "{loader:?}: {samples} of {counts:?}");
        assert!(samples == stacks && counts.taken >= samples, "{loader:?}: {samples} {stacks} {counts:?}");
        assert_eq!((counts.lost, counts.lost_parts), (0, 0));
        let cost = sampler.cost().unwrap();
        println!("{loader:?}: {counts:?} {cost:?}");
        assert!(cost.runs >= counts.taken && cost.time > Duration::ZERO);
    }
}

/// Counts the records of each kind; fork and exec records are counted for each process.
fn kinds(sampler: &mut Sampler) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    sampler.read(|record| {
        let kind = match record {
            Record::Sample(_) => "sample".to_owned(),
            Record::Kernel(_) => "kernel".to_owned(),
            Record::Stack(_) => "stack".to_owned(),
            other => format!("{other:?}"),
        };
        *kinds.entry(kind).or_default() += 1;
    });
    kinds
}

#[test]
fn all_at_the_same_time_have_the_same() {
    let _alone = alone();
    let mut samplers = Vec::new();
    for &loader in Loader::ALL {
        let Some(mut sampler) = loaded(loader) else { return };
        sampler
            .add(
                std::process::id(),
                &SampledTarget { flags: crate::records::target_flags::FOLLOW, ..SampledTarget::default() },
            )
            .unwrap();
        sampler.start(&options(loader)).unwrap();
        samplers.push(sampler);
    }
    for _ in 0..3 {
        assert!(Command::new("/proc/self/exe").arg("--list").output().unwrap().status.success());
    }
    spin(Duration::from_secs(2));
    // A system call that takes some time in the kernel.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        fs::read("/proc/self/smaps").unwrap();
    }
    let all: Vec<BTreeMap<String, u64>> = samplers.iter_mut().map(kinds).collect();
    println!("{all:#?}");
    for kinds in &all {
        let news = |kinds: &BTreeMap<String, u64>| {
            let mut kinds = kinds.clone();
            kinds.retain(|kind, _| kind.contains("Fork") || kind.contains("Exec"));
            kinds
        };
        assert_eq!(news(kinds).values().sum::<u64>(), 6, "{kinds:?}");
        assert_eq!(news(kinds), news(&all[0]));
        for kind in ["sample", "kernel", "stack"] {
            let (one, first) = (kinds[kind], all[0][kind]);
            // Loaders interrupt at different moments: allow four standard deviations of chance.
            let chance = 4.0 * ((one + first) as f64).sqrt();
            assert!(one >= 20 && one.abs_diff(first) as f64 <= chance, "{kind}: {one}, {first}");
        }
    }
}

/// Entry of the kernel's lists: kind, name and number.
type Entry = (&'static str, String, u32);

/// Lists the kernel objects of this process.
fn census() -> Vec<Entry> {
    census_of(std::process::id())
}

fn census_of(pid: u32) -> Vec<Entry> {
    let mut numbers: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    let mut events = 0;
    for file in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let path = file.unwrap().path();
        // The folder itself is open too.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for line in text.lines() {
            let Some((key, number)) = line.split_once(':') else { continue };
            for kind in ["prog_id", "map_id", "link_id"] {
                // Links also have the number of their program.
                if key == kind && (kind == "link_id" || !text.contains("link_id:")) {
                    numbers.entry(kind).or_default().push(number.trim().parse().unwrap());
                }
            }
        }
        let open = fs::read_link(path.to_str().unwrap().replace("fdinfo", "fd")).unwrap_or_default();
        events += u32::from(open.to_str().is_some_and(|name| name.contains("perf_event")));
    }
    let mut census = Vec::new();
    for (kind, mut numbers) in numbers {
        numbers.sort_unstable();
        numbers.dedup();
        let listed = listed(kind);
        census.extend(numbers.into_iter().map(|number| (kind, listed[&number].clone(), number)));
    }
    census.extend((0..events).map(|_| ("perf event", String::new(), 0)));
    census
}

/// Lists all objects of a kind in the kernel.
fn listed(kind: &str) -> BTreeMap<u32, String> {
    let name = |name: Option<&str>| name.unwrap_or_default().to_owned();
    match kind {
        "prog_id" => aya::programs::loaded_programs()
            .flatten()
            .map(|info| (info.id(), name(info.name_as_str())))
            .collect(),
        "map_id" => {
            aya::maps::loaded_maps().flatten().map(|info| (info.id(), name(info.name_as_str()))).collect()
        }
        _ => aya::programs::loaded_links().flatten().map(|info| (info.id(), String::new())).collect(),
    }
}

/// Waits until the objects are gone: the kernel frees them when no CPU can use them any more.
fn until_gone(entries: &[Entry]) {
    let start = Instant::now();
    while entries.iter().any(|(kind, _, number)| *number != 0 && listed(kind).contains_key(number)) {
        assert!(start.elapsed() < Duration::from_secs(20), "some are left of {entries:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_has_the_same_in_the_kernel_and_leaves_nothing() {
    let _alone = alone();
    let before = census();
    let mut all = Vec::new();
    for &loader in Loader::ALL {
        let Some(mut sampler) = loaded(loader) else { return };
        sampler.start(&options(loader)).unwrap();
        let mut there = census();
        there.retain(|entry| !before.contains(entry));
        drop(sampler);
        assert_eq!(census(), before, "{loader:?}");
        until_gone(&there);
        // The map with the constants has the object's name in its name.
        let name =
            |name: &str| if name.ends_with(".rodata") { ".rodata".to_owned() } else { name.to_owned() };
        // `aya` keeps only links, which keep the events.
        let named = there.iter().filter(|(kind, ..)| *kind != "perf event");
        let mut names: Vec<_> = named.map(|(kind, own, _)| (*kind, name(own))).collect();
        names.sort();
        println!("{loader:?}: {names:?}");
        for (kind, count) in [("prog_id", 3), ("map_id", 5)] {
            assert_eq!(names.iter().filter(|(own, _)| *own == kind).count(), count, "{loader:?}: {names:?}");
        }
        all.push(names);
    }
    assert!(all.iter().all(|names| *names == all[0]), "{all:#?}");
}

/// Helper process that is killed below; not a test of its own.
#[test]
fn helper() {
    let Ok(number) = std::env::var(HELPER) else { return };
    let loader = Loader::ALL[number.parse::<usize>().unwrap()];
    if let Some(mut sampler) = loaded(loader) {
        sampler.start(&options(loader)).unwrap();
        println!("begins");
        // The process that waits for the line may be killed too.
        std::thread::sleep(Duration::from_secs(60));
    }
}

const HELPER: &str = "GOPS_PROBE_LOADER";

#[test]
fn killed_each_leaves_nothing() {
    let _alone = alone();
    for number in 0..Loader::ALL.len() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "cpu::tests::helper", "--nocapture"]).env(HELPER, number.to_string());
        let mut helper = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(helper.stdout.take().unwrap()).lines();
        let begun = lines.map(Result::unwrap).any(|line| line.contains("begins"));
        let there = if begun { census_of(helper.id()) } else { Vec::new() };
        helper.kill().unwrap();
        helper.wait().unwrap();
        if !begun {
            println!("NOT TESTED: it could not load");
            return;
        }
        assert!(there.iter().filter(|(kind, ..)| *kind == "prog_id").count() == 3, "{there:?}");
        until_gone(&there);
    }
}

#[test]
fn who_may_not_is_told_so() {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap() {
        println!("NOT TESTED: there are no capabilities to give up");
        return;
    }
    for &loader in Loader::ALL {
        // Capabilities belong to a thread.
        let denied = std::thread::spawn(move || {
            caps::clear(None, CapSet::Effective).unwrap();
            Sampler::load(&options(loader)).unwrap_err()
        });
        let error = denied.join().unwrap();
        println!("{loader:?}: {error}");
        assert!(error.is_denied(), "{loader:?}: {error}");
    }
}

#[test]
fn a_refusal_has_the_verifiers_log() {
    let _alone = alone();
    // `r0 = 0` before a return becomes `r0 = r5`, which has no value after a call.
    let (set, other) = ([0xb7, 0, 0, 0, 0, 0, 0, 0], [0xbf, 0x50, 0, 0, 0, 0, 0, 0]);
    let mut bytes = OBJECT.to_vec();
    for at in (0..bytes.len() - 8).step_by(8) {
        if bytes[at..at + 8] == set {
            bytes[at..at + 8].copy_from_slice(&other);
        }
    }
    assert!(bytes != OBJECT);
    for &loader in Loader::ALL {
        match Sampler::load_object(&bytes, &options(loader), Runs::OnClock).unwrap_err() {
            Error::Refused { program, source, log } => {
                println!("{loader:?}: {program}: {source}: {log}");
                assert!([ON_CPU, ON_FORK, ON_EXEC].contains(&program), "{loader:?}: {program}");
                assert!(log.contains("!read_ok") && log.contains("processed"), "{loader:?}: {log}");
            }
            error if error.is_denied() => println!("NOT TESTED: {error}"),
            error => panic!("{loader:?}: {error}"),
        }
        let Err(error) = Sampler::load_object(&bytes[..100], &options(loader), Runs::OnClock) else {
            panic!()
        };
        println!("{loader:?}: {error}");
    }
}

#[cfg(feature = "libbpf")]
mod places {
    use super::*;

    // The bodies differ, otherwise the linker merges the functions.
    #[inline(never)]
    extern "C" fn one(n: u64) -> u64 {
        std::hint::black_box(n) + 11
    }

    #[inline(never)]
    extern "C" fn two(n: u64) -> u64 {
        std::hint::black_box(n) * 12
    }

    #[inline(never)]
    extern "C" fn three(n: u64) -> u64 {
        std::hint::black_box(n) ^ 13
    }

    /// Returns the offset in the program's file of an address.
    fn offset(address: u64) -> u64 {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines()
            .find_map(|line| {
                let mut words = line.split_whitespace();
                let (start, end) = words.next()?.split_once('-')?;
                let hex = |text| u64::from_str_radix(text, 16).ok();
                let (start, end, offset) = (hex(start)?, hex(end)?, hex(words.nth(1)?)?);
                (start..end).contains(&address).then(|| address - start + offset)
            })
            .unwrap()
    }

    fn version() -> (u32, u32) {
        let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = text.split('.').map(|number| number.parse().unwrap_or_default());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    #[test]
    fn each_call_of_many_functions_is_seen() {
        let _alone = alone();
        let aya = Sampler::load_for_places(&options(Loader::Aya)).unwrap_err();
        assert!(aya.is_denied() || aya.to_string().contains("cannot"), "{aya}");
        let options = options(Loader::Libbpf);
        let mut sampler = match Sampler::load_for_places(&options) {
            Err(error) if error.is_denied() || version() < (6, 6) => {
                println!("NOT TESTED: {error}");
                return;
            }
            other => other.unwrap(),
        };
        sampler.add(std::process::id(), &SampledTarget::default()).unwrap();
        let functions = [one, two, three].map(|function: extern "C" fn(u64) -> u64| function as usize as u64);
        let offsets = functions.map(offset);
        let file = std::path::Path::new("/proc/self/exe");
        let places = Places { file, pid: Some(std::process::id()), offsets: &offsets };
        let links = || census().iter().filter(|(kind, ..)| *kind == "link_id").count();
        let none = Places { offsets: &[], ..places };
        assert!(sampler.start_at(&options, &none).is_err());
        let before = links();
        match sampler.start_at(&options, &places) {
            Err(error) if version() < (6, 6) => {
                println!("NOT TESTED: {error}");
                return;
            }
            other => other.unwrap(),
        }
        let call = || {
            (0..10).for_each(|n| _ = one(n));
            (0..20).for_each(|n| _ = two(n));
            (0..30).for_each(|n| _ = three(n));
        };
        call();
        // Calls in another thread are seen too.
        std::thread::scope(|scope| _ = scope.spawn(call));
        let mut seen = BTreeMap::<u64, u64>::new();
        sampler.read(|record| {
            if let Record::Sample(sample) = record {
                *seen.entry(sample.user.unwrap().ip).or_default() += 1;
            }
        });
        let expected: BTreeMap<u64, u64> = functions.into_iter().zip([20, 40, 60]).collect();
        assert_eq!(seen, expected);
        assert_eq!(sampler.counts().unwrap().fired, 120);
        // One link for all places, beside the two links of fork and exec.
        assert_eq!(links(), before + 3);
        drop(sampler);
        call();
        // The instructions are restored.
        let elsewhere = Places { pid: Some(1), ..places };
        let mut sampler = Sampler::load_for_places(&options).unwrap();
        sampler.add(std::process::id(), &SampledTarget::default()).unwrap();
        sampler.start_at(&options, &elsewhere).unwrap();
        call();
        assert_eq!(sampler.counts().unwrap().taken, 0);
    }
}
