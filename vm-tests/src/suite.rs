//! Runs the sub-tests on each kernel and judges what they said.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::boot::{Console, boot};
use crate::error::{Error, Result};
use crate::guest::{DONE, ONLY, SubTest, selected};
use crate::image;
use crate::kernel::{self, Kernel};
use crate::needs::Need;
use crate::outcome::{Outcome, Verdict};
use crate::programs::{self, Program};

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where kernels, static programs and consoles are kept.
    pub folder: PathBuf,
    /// Series of the distribution's kernels (`6.1`).
    pub series: Vec<String>,
    /// Further kernel images.
    pub kernels: Vec<PathBuf>,
    /// How long a machine may run.
    pub limit: Duration,
    /// Names of sub-tests, separated by commas, where not all are wanted.
    pub only: Option<String>,
}

impl Options {
    /// As the environment says: `GOPS_PROBE_VM_SERIES` (separated by commas, `6.1,6.12` by default),
    /// `GOPS_PROBE_VM_KERNELS` (paths, separated by colons), `GOPS_PROBE_VM_LIMIT` (seconds, 900 by default),
    /// `GOPS_PROBE_VM_ONLY` (names of sub-tests, separated by commas).
    #[must_use]
    pub fn from_environment(folder: PathBuf) -> Self {
        let series = std::env::var("GOPS_PROBE_VM_SERIES");
        let series = series.unwrap_or_else(|_| kernel::SERIES.join(","));
        let kernels = std::env::var_os("GOPS_PROBE_VM_KERNELS").unwrap_or_default();
        let limit = std::env::var("GOPS_PROBE_VM_LIMIT").ok().and_then(|text| text.parse().ok());
        Self {
            folder,
            series: series.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            kernels: std::env::split_paths(&kernels).filter(|path| !path.as_os_str().is_empty()).collect(),
            limit: Duration::from_secs(limit.unwrap_or(900)),
            only: std::env::var(ONLY).ok(),
        }
    }
}

/// What one kernel came to.
#[derive(Debug)]
pub struct Run {
    /// The kernel.
    pub kernel: String,
    /// Whether it is the one of this machine, without an emulator.
    pub host: bool,
    /// The series of the distribution's that it is the newest of.
    pub series: Option<String>,
    /// From the emulator's start to the runner's.
    pub boot: Option<Duration>,
    /// All of it.
    pub total: Duration,
    /// One for each sub-test, in their order.
    pub outcomes: Vec<Outcome>,
    /// With which capabilities commands worked.
    pub needs: Vec<Need>,
    /// What was wrong; empty where all is well.
    pub failures: Vec<String>,
}

/// What preparing took, and the runs.
#[derive(Debug)]
pub struct Report {
    /// Building programs and getting kernels.
    pub prepared: Duration,
    /// All sub-tests ran on all kernels that are always tested.
    pub whole: bool,
    /// This machine first.
    pub runs: Vec<Run>,
}

/// Runs everything; `progress` is told each result of a kernel when it is there.
///
/// # Errors
/// Where a machine cannot be prepared: a kernel cannot be had, a program cannot be built, there is no emulator.
pub fn run(options: &Options, progress: Progress<'_>) -> Result<Report> {
    let begin = Instant::now();
    fs::create_dir_all(&options.folder).map_err(Error::file(&options.folder))?;
    let mut kernels = Vec::new();
    for series in &options.series {
        kernels.push(kernel::of_series(series, &options.folder.join("kernels"))?);
    }
    kernels.extend(options.kernels.iter().map(|path| kernel::at(path)));
    let programs = programs::build(&options.folder.join("build"))?;
    let image = options.folder.join("initramfs.cpio");
    image::write(&programs, &image)?;
    let prepared = begin.elapsed();
    // First alone, then all machines at once: each has about one thread's work at a time.
    let mut runs = vec![on_host(&programs, options, progress)?];
    let machines: Vec<Result<Run>> = std::thread::scope(|scope| {
        let image = &image;
        let start = |kernel| scope.spawn(move || in_machine(kernel, image, options, progress));
        let machines: Vec<_> = kernels.iter().map(start).collect();
        let joined = machines.into_iter().map(|machine| machine.join());
        joined.map(|run| run.unwrap_or(Err(Error::Panicked))).collect()
    });
    for run in machines {
        runs.push(run?);
    }
    let whole =
        options.only.is_none() && kernel::SERIES.iter().all(|&name| options.series.iter().any(|s| s == name));
    Ok(Report { prepared, whole, runs })
}

/// Told the kernel and a result.
pub type Progress<'a> = &'a (dyn Fn(&str, &Outcome) + Sync);

fn in_machine(kernel: &Kernel, image: &Path, options: &Options, progress: Progress<'_>) -> Result<Run> {
    let said = |line: &str| Outcome::parse(line).iter().for_each(|outcome| progress(&kernel.name, outcome));
    let console = boot(&kernel.image, image, options.limit, options.only.as_deref(), &said)?;
    let log = options.folder.join(format!("console-{}.log", kernel.name));
    fs::write(&log, console.lines.join("\n")).map_err(Error::file(&log))?;
    let mut run = judge(&console, &selected(options.only.as_deref()), kernel.series.is_some());
    run.kernel.clone_from(&kernel.name);
    run.series.clone_from(&kernel.series);
    if !run.failures.is_empty() {
        let tail = console.lines.len().saturating_sub(20);
        run.failures.push(format!("the end of its console:\n{}", console.lines[tail..].join("\n")));
    }
    Ok(run)
}

/// Runs the runner beside copies of the programs, where any user may execute them.
fn on_host(programs: &[Program], options: &Options, progress: Progress<'_>) -> Result<Run> {
    let public = fs::Permissions::from_mode(0o755);
    let root = tempfile::Builder::new().permissions(public.clone()).tempdir();
    let root = root.map_err(Error::file(Path::new("temporary folder")))?;
    for program in programs {
        let path = root.path().join(&program.name);
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != root.path()) {
            fs::create_dir_all(folder).map_err(Error::file(folder))?;
            fs::set_permissions(folder, public.clone()).map_err(Error::file(folder))?;
        }
        fs::copy(&program.path, &path).map_err(Error::file(&program.path))?;
        fs::set_permissions(&path, public.clone()).map_err(Error::file(&path))?;
    }
    let runner = root.path().join("bin/vm-runner");
    let log = options.folder.join("console-host.log");
    let begin = Instant::now();
    let mut child = Command::new(&runner)
        .arg("host")
        .arg(root.path())
        .envs(options.only.iter().map(|names| (ONLY, names)))
        .stdin(Stdio::null())
        .stdout(fs::File::create(&log).map_err(Error::file(&log))?)
        .spawn()
        .map_err(|source| Error::Start { program: runner.display().to_string(), source, hint: "" })?;
    let mut problem = None;
    let status = loop {
        match child.try_wait() {
            Ok(None) if begin.elapsed() < options.limit => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => {
                let _ = child.kill();
                problem = Some(format!("it was not done after {:?}", options.limit));
            }
            other => break other,
        }
    };
    let text = fs::read_to_string(&log).map_err(Error::file(&log))?;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if problem.is_none() && !lines.iter().any(|line| line.contains(DONE)) {
        problem = Some(format!("it ended before the sub-tests did: {status:?}"));
    }
    let wanted = selected(options.only.as_deref());
    let mut run = judge(&Console { lines, boot: None, total: begin.elapsed(), problem }, &wanted, false);
    run.host = true;
    run.kernel = fixtures::machine::kernel();
    run.outcomes.iter().for_each(|outcome| progress(&run.kernel, outcome));
    Ok(run)
}

/// Holds what a console says against the list of sub-tests.
fn judge(console: &Console, wanted: &[&SubTest], complete: bool) -> Run {
    let said: Vec<Outcome> = console.lines.iter().filter_map(|line| Outcome::parse(line)).collect();
    let mut failures: Vec<String> = console.problem.iter().cloned().collect();
    let mut outcomes = Vec::new();
    for subtest in wanted {
        let mut lines = said.iter().filter(|outcome| outcome.name == subtest.name);
        let outcome = match (lines.next(), lines.next()) {
            (Some(outcome), None) => outcome.clone(),
            (first, _) => Outcome {
                name: subtest.name.to_owned(),
                verdict: Verdict::Fail,
                detail: if first.is_some() { "two results" } else { "no result" }.to_owned(),
            },
        };
        if outcome.verdict == Verdict::Fail || (complete && outcome.verdict == Verdict::Skip) {
            failures.push(outcome.to_string());
        }
        outcomes.push(outcome);
    }
    for outcome in said {
        if !wanted.iter().any(|subtest| subtest.name == outcome.name) {
            failures.push(format!("not a sub-test that is known: {outcome}"));
        }
    }
    Run {
        kernel: String::new(),
        host: false,
        series: None,
        boot: console.boot,
        total: console.total,
        outcomes,
        needs: console.lines.iter().filter_map(|line| Need::parse(line)).collect(),
        failures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::SUBTESTS;

    fn console(lines: &[String]) -> Console {
        Console { lines: lines.to_vec(), ..Console::default() }
    }

    fn all(verdict: Verdict) -> Vec<String> {
        let outcome = |name: &str| Outcome { name: name.to_owned(), verdict, detail: "x".to_owned() };
        SUBTESTS.iter().map(|subtest| outcome(subtest.name).to_string()).collect()
    }

    #[test]
    fn each_line_has_to_be_there_once() {
        let lines = all(Verdict::Pass);
        assert!(judge(&console(&lines), &selected(None), true).failures.is_empty());
        for n in 0..lines.len() {
            let mut fewer = lines.clone();
            let removed = fewer.remove(n);
            let run = judge(&console(&fewer), &selected(None), false);
            assert_eq!(run.failures.len(), 1, "{removed}");
            assert_eq!(run.outcomes[n].verdict, Verdict::Fail);
            fewer.extend([removed.clone(), removed]);
            assert_eq!(judge(&console(&fewer), &selected(None), false).failures.len(), 1);
        }
        let mut more = lines;
        more.push("RESULT surprise pass".to_owned());
        assert_eq!(judge(&console(&more), &selected(None), true).failures.len(), 1);
    }

    #[test]
    fn only_known_kernels_may_not_skip() {
        let lines = all(Verdict::Skip);
        assert!(judge(&console(&lines), &selected(None), false).failures.is_empty());
        assert_eq!(judge(&console(&lines), &selected(None), true).failures.len(), SUBTESTS.len());
        assert_eq!(
            judge(&console(&all(Verdict::Fail)), &selected(None), false).failures.len(),
            SUBTESTS.len()
        );
    }
}
