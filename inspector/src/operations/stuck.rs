//! Time of a dump: at once, after a delay, or once the program makes no progress.

use std::time::{Duration, Instant};

use super::Interrupted;
use super::error::snapshot_error;
use crate::process::find::{self, GoProcess};
use crate::process::{self, Process};
use crate::runtime::open::{OpenError, Opened, RuntimeName, open_all, open_chosen};
use crate::runtime::progress::Progress;
use crate::runtime::snapshot::{self, Pause, SnapshotOptions};
use crate::{Error, ErrorKind};

/// Minimum and maximum time between two looks.
const LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Minimum number of looks within the time in which nothing may move.
const LOOKS_IN_TIME: u32 = 10;
/// Maximum time until the runtime of a new process can be read.
const START: Duration = Duration::from_secs(10);
/// Minimum ratio of the time between two looks to the time that a look takes.
const MOST: u32 = 20;

/// Waits for `time`, or until the process ends.
///
/// # Errors
/// Returns an error if the process has ended, and [`Error::Interrupted`] if `interrupted` returns true.
pub(crate) fn wait(process: &Process, time: Duration, interrupted: Interrupted<'_>) -> Result<(), Error> {
    let begun = Instant::now();
    while let Some(rest) = time.checked_sub(begun.elapsed()).filter(|rest| !rest.is_zero()) {
        if interrupted() {
            return Err(Error::Interrupted);
        }
        process.check()?;
        std::thread::sleep(rest.min(Duration::from_millis(50)));
    }
    process.check()?;
    Ok(())
}

/// Waits until no goroutine of the main module has moved for `time`. Watches the chosen runtime, or all of
/// them.
///
/// # Errors
/// Returns an error if the process has ended before or its goroutines cannot be read, and
/// [`Error::Interrupted`] if `interrupted` returns true.
pub(crate) fn wait_until_stuck(
    process: &Process,
    chosen: Option<&str>,
    time: Duration,
    interrupted: Interrupted<'_>,
) -> Result<(), Error> {
    let (shortest, longest) = LOOKS;
    let apart = (time / LOOKS_IN_TIME).clamp(shortest, longest);
    let found = find::one(process)?;
    // Facts about the program hold until it executes another one, which ends the wait.
    let runtimes = open_once_it_runs(process, chosen, interrupted)?;
    let watch = |opened: Opened| {
        let progress = Progress::of(main_module(&found, &opened.name));
        (opened.view, progress)
    };
    let mut watched: Vec<_> = runtimes.into_iter().map(watch).collect();
    let mut still_since = Instant::now();
    loop {
        let looked = Instant::now();
        let options = SnapshotOptions { pause: Pause::No, system: false, goid: None };
        let (mut moved, mut unseen) = (false, false);
        for (view, progress) in &mut watched {
            match snapshot::take(process, view, &options).map_err(|e| snapshot_error(process, e)) {
                Ok(taken) => moved |= progress.has_moved(view, &taken),
                // A thread that could not be stopped this time says nothing about the goroutines.
                Err(error) if error.kind() == ErrorKind::Failed => unseen = true,
                Err(error) => return Err(error),
            }
        }
        if moved {
            still_since = looked;
        } else if !unseen && still_since.elapsed() >= time {
            return Ok(());
        }
        wait(process, apart.max(looked.elapsed() * MOST), interrupted)?;
    }
}

/// Returns the module whose goroutines have to move: that of the program or of the library with the runtime.
fn main_module<'f>(found: &'f GoProcess, runtime: &RuntimeName) -> Option<&'f str> {
    let is_its = |path: &[u8]| String::from_utf8_lossy(path) == runtime.module.as_str();
    let other = found.other_runtimes.iter().find(|other| is_its(&other.module));
    let program = other.map_or(&found.program, |other| &other.program);
    let info = program.build_info.as_ref()?;
    info.main.as_ref().map(|module| module.path.as_str())
}

/// Attaches to the chosen runtime, or to all. In a new process, waits until the runtime has started.
fn open_once_it_runs(
    process: &Process,
    chosen: Option<&str>,
    interrupted: Interrupted<'_>,
) -> Result<Vec<Opened>, Error> {
    let begun = Instant::now();
    loop {
        let opened = match chosen {
            None => open_all(process).map(|runtimes| runtimes.opened),
            Some(_) => open_chosen(process, chosen).map(|opened| vec![opened]),
        };
        match opened {
            Err(OpenError::Attach { .. } | OpenError::Process(process::Error::Memory { .. }))
                if begun.elapsed() < START =>
            {
                wait(process, LOOKS.0, interrupted)?;
            }
            opened => return Ok(opened?),
        }
    }
}
