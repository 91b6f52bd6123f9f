//! Memory statistics, numbers of goroutines, and the heap, from outside: equal to what the process itself reads at the same
//! moment.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use fixtures::matrix::NEWEST;
use fixtures::memory::{Flushed, differences, histogram_differences, without_explained};
use fixtures::{Cell, Fixture, Program, Variant, breakpoint, build, probe};
use inspector::process::Process;
use inspector::runtime::heap::{self, HeapPause};
use inspector::runtime::memstats::figures::{Collector, CpuTimes};
use inspector::runtime::memstats::{self, Consistency, Reading, Sources, Wanted};
use inspector::runtime::open::open;
use inspector::runtime::stats::{Counters, Histograms};
use inspector::runtime::view::View;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;

/// What the runtime is set to.
const SETTINGS: [&[(&str, &str)]; 4] = [
    &[],
    &[("GOMEMLIMIT", "48MiB")],
    &[("GOGC", "off")],
    &[("GOGC", "off"), ("GOMEMLIMIT", "40MiB"), ("GOMAXPROCS", "4")],
];

/// The runtime's own goroutines may give memory back or sweep between its reading and ours.
const TRIES: u32 = 12;

/// CPU time that a process uses to say that it has read; the runtime's own goroutines use more for whatever they do.
const AT_REST_NS: i64 = 20_000;

/// CPU time that all threads of the process have used, in nanoseconds, once all of them sleep: of one that runs, what it uses is not
/// counted yet.
fn cpu_time(pid: u32) -> i64 {
    let sleeps = |thread: fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat"));
        stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('S')))
    };
    while !fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(sleeps) {
        std::thread::yield_now();
    }
    let pid = Pid::from_raw(pid.cast_signed());
    let time = clock_gettime(ClockId::pid_cpu_clock_id(pid).unwrap()).unwrap();
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}

struct Looked {
    process: Process,
    fixture: Fixture,
    view: View,
    name: String,
}

impl Looked {
    fn start(cell: &Cell, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let fixture = Fixture::spawn(cell, arguments, environment).unwrap();
        let process = fixture.pinned().unwrap();
        let (view, _) = open(&process).unwrap();
        Looked { process, fixture, view, name: format!("{cell} {environment:?}") }
    }

    fn sources(&self) -> Sources {
        Sources::find(&self.view).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    fn take(&self, wanted: Wanted) -> memstats::Taken<Reading> {
        memstats::take(&self.process, &self.view, &self.sources(), wanted)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// The process has read its statistics and stands still.
    fn parked(&mut self, state: &str) {
        let (mut last, mut wrong) = (Vec::new(), 0);
        for _ in 0..TRIES {
            self.fixture.park("park").unwrap();
            let used = cpu_time(self.fixture.pid());
            let ours = self.take(Wanted::Instant);
            let approximate = self.take(Wanted::Approximate);
            let heap = heap::take(
                &self.process,
                &self.view,
                &self.sources(),
                HeapPause::AtMost(std::time::Duration::from_secs(5)),
                10,
            );
            let heap = heap.unwrap_or_else(|e| panic!("{}: {e}", self.name));
            let memory = self.process.memory();
            let stats = Counters::find(&self.view).unwrap().read(&memory).unwrap();
            let theirs = self.fixture.unpark().unwrap();
            let unequal = differences(&theirs["MemStats"], &ours.answer.memstats);
            let used = used - theirs["Numbers"]["CPUTime"].as_i64().unwrap();
            let quiet = used < AT_REST_NS
                && ours.answer.memstats == approximate.answer.memstats
                && ours.answer.memstats == heap.answer.statistics.memstats
                && ours.answer.collector.sweep_done == Some(true)
                // A goroutine of the runtime woke up in between.
                && ours.answer.memstats.mallocs == theirs["MemStats"]["Mallocs"].as_u64()
                // The scavenger and the sweeper give memory back in between, for long where much is free; the goal of the
                // collector follows that where there is a memory limit.
                && !unequal.iter().all(|u| {
                    ["HeapReleased", "GCSys", "HeapIdle", "HeapSys", "NextGC"].contains(&u.field.as_str())
                });
            last = unequal;
            // Of what was read later, the same is asked for where nothing happened meanwhile.
            let same_heap = ours.answer.memstats == heap.answer.statistics.memstats;
            if !last.is_empty() && quiet {
                // What ran right after the process had read, on the thread that then stood still, went unseen.
                wrong += 1;
            }
            if (!last.is_empty() && wrong < 2) || !same_heap {
                continue;
            }
            assert!(last.is_empty(), "{} {state}: {last:#?}", self.name);
            assert_eq!(ours.consistency, Consistency::Instant, "{} {state}", self.name);
            assert!(ours.answer.is_exact(), "{} {state}: {:?}", self.name, ours.answer);
            let numbers = &theirs["Numbers"];
            let ours = [Some(stats.goroutines), Some(stats.threads), Some(stats.gomaxprocs), stats.num_cpu];
            let names = ["Goroutines", "Threads", "Gomaxprocs", "NumCPU"];
            assert_eq!(ours, names.map(|name| numbers[name].as_u64()), "{} {state}", self.name);
            assert!(heap.answer.adds_up(), "{} {state}", self.name);
            assert_eq!(theirs["MemStats"]["HeapAlloc"].as_u64(), Some(heap.answer.spans.bytes()));
            assert_eq!(theirs["MemStats"]["HeapObjects"].as_u64(), Some(heap.answer.spans.objects()));
            assert_eq!(
                theirs["MemStats"]["HeapInuse"].as_u64(),
                Some(heap.answer.spans.total().span_bytes),
                "{} {state}",
                self.name
            );
            return;
        }
        panic!("{} {state}: never at rest: {last:#?}", self.name);
    }

    /// What a command says, in JSON and on standard error.
    fn probe(&mut self, arguments: &[&str]) -> (Value, String) {
        let pid = self.fixture.pid().to_string();
        let output = probe(&[arguments, &["--json", &pid]].concat()).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{} {arguments:?}: {stderr}", self.name);
        (serde_json::from_slice(&output.stdout).unwrap(), stderr)
    }

    /// The process is stopped in the midst of reading its statistics, before it has flushed anything. Returns whether some
    /// of the differences had to be explained.
    fn in_the_midst(&mut self, state: &str) -> bool {
        let function = self.view.modules.function("runtime.readmemstats_m").unwrap();
        for _ in 0..TRIES {
            let (pid, sources) = (self.fixture.pid(), self.sources());
            let (view, fixture) = (&self.view, &mut self.fixture);
            let memory = self.process.memory();
            let read = || heap::read_spans(view, &sources, &memory);
            let ours =
                breakpoint::at(pid, function, || fixture.send("read").map_err(|e| e.to_string()), read);
            let (spans, ours) = ours.unwrap().unwrap_or_else(|e| panic!("{} {state}: {e}", self.name));
            let theirs = self.fixture.own_numbers("read").unwrap();
            if ours.stale_spans > 0 {
                // Known not to be known: a collection had just ended.
                continue;
            }
            assert!(ours.differences.is_empty(), "{} {state}: {:?}", self.name, ours.differences);
            assert_eq!(ours.memstats.heap_alloc, Some(spans.bytes()), "{} {state}", self.name);
            assert_eq!(ours.memstats.heap_objects, Some(spans.objects()), "{} {state}", self.name);
            let unequal = differences(&theirs["MemStats"], &ours.memstats);
            let explained = !unequal.is_empty();
            let flushed = Flushed {
                minor: self.view.release.minor(),
                stack_spans: ours.stack_spans,
                span_size: self.view.table.size("runtime.mspan").unwrap(),
            };
            let left = without_explained(unequal.clone(), flushed);
            assert!(left.is_empty(), "{} {state}: {unequal:#?}", self.name);
            return explained;
        }
        panic!("{} {state}: always at the end of a collection", self.name);
    }
}

#[test]
fn as_the_process_itself_reads_them() {
    for cell in build::selected(Program::Memory).unwrap() {
        for environment in SETTINGS {
            // There is no limit before Go 1.19.
            if cell.minor() < 19 && environment.iter().any(|(name, _)| *name == "GOMEMLIMIT") {
                continue;
            }
            let mut looked = Looked::start(&cell, &[], environment);
            looked.parked("idle");
            looked.fixture.order("gc").unwrap();
            looked.parked("after a collection");
            looked.fixture.order("busy 4").unwrap();
            looked.fixture.order("calm").unwrap();
            looked.parked("after work on several Ps");
            looked.fixture.order("free").unwrap();
            looked.parked("after giving memory back");
            looked.fixture.assert_untouched().unwrap();
        }
    }
}

#[test]
fn as_the_process_reads_them_under_load() {
    let (mut runs, mut explained) = (0, 0);
    for cell in build::selected(Program::Memory).unwrap() {
        for environment in SETTINGS {
            if cell.minor() < 19 && environment.iter().any(|(name, _)| *name == "GOMEMLIMIT") {
                continue;
            }
            let mut looked = Looked::start(&cell, &[], environment);
            for (state, command) in [
                ("idle", "calm"),
                ("after a collection", "gc"),
                ("two allocate", "busy 2"),
                ("six allocate", "busy 4"),
            ] {
                looked.fixture.order(command).unwrap();
                runs += 1;
                explained += usize::from(looked.in_the_midst(state));
            }
            looked.fixture.order("calm").unwrap();
            looked.fixture.assert_untouched().unwrap();
        }
    }
    // The explanation is for what reading itself changes, not for everything.
    assert!(explained < runs, "{explained} of {runs}");
}

/// What lies beyond `runtime.MemStats`, seen while the process stood still.
struct Seen {
    minor: u32,
    collector: Collector,
    histograms: Histograms,
}

impl Seen {
    fn take(looked: &Looked) -> Self {
        let collector = looked.take(Wanted::Instant).answer.collector;
        let memory = looked.process.memory();
        let more = Counters::find(&looked.view).unwrap().more(&memory).unwrap();
        Seen { minor: looked.view.release.minor(), collector, histograms: more.histograms }
    }

    /// Metrics that are not equal, with both sides.
    fn compare(&self, theirs: &Value) -> BTreeMap<&'static str, (String, String)> {
        let mut unequal = BTreeMap::new();
        let metrics = &theirs["Metrics"];
        let c = &self.collector;
        let size = |value: Option<u64>| value.and_then(|v| i64::try_from(v).ok());
        let cpu = |time: fn(&CpuTimes) -> i64| c.cpu.as_ref().map(time);
        for (name, ours) in [
            ("/gc/gogc:percent", c.gogc_percent),
            ("/gc/gomemlimit:bytes", size(c.memory_limit_bytes).or(Some(i64::MAX))),
            ("/gc/heap/live:bytes", size(c.heap_marked_bytes)),
            ("/gc/heap/goal:bytes", size(c.heap_goal_bytes)),
            ("/gc/scan/stack:bytes", size(c.stack_scan_bytes)),
            ("/gc/scan/globals:bytes", size(c.globals_scan_bytes)),
            ("/gc/scan/heap:bytes", size(c.heap_scan_bytes)),
            ("/cpu/classes/gc/mark/assist:cpu-seconds", cpu(|c| c.gc_assist_ns)),
            ("/cpu/classes/gc/mark/dedicated:cpu-seconds", cpu(|c| c.gc_dedicated_ns)),
            ("/cpu/classes/gc/mark/idle:cpu-seconds", cpu(|c| c.gc_idle_ns)),
            ("/cpu/classes/gc/pause:cpu-seconds", cpu(|c| c.gc_pause_ns)),
            ("/cpu/classes/gc/total:cpu-seconds", cpu(|c| c.gc_total_ns)),
        ] {
            let Some(theirs) = metrics.get(name).and_then(Value::as_f64) else { continue };
            // Go 1.21.0 gives no number for these.
            if theirs == 0.0 && name.starts_with("/gc/scan/") && self.minor == 21 {
                continue;
            }
            // Times are in seconds there.
            let theirs = if name.ends_with("seconds") { theirs * 1e9 } else { theirs };
            if ours.is_none_or(|ours| (ours as f64 - theirs).abs() >= 1.0) {
                unequal.insert(name, (theirs.to_string(), format!("{ours:?}")));
            }
        }
        let h = &self.histograms;
        for (name, ours) in [
            ("/sched/latencies:seconds", &h.scheduling_latency),
            ("/gc/pauses:seconds", &h.gc_pause),
            ("/sched/pauses/total/gc:seconds", &h.gc_pause),
            ("/sched/pauses/stopping/gc:seconds", &h.gc_stopping),
            ("/sched/pauses/total/other:seconds", &h.other_pause),
            ("/sched/pauses/stopping/other:seconds", &h.other_stopping),
        ] {
            let Some(theirs) = metrics.get(name) else { continue };
            let differences = ours.as_ref().map(|ours| histogram_differences(theirs, ours));
            if differences.as_ref().is_none_or(|d| !d.is_empty()) {
                unequal.insert(name, (theirs.to_string(), format!("{differences:?}")));
            }
        }
        unequal
    }
}

#[test]
fn what_lies_beyond_is_what_the_metrics_say() {
    for cell in build::selected(Program::Memory).unwrap() {
        for environment in [&[][..], &[("GOGC", "50"), ("GOMEMLIMIT", "300MiB")]] {
            let mut looked = Looked::start(&cell, &[], environment);
            looked.fixture.order("busy 3").unwrap();
            looked.fixture.order("calm").unwrap();
            looked.fixture.order("gc").unwrap();
            let mut last = BTreeMap::new();
            // Whatever wakes up between both readings is scheduled and counted.
            for _ in 0..TRIES {
                looked.fixture.park("measure").unwrap();
                // What it says is known once it goes on: look before, compare after.
                let before = Seen::take(&looked);
                let theirs = looked.fixture.unpark().unwrap();
                last = before.compare(&theirs);
                if last.is_empty() {
                    break;
                }
            }
            assert!(last.is_empty(), "{}: {last:#?}", looked.name);
            looked.fixture.assert_untouched().unwrap();
        }
    }
}

fn newest() -> Cell {
    let cell = Cell::new(NEWEST, Variant::Stripped, Program::Memory);
    build::build(&[cell], 1, &|_, _| ()).unwrap();
    cell
}

#[test]
fn what_the_commands_print() {
    let mut looked = Looked::start(&newest(), &["-n", "300"], &[]);
    looked.fixture.order("gc").unwrap();
    let (memstats, stderr) = looked.probe(&["memstats"]);
    assert_eq!((&memstats["via"], &memstats["consistency"]), (&"probe".into(), &"instant".into()));
    assert!(stderr.is_empty(), "{stderr}");
    let own = &memstats["memstats"];
    let theirs = {
        looked.fixture.park("park").unwrap();
        looked.fixture.unpark().unwrap()
    };
    // The same names, no more and no fewer.
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(own), names(&theirs["MemStats"]));
    assert_eq!(own["BySize"].as_array().unwrap().len(), 61);
    assert_eq!(own["PauseNs"].as_array().unwrap().len(), 256);
    assert!(memstats["cost"]["threads_stopped"].as_u64().unwrap() >= 3, "{memstats}");
    assert_eq!(memstats["cost"]["bytes_written"], 0);
    let (approximate, stderr) = looked.probe(&["memstats", "--no-pause"]);
    assert_eq!(approximate["consistency"], "approximate");
    assert!(stderr.contains("approximate"), "{stderr}");
    assert_eq!(approximate["cost"]["threads_stopped"], 0);

    let (stats, _) = looked.probe(&["stats"]);
    assert!(stats["goroutines"].as_u64().unwrap() >= 301, "{stats}");
    assert_eq!(stats["goroutines_by_state"]["chan receive"], 300);
    let sum: u64 = stats["goroutines_by_state"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(stats["goroutines"], sum);
    assert_eq!((&stats["gc_phase"], stats["threads"].as_u64() >= Some(3)), (&"off".into(), true));
    assert!(stats["system_goroutines"].as_u64().unwrap() >= 4 && stats["idle_ps"].is_u64(), "{stats}");

    let (heap, _) = looked.probe(&["heap", "--top", "3", "--max-pause", "10s"]);
    assert_eq!((&heap["consistency"], &heap["adds_up"]), (&"instant".into(), &true.into()));
    assert_eq!(heap["heap"]["objects"], heap["heap"]["counted_objects"]);
    let creators = heap["stacks"]["by_creator"].as_array().unwrap();
    assert_eq!((&creators[0]["goroutines"], &creators[0]["created_by"]), (&300.into(), &"main.main".into()));
    assert!(creators[0]["created_at"].as_str().unwrap().contains("cmd/memory/main.go:"), "{heap}");
    assert_eq!(heap["large"]["largest"].as_array().unwrap().len(), 3);
    let (heap, stderr) = looked.probe(&["heap", "--max-pause", "1us"]);
    assert_eq!((&heap["consistency"], &heap["too_large_to_stop"]), (&"approximate".into(), &true.into()));
    assert!(stderr.contains("--max-pause"), "{stderr}");
    looked.fixture.assert_untouched().unwrap();
}

#[test]
fn without_a_stop_under_load() {
    let mut looked = Looked::start(&newest(), &[], &[]);
    looked.fixture.order("busy 4").unwrap();
    for _ in 0..30 {
        let taken = looked.take(Wanted::Approximate);
        assert_eq!((taken.consistency, taken.stops), (Consistency::Approximate, 0));
        let stats = &taken.answer.memstats;
        assert!(!taken.answer.generation_changed && stats.alloc.unwrap() < 1 << 30, "{stats:?}");
        let at_once = looked.take(Wanted::Instant);
        assert!(matches!(at_once.consistency, Consistency::Instant | Consistency::InstantInChange));
        let later = &at_once.answer.memstats;
        // Spans that change their owner meanwhile count twice or not at all.
        let before = stats.total_alloc.unwrap();
        assert!(later.total_alloc.unwrap() >= before - before / 20, "{before} {:?}", later.total_alloc);
        let heap = heap::take(&looked.process, &looked.view, &looked.sources(), HeapPause::No, 3).unwrap();
        assert!(heap.answer.spans.objects() > 0);
    }
    looked.fixture.order("calm").unwrap();
    looked.fixture.assert_untouched().unwrap();
}
