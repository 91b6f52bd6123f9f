//! When a dump is taken: at once, after a time, or once the program does not get any further.

use std::time::{Duration, Instant};

use super::Interrupted;
use super::error::snapshot_error;
use crate::process::find::{self, GoProcess};
use crate::process::{self, Process};
use crate::runtime::open::{OpenError, Opened, RuntimeName, open_all, open_chosen};
use crate::runtime::progress::Progress;
use crate::runtime::snapshot::{self, Pause, SnapshotOptions};
use crate::{Error, ErrorKind};

/// The shortest and the longest time between two looks.
const LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// So many looks at least fall into the time in which nothing may move.
const LOOKS_IN_TIME: u32 = 10;
/// The runtime of a process that has begun is there by then.
const START: Duration = Duration::from_secs(10);
/// Looking takes no more than this part of the time.
const MOST: u32 = 20;

/// Waits for `time`, or until the process ends.
///
/// # Errors
/// That the process has ended; that somebody interrupts.
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

/// Waits until no goroutine of the main module has moved for `time`: of the runtime that was chosen, or of none that the process has.
///
/// # Errors
/// That the process has ended before; that somebody interrupts; those of looking at its goroutines.
pub(crate) fn wait_until_stuck(
    process: &Process,
    chosen: Option<&str>,
    time: Duration,
    interrupted: Interrupted<'_>,
) -> Result<(), Error> {
    let (shortest, longest) = LOOKS;
    let apart = (time / LOOKS_IN_TIME).clamp(shortest, longest);
    let found = find::one(process)?;
    // What was found out about the program holds until it executes another one, which ends the wait.
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
                // A thread that could not be stopped this time says nothing of the goroutines.
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

/// The module whose goroutines have to move: that of the program, or of the library, that has the runtime.
fn main_module<'f>(found: &'f GoProcess, runtime: &RuntimeName) -> Option<&'f str> {
    let is_its = |path: &[u8]| String::from_utf8_lossy(path) == runtime.module.as_str();
    let other = found.other_runtimes.iter().find(|other| is_its(&other.module));
    let program = other.map_or(&found.program, |other| &other.program);
    let info = program.build_info.as_ref()?;
    info.main.as_ref().map(|module| module.path.as_str())
}

/// Attaches to the runtime, or to each; in a process that has just begun, once its runtime has.
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
