//! Command `top`: live samples of a CPU profile.

mod keys;
mod screen;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::time::Duration;

use self::keys::Wish;
use self::screen::{Screen, Shown};
use super::args::{Common, TopArgs, TopSort};
use super::capture::catch;
use super::command::{Patience, Run};
use super::confinement::{INSPECTING, Work};
use super::notices::Notice;
use super::output;
use super::profile::cpu;
use crate::Error;
use crate::operations::target::ResolvedTarget;
use crate::operations::top::{Round, Session, TICK};
use crate::report::answers::{Source, Sourced};
use crate::report::top::Sort;

/// Number of functions written if there is no screen.
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

impl Run for TopArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        run(self, common)
    }

    fn work(&self) -> Work {
        Work { samples: true, ..INSPECTING }
    }

    fn patience(&self) -> Patience {
        Patience::Endless
    }
}

/// Runs `top`.
fn run(args: &TopArgs, common: &Common) -> Result<(), Error> {
    let found = args.sampled.find(common)?;
    if let [ResolvedTarget::Agent(address)] = found.as_slice() {
        return Err(Error::Usage(format!(
            "{address} is the address of an agent, and top samples processes of this machine; an agent can take a profile of \
             30 s: gops-probe pprof-cpu {address}"
        )));
    }
    let asked = cpu::asked(&found);
    let processes = cpu::processes(found)?;
    let interval = args.interval.duration();
    if interval < TICK {
        return Err(Error::Usage("--interval must be at least 50ms".to_owned()));
    }
    let interrupt = catch()?;
    let options = cpu::options(&args.sampled, Duration::MAX);
    let mut session = Session::begin(&processes, &options, interval, args.window.duration())?;
    let title = match session.alone() {
        Some((pid, name)) => format!("{name}, process {pid}"),
        None => asked.to_string(),
    };
    let source = Source::of(&asked, "probe");
    let on_screen = std::io::stdout().is_terminal()
        && has_screen(std::env::var_os("TERM"))
        && common.output.is_none()
        && !common.json
        && args.count.is_none();
    let mut notes = session.because();
    let mut screen = match on_screen {
        true => Some(Screen::open(Shown::new(&title, args.sort.into(), &notes)).map_err(no_screen)?),
        false => {
            tell(&notes, common);
            None
        }
    };
    let mut left = args.count;
    while left != Some(0) {
        session.wait()?;
        if let Some(screen) = &mut screen {
            while let Some(wish) = keys::pressed().map_err(no_screen)? {
                match wish {
                    Wish::End => return Ok(()),
                    Wish::Forget => session.forget(),
                    Wish::Show(change) => screen.change(change),
                }
                screen.draw(None).map_err(no_screen)?;
            }
        }
        if interrupt.is_pending() {
            return Err(Error::Interrupted);
        }
        let Some(Round { mut top, notes: new, ended }) = session.round() else { continue };
        match &mut screen {
            Some(screen) => {
                notes.extend(new.iter().cloned());
                new.into_iter().for_each(|note| screen.note(note));
                screen.draw(Some(top)).map_err(no_screen)?;
            }
            None => {
                tell(&new, common);
                if common.json {
                    output::write_json_line(common, &Sourced { source: source.clone(), answer: top })?;
                } else {
                    top.sort(args.sort.into());
                    output::write(common, |out| {
                        top.write(ROWS, out)?;
                        writeln!(out)
                    })?;
                }
            }
        }
        left = left.map(|left| left - 1);
        if let Some(why) = ended {
            notes.push(why.to_owned());
            break;
        }
    }
    if let Some(screen) = screen {
        // The last picture stays on the terminal, and so do the notes about it.
        drop(screen);
        tell(&notes, common);
    } else if let Some(last) = notes.last().filter(|_| left != Some(0)) {
        tell(std::slice::from_ref(last), common);
    }
    Ok(())
}

/// Returns true if a terminal of this kind can be written to at other places than its last line.
fn has_screen(kind: Option<OsString>) -> bool {
    kind.is_some_and(|kind| !kind.is_empty() && kind != "dumb")
}

fn no_screen(error: std::io::Error) -> Error {
    Error::Output { to: "the terminal".to_owned(), source: error }
}

fn tell(notes: &[String], common: &Common) {
    notes.iter().for_each(|note| Notice::Note.tell(common, note));
}
