//! Programs that others wrote, most of them built and stripped by others too: listed, told their version, dumped, and
//! compared with what they say about their goroutines themselves, by HTTP and when a signal kills them.
//!
//! Results are recorded; `fixtures table-real` makes `docs/real-programs.md` of them.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;

use fixtures::real::{self, Installed, PROGRAMS, Program, Recipes, Record, Server};
use fixtures::repetition::say;
use fixtures::{Comparison, compare, probe, quit, stack};
use serde_json::Value;
use symbols::globals::{self, VARIABLES, Verdict};
use symbols::image::Image;
use symbols::pclntab::Pclntab;
use symbols::version::GoVersion;
use symbols::{buildinfo, moduledata};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// How often a comparison is made again: other people's programs have work of their own to do.
const ATTEMPTS: usize = 5;

/// How often a metric is read.
const QUESTIONS: usize = 20;

/// What has to be there for the test to say anything, wherever it runs.
const LEAST_PROGRAMS: usize = 6;
const LEAST_MINORS: usize = 4;

#[test]
fn real_programs_say_from_outside_what_they_say_themselves() {
    let (mut records, mut failures) = (Vec::new(), Vec::new());
    let mut prebuilt_and_stripped = 0;
    for program in PROGRAMS {
        let installed = match real::fetch(program) {
            Ok(installed) => installed,
            Err(error) => {
                say(&format!("{}: NOT RUN, it cannot be fetched: {error}", program.name));
                continue;
            }
        };
        match examine(program, &installed) {
            Ok(record) => {
                println!("{record:?}");
                real::append(&record).unwrap();
                prebuilt_and_stripped += usize::from(program.is_prebuilt() && record.stripped);
                records.push(record);
            }
            Err(error) => failures.push(format!("{}: {error}", program.name)),
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n\n"));
    let minors: BTreeSet<&str> = records.iter().filter_map(|record| record.go.split('.').nth(1)).collect();
    assert!(records.len() >= LEAST_PROGRAMS, "only {} programs ran", records.len());
    assert!(minors.len() >= LEAST_MINORS, "only {minors:?}");
    assert!(prebuilt_and_stripped > 0);
    assert!(records.iter().any(|record| record.reported.is_some()));
    assert!(records.iter().any(|record| record.recipes.is_some()));
}

fn examine(program: &Program, installed: &Installed) -> Outcome<Record> {
    let go = Expected::of(&installed.executable)?;
    let mut server = Server::start(program, installed)?;
    is_listed(&server, installed, &go)?;
    let (ours, reported) = counts(program, &mut server)?;
    let metric = metric(program, &server, ours)?;
    server.assert_untouched()?;
    remembers(program, &server, ours)?;
    profiles(&server, &go)?;
    server.assert_untouched()?;
    collects(&server)?;
    server.assert_untouched()?;
    let killed = against_its_end(program, installed, server)?;
    let size = std::fs::metadata(&installed.executable)?.len();
    let recipes = recipes(&installed.executable)?;
    Ok(Record {
        program: program.name.to_owned(),
        published: installed.published.clone(),
        go: go.in_words(),
        stripped: recipes.is_none(),
        size,
        identical: killed.equal,
        total: killed.total(),
        ours,
        reported,
        metric,
        recipes,
    })
}

/// What built a program, by the tools of Go and the bytes of the file.
struct Expected {
    /// `go1.19.8`
    version: String,
    build_info: bool,
}

impl Expected {
    fn of(executable: &Path) -> Outcome<Self> {
        let output = std::process::Command::new("go").arg("version").arg(executable).output()?;
        let text = String::from_utf8(output.stdout)?;
        if let Some((_, version)) = text.trim().rsplit_once(": ") {
            return Ok(Self { version: version.to_owned(), build_info: true });
        }
        // Without build info there is still what `runtime.Version` returns, somewhere.
        let bytes = std::fs::read(executable)?;
        let versions: BTreeSet<String> = bytes
            .windows(8)
            .filter(|text| text.starts_with(b"go1.") && text[4..6].iter().all(u8::is_ascii_digit))
            .filter(|text| text[6] == b'.' && text[7].is_ascii_digit())
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect();
        let mut versions = versions.into_iter();
        match (versions.next(), versions.next()) {
            (Some(version), None) => Ok(Self { version, build_info: false }),
            (first, more) => Err(format!("what built it is not clear: {first:?}, {more:?}").into()),
        }
    }

    fn minor(&self) -> Outcome<u64> {
        Ok(self.version.split('.').nth(1).ok_or("no minor version")?.parse()?)
    }

    fn in_words(&self) -> String {
        let version = self.version.trim_start_matches("go");
        match self.build_info {
            true => version.to_owned(),
            false => format!("{version}, without build info"),
        }
    }

    /// Holds an answer about the process against it.
    fn check(&self, answer: &Value) -> Outcome {
        let right = match answer.get("version") {
            Some(version) => *version == *self.version,
            None => {
                !self.build_info
                    && answer["oldest_minor"] == self.minor()?
                    && answer["newest_minor"] == self.minor()?
            }
        };
        ensure(right, || format!("not {}: {answer}", self.version))
    }
}

/// `list` has it, and `version` says what it is.
fn is_listed(server: &Server, installed: &Installed, go: &Expected) -> Outcome {
    let pid = server.pid();
    let path = std::fs::canonicalize(&installed.executable)?;
    let list = answer(&["list", "--json"])?;
    let entries = list["processes"].as_array().ok_or("no processes")?;
    let entry = entries.iter().find(|entry| entry["pid"] == pid).ok_or("it is not listed")?;
    let version = answer(&["version", "--json", &pid.to_string()])?;
    for answer in [entry, &version] {
        go.check(answer)?;
        ensure(answer["path"].as_str().map(Path::new) == Some(&*path), || format!("other path: {answer}"))?;
    }
    ensure(version.get("build_info").is_some() == go.build_info, || format!("build info: {version}"))
}

fn answer(arguments: &[&str]) -> Outcome<Value> {
    let output = probe(arguments)?;
    ensure(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Its statistics lie between two reports of its own, or make sense together where it has none.
fn remembers(program: &Program, server: &Server, goroutines: usize) -> Outcome {
    /// Objects in caches of processors, which its metrics may leave out.
    const IN_CACHES: u64 = 100_000;
    let pid = server.pid().to_string();
    let reported = || -> Outcome<Option<u64>> {
        let Some(path) = program.metrics else { return Ok(None) };
        Ok(Some(u64::try_from(server.metric(path, "go_memstats_mallocs_total")?)?))
    };
    let before = reported()?;
    let said = answer(&["memstats", "--via", "probe", "--json", &pid])?;
    let after = reported()?;
    let number = |name: &str| said["memstats"][name].as_u64().ok_or_else(|| format!("no {name}: {said}"));
    ensure(said["consistency"] == "instant" || said["consistency"] == "instant-in-change", || {
        said.to_string()
    })?;
    let (mallocs, frees) = (number("Mallocs")?, number("Frees")?);
    ensure(number("HeapObjects")? == mallocs - frees, || format!("objects: {said}"))?;
    ensure(number("HeapAlloc")? <= number("HeapSys")? && number("HeapSys")? <= number("Sys")?, || {
        format!("sizes: {said}")
    })?;
    if let (Some(before), Some(after)) = (before, after) {
        ensure((before..=after + IN_CACHES).contains(&mallocs), || {
            format!("{mallocs} allocations, it reports {before} and {after}")
        })?;
    }
    let stats = answer(&["stats", "--via", "probe", "--json", &pid])?;
    let found = stats["goroutines"].as_u64().ok_or_else(|| format!("no goroutines: {stats}"))?;
    ensure(found.abs_diff(goroutines as u64) <= 4, || format!("{goroutines} goroutines in a dump: {stats}"))?;
    let heap = answer(&["heap", "--json", &pid])?;
    let approximate = heap["consistency"] == "approximate";
    ensure(approximate || heap["adds_up"] == true, || format!("heap: {}", heap["heap"]))?;
    ensure(heap["heap"]["objects"].as_u64().is_some_and(|objects| objects > 0), || {
        format!("heap: {}", heap["heap"])
    })
}

/// Its heap profile, for which the profiler is switched on where the linker left it out.
fn profiles(server: &Server, go: &Expected) -> Outcome {
    let pid = server.pid().to_string();
    let plain = ["pprof-heap", "--via", "probe", "--format", "json", &pid];
    let output = probe(&plain)?;
    if output.status.success() {
        let profile: Value = serde_json::from_slice(&output.stdout)?;
        return ensure(profile["samples"].as_array().is_some_and(|s| !s.is_empty()), || profile.to_string());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure(text.contains("profiler of process") && text.contains("is off"), || text)?;
    let enable = ["pprof-heap", "--enable=4KiB", "--duration", "300ms", "--format", "json", &pid];
    let output = probe(&enable)?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !go.build_info {
        return ensure(output.status.code() == Some(6), || format!("--enable: {text}"));
    }
    ensure(output.status.success(), || format!("--enable: {text}"))?;
    let profile: Value = serde_json::from_slice(&output.stdout)?;
    ensure(profile["cost"]["bytes_written"] == 16 && profile["duration_ns"].as_u64() > Some(0), || {
        format!("--enable: {}", profile["cost"])
    })?;
    // What is left of the window is of before; the profiler is off again.
    let output = probe(&plain)?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure(text.contains("is off"), || format!("after --enable: {text}"))
}

/// It collects when it is told to, and GOGC is set and set back; also without build info, as the runtime has its version too.
fn collects(server: &Server) -> Outcome {
    let pid = server.pid().to_string();
    let cycle = || -> Outcome<u64> {
        let said = answer(&["gc", "--via", "probe", "--json", &pid])?;
        Ok(said["cycle"].as_u64().ok_or("no cycle")?)
    };
    let (first, second) = (cycle()?, cycle()?);
    ensure(second > first, || format!("collections {first} and {second}"))?;
    let set = |percent: i64| -> Outcome<i64> {
        let percent = if percent < 0 { "off".to_owned() } else { percent.to_string() };
        let said = answer(&["setgc", "--via", "probe", "--json", &pid, &percent])?;
        Ok(said["previous_percent"].as_i64().ok_or("no percentage")?)
    };
    let before = set(150)?;
    ensure(set(before)? == 150 && set(before)? == before, || format!("GOGC was {before}"))
}

/// How many goroutines we find, and how many it reports: all of them, and those that are there for the report alone.
///
/// Reports before and after our dump have to agree with each other, else it is made again.
fn counts(program: &Program, server: &mut Server) -> Outcome<(usize, Option<(usize, usize)>)> {
    if !program.profile {
        let found = stack(server.pid(), &[])?.goroutines.len();
        server.assert_untouched()?;
        return Ok((found, None));
    }
    let mut problem = String::new();
    for _ in 0..ATTEMPTS {
        let before = server.report()?;
        let found = stack(server.pid(), &[])?;
        let after = server.report()?;
        server.assert_untouched()?;
        let ours = found.goroutines.len();
        let comparison = compare(&before.dump, &found, &after.dump, before.dumper);
        let same = comparison.accepted() && comparison.moved.is_empty();
        if same && [&before, &after].iter().all(|report| report.dump.goroutines.len() == ours) {
            return Ok((ours, Some((before.total, before.total - before.dump.goroutines.len()))));
        }
        problem = format!("{} and {} reported, {ours} found: {comparison:#?}", before.total, after.total);
    }
    Err(problem.into())
}

/// The metric `go_goroutines`, the least of some: it is taken amid the goroutines that a request for it starts.
fn metric(program: &Program, server: &Server, ours: usize) -> Outcome<Option<usize>> {
    let Some(path) = program.metrics else { return Ok(None) };
    let values =
        (0..QUESTIONS).map(|_| server.metric(path, "go_goroutines")).collect::<Result<Vec<usize>, _>>()?;
    let least = values.iter().copied().min().unwrap_or(0);
    // The one that reads the connection, and, where they have not ended yet, the one that waits for the collectors and
    // the two that collect first.
    ensure((ours + 1..=ours + 4).contains(&least), || format!("{ours} found, go_goroutines: {values:?}"))?;
    Ok(Some(least))
}

/// Two dumps of ours, then the runtime's own when the program is killed.
fn against_its_end(program: &Program, installed: &Installed, server: Server) -> Outcome<Comparison> {
    let mut comparison = killed(program, server)?;
    for _ in 1..ATTEMPTS {
        // What woke between our second dump and the signal does not the next time.
        if comparison.different.is_empty() {
            break;
        }
        comparison = killed(program, Server::start(program, installed)?)?;
    }
    let enough = comparison.accepted() && comparison.equal * 4 >= comparison.total() * 3;
    ensure(enough, || format!("{comparison:#?}"))?;
    Ok(comparison)
}

fn killed(program: &Program, mut server: Server) -> Outcome<Comparison> {
    let first = stack(server.pid(), &["--all"])?;
    server.assert_untouched()?;
    // The last thing before the signal, so that nothing else is a reason to move.
    let second = stack(server.pid(), &["--all"])?;
    server.process().assert_untraced()?;
    let text = server.process().dump_by(program.signal)?;
    Ok(quit::compare(&first, &second, &quit::parse(&text)))
}

/// What recipes find without the symbol table, against it; `None` where there is none.
fn recipes(executable: &Path) -> Outcome<Option<Recipes>> {
    let image = Image::parse(Box::new(std::fs::read(executable)?))?;
    let truth = globals::from_symtab(&image, VARIABLES);
    if truth.iter().next().is_none() {
        return Ok(None);
    }
    let info = buildinfo::find(&image).ok_or("no build info")?;
    let version = GoVersion::parse(&info.version).ok_or("no version")?;
    let (header, module) = moduledata::find(&image, Some(&version)).ok_or("no moduledata")?;
    let pclntab = Pclntab::load(&image, &header, &module)?;
    let found = globals::solve(&image, &pclntab, &version, VARIABLES);
    let verdict = Verdict::new(&truth, &found, false);
    ensure(verdict.wrong.is_empty() && verdict.right > verdict.none.len(), || format!("{verdict:?}"))?;
    let (right, none) = (verdict.right, verdict.none.len());
    Ok(Some(Recipes { right, wrong: verdict.wrong.len(), none }))
}

fn ensure(right: bool, problem: impl FnOnce() -> String) -> Outcome {
    if right { Ok(()) } else { Err(problem().into()) }
}
