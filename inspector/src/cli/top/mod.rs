//! `top`: the samples of a CPU profile, live.

mod keys;
mod screen;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use self::keys::Wish;
use self::screen::{Screen, Shown};
use super::args::{Common, TopArgs, TopSort};
use super::capture::catch;
use super::notices::Notice;
use super::output;
use super::profile::cpu;
use super::target::Found;
use crate::Error;
use crate::capture::cpu::profile::named;
use crate::capture::cpu::session::Capture;
use crate::native::Kernel;
use crate::report::answers::{Source, Sourced};
use crate::report::top::{Interval, Sort, Window};

/// How long is waited for samples until somebody may have pressed a key.
const TICK: Duration = Duration::from_millis(50);
/// So many functions are written where there is no screen.
const ROWS: usize = 30;

impl From<TopSort> for Sort {
    fn from(sort: TopSort) -> Self {
        match sort {
            TopSort::Flat => Sort::Flat,
            TopSort::Cum => Sort::Cumulative,
            TopSort::Name => Sort::Name,
        }
    }
}

/// `top`.
pub(super) fn run(args: &TopArgs, common: &Common) -> Result<(), Error> {
    let found = args.sampled.find(common)?;
    if let [Found::Agent(address)] = found.as_slice() {
        return Err(Error::Usage(format!(
            "{address} is the address of an agent, and top samples processes of this machine; an agent can take a profile of \
             30 s: gops-probe pprof-cpu {address}"
        )));
    }
    let asked = cpu::asked(&found);
    let processes = cpu::processes(found)?;
    // With children there are more of them soon.
    let alone = match processes.as_slice() {
        [one] if !args.sampled.children => Some((one.pid(), one.name().to_owned())),
        _ => None,
    };
    let title =
        alone.as_ref().map_or_else(|| asked.to_string(), |(pid, name)| format!("{name}, process {pid}"));
    let alone = alone.map(|(pid, name)| (u64::from(pid.as_raw().unsigned_abs()), name));
    let interval = args.interval.duration();
    if interval < TICK {
        return Err(Error::Usage("--interval must be at least 50ms".to_owned()));
    }
    let interrupt = catch()?;
    let options = cpu::options(&args.sampled, Duration::MAX);
    let mut capture = Capture::begin(&processes, &options)?;
    let kernel = Kernel::default();
    let intervals = args.window.duration().as_secs_f64() / interval.as_secs_f64();
    let mut window = Window::new(intervals.round() as usize);
    let source = Source::of(&asked, "probe");
    let on_screen = std::io::stdout().is_terminal()
        && has_screen(std::env::var_os("TERM"))
        && common.output.is_none()
        && !common.json
        && args.count.is_none();
    let mut notes: Vec<String> = capture
        .because()
        .iter()
        .map(|why| format!("samples are taken by {}, not by {why}", capture.mode()))
        .collect();
    let mut screen = match on_screen {
        true => Some(Screen::open(Shown::new(&title, args.sort.into(), &notes)).map_err(no_screen)?),
        false => {
            tell(&notes, common);
            None
        }
    };
    let mut said = 0;
    let mut left = args.count;
    let mut since = Instant::now();
    while left != Some(0) {
        let wait = interval.saturating_sub(since.elapsed());
        capture.poll(wait.min(TICK))?;
        if let Some(screen) = &mut screen {
            while let Some(wish) = keys::pressed().map_err(no_screen)? {
                match wish {
                    Wish::End => return Ok(()),
                    Wish::Forget => window.clear(),
                    Wish::Show(change) => screen.change(change),
                }
                screen.draw(None).map_err(no_screen)?;
            }
        }
        if interrupt.is_pending() {
            return Err(Error::Interrupted);
        }
        let ended = capture.ended();
        if since.elapsed() < interval && ended.is_none() {
            continue;
        }
        let (took, rate) = (since.elapsed(), capture.rate());
        since = Instant::now();
        let (collected, known) = capture.take();
        let profile = named(known, &collected, rate, &|address| kernel.function(address));
        window.push(Interval::new(&profile, took, alone.as_ref()));
        let missing = [collected.notes(), capture.notes()].concat();
        // Once: there may be more of the same later.
        if missing.len() > said {
            said = missing.len();
            match &mut screen {
                Some(screen) => {
                    notes.extend(missing.iter().cloned());
                    missing.into_iter().for_each(|note| screen.note(note));
                }
                None => tell(&missing, common),
            }
        }
        let mut top = window.top(capture.mode(), rate, capture.counts().lost);
        match &mut screen {
            Some(screen) => screen.draw(Some(top)).map_err(no_screen)?,
            None if common.json => {
                output::write_json_line(common, &Sourced { source: source.clone(), answer: top })?
            }
            None => {
                top.sort(args.sort.into());
                output::write(common, |out| {
                    top.write(ROWS, out)?;
                    writeln!(out)
                })?;
            }
        }
        left = left.map(|left| left - 1);
        if let Some(why) = ended {
            notes.push(why.to_owned());
            break;
        }
    }
    if let Some(screen) = screen {
        // What was to be seen last stays, and what it was about.
        drop(screen);
        tell(&notes, common);
    } else if let Some(last) = notes.last().filter(|_| left != Some(0)) {
        tell(std::slice::from_ref(last), common);
    }
    Ok(())
}

/// Whether a terminal of this kind can be written to elsewhere than in its last line.
fn has_screen(kind: Option<OsString>) -> bool {
    kind.is_some_and(|kind| !kind.is_empty() && kind != "dumb")
}

fn no_screen(error: std::io::Error) -> Error {
    Error::Output { to: "the terminal".to_owned(), source: error }
}

fn tell(notes: &[String], common: &Common) {
    notes.iter().for_each(|note| Notice::Note.tell(common, note));
}
