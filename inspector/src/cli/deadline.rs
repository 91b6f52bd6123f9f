//! Time limit of commands. Data of others (memory that somebody serves page by page, files on servers) may
//! never arrive, and a thread that waits for it hears no signal. Another thread watches, and ends the
//! program. The end releases everything that we hold of a process, and the guard restores changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::args::Common;
use super::command::Patience;
use super::interrupt;
use crate::error::ErrorKind;
use crate::patience::{self, What};
use crate::{Error, threads};

/// Time between two checks.
const TICK: Duration = Duration::from_millis(50);
/// Waiting time after which an interrupt ends the program at once, without an orderly end.
const STUCK: Duration = Duration::from_secs(1);

static WATCHED: AtomicBool = AtomicBool::new(false);

/// Returns true if another thread ends the program when a call does not return. Without it, no signal may be
/// caught.
pub(super) fn is_watched() -> bool {
    WATCHED.load(Ordering::Relaxed)
}

/// Watches over a command from now on, if a thread can be started.
pub(super) fn watch(patience: Patience, common: &Common) {
    let limit = match patience {
        Patience::Unwatched => return,
        Patience::Endless => None,
        Patience::Limited(limit) => Some(limit),
    };
    let common = common.clone();
    let watching = threads::start("watch", move || {
        loop {
            std::thread::sleep(TICK);
            let Some((error, kind)) = verdict(limit, interrupt::is_pending(), patience::so_far()) else {
                continue;
            };
            super::report(&error, None, &common);
            std::process::exit(kind.exit_code().into());
        }
    });
    WATCHED.store(watching.is_ok(), Ordering::Relaxed);
    if let (Err(_), Some(limit)) = (&watching, limit) {
        patience::watch_alone(limit);
    }
}

/// Returns the error to end with. `None` while the command may go on.
fn verdict(
    limit: Option<Duration>,
    interrupted: bool,
    (before, now): (Duration, Option<(What, Duration)>),
) -> Option<(Error, ErrorKind)> {
    let (what, waited) = now?;
    if interrupted && waited >= STUCK {
        return Some((Error::Failed(format!("interrupted while waiting {what}")), ErrorKind::Interrupted));
    }
    let limit = limit.filter(|&limit| before + waited >= limit)?;
    let text = format!(
        "no answer within {}: still waiting {what}",
        humantime::format_duration(Duration::from_millis(
            u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
        ))
    );
    Some((Error::Failed(text), ErrorKind::Failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_ends_a_command() {
        let what = What::Proc(7, "read the environment");
        let second = Duration::from_secs(1);
        let says = |limit, interrupted, before, now: Option<Duration>| {
            verdict(limit, interrupted, (before, now.map(|now| (what, now))))
                .map(|(error, kind)| (error.to_string(), kind.exit_code()))
        };
        assert_eq!(says(Some(second), true, 9 * second, None), None);
        assert_eq!(says(Some(9 * second), false, 7 * second, Some(second)), None);
        assert_eq!(says(None, false, 700 * second, Some(700 * second)), None);
        let text = "no answer within 9s: still waiting to read the environment of process 7";
        assert_eq!(says(Some(9 * second), false, 8 * second, Some(second)), Some((text.to_owned(), 1)));
        let text = "interrupted while waiting to read the environment of process 7";
        assert_eq!(says(None, true, second, Some(second)), Some((text.to_owned(), 130)));
        assert_eq!(says(None, true, second, Some(second / 2)), None);
    }
}
