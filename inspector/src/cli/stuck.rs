//! When a dump is taken: at once, after a time, or once the program does not get any further.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::args::Common;
use super::interrupt::Interrupt;
use super::style::Style;
use crate::process::{Process, find};
use crate::runtime::open::open;
use crate::runtime::progress::Progress;
use crate::runtime::snapshot::{self, Options, Pause};
use crate::runtime::view::View;
use crate::{Error, Kind};

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
pub(super) fn wait(process: &Process, time: Duration, interrupt: &Interrupt) -> Result<(), Error> {
    let begun = Instant::now();
    while let Some(rest) = time.checked_sub(begun.elapsed()).filter(|rest| !rest.is_zero()) {
        if interrupt.is_pending() {
            return Err(Error::Interrupted);
        }
        process.check()?;
        std::thread::sleep(rest.min(Duration::from_millis(50)));
    }
    process.check()?;
    Ok(())
}

/// Waits until no goroutine of the main module has moved for `time`.
///
/// # Errors
/// That the process has ended before; that somebody interrupts; those of looking at its goroutines.
pub(super) fn wait_until_stuck(
    process: &Process,
    time: Duration,
    interrupt: &Interrupt,
    common: &Common,
) -> Result<(), Error> {
    if std::io::stderr().is_terminal() {
        let style = Style::for_stderr(common.color);
        // A hint that cannot be written is no failure of the answer.
        let _ = writeln!(
            std::io::stderr().lock(),
            "{} waiting until nothing of {} has moved for {} s",
            style.hint("hint:"),
            process.pid(),
            time.as_secs_f64()
        );
    }
    let program = find::one(process)?.program;
    let module = program.build_info.as_ref().and_then(|info| info.main.as_ref());
    let mut progress = Progress::of(module.map(|module| module.path.as_str()));
    let (shortest, longest) = LOOKS;
    let apart = (time / LOOKS_IN_TIME).clamp(shortest, longest);
    // What was found out about the program holds until it executes another one, which ends the wait.
    let view = open_once_it_runs(process, interrupt)?;
    let mut still_since = Instant::now();
    loop {
        let looked = Instant::now();
        let options = Options { pause: Pause::No, system: false, goid: None };
        match snapshot::take(&view, &options).map_err(|e| super::stack::explain(process, e)) {
            Ok(taken) if progress.has_moved(&view, &taken) => still_since = looked,
            Ok(_) if still_since.elapsed() >= time => return Ok(()),
            Ok(_) => {}
            // A thread that could not be stopped this time says nothing of the goroutines.
            Err(error) if error.kind() == Kind::Failed => {}
            Err(error) => return Err(error),
        }
        wait(process, apart.max(looked.elapsed() * MOST), interrupt)?;
    }
}

/// Attaches to the runtime; in a process that has just begun, once its runtime has.
fn open_once_it_runs(process: &Process, interrupt: &Interrupt) -> Result<View, Error> {
    let begun = Instant::now();
    loop {
        match open(process) {
            Err(Error::Uncalibrated { .. }) if begun.elapsed() < START => wait(process, LOOKS.0, interrupt)?,
            opened => return Ok(opened?.0),
        }
    }
}
