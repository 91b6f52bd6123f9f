//! `gc`, `setgc` and `setmemlimit`.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::args::{Common, GcArgs, SetGcArgs, SetMemLimitArgs, Via, WayArgs};
use super::interrupt::Interrupt;
use super::style::Style;
use super::target::Found;
use super::via::{Chosen, choose};
use super::{agent, output};
use crate::Error;
use crate::agent::{Request, Signal};
use crate::change::gc::Collection;
use crate::change::knob::{self, NO_LIMIT};
use crate::change::subject::Subject;
use crate::change::{Options, guard};
use crate::operations::change::{collect, gc_percent, set_percent};
use crate::printable::printable_str;
use crate::process::Process;
use crate::report::answers::{Source, Sourced};
use crate::report::changes::{Effort, Gc, SetGc, SetMemLimit};

/// How long a collection may take, and what is in its way.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn gc(args: &GcArgs, common: &Common) -> Result<(), Error> {
    let target = args.target.find(common)?;
    let probe =
        |process: &Process| with_options(args, |options| collect(process, args.runtime.chosen(), options));
    match choose(&target, &way(args)?, common, probe)? {
        Chosen::Probe(collection) => tell_collection(&target, &collection, args, common),
        Chosen::Agent(connection) => {
            let peer = connection.peer().to_owned();
            let text = agent::ask_for_text(connection, &Request::Plain(Signal::Gc), &args.way)?;
            if text != "ok" {
                return Err(agent::garbage(peer, "ok", &text));
            }
            if common.json {
                let answer = Gc { collected: true, forced: None };
                return write(&target, "agent", answer, common);
            }
            done(common, "collected");
            Ok(())
        }
    }
}

/// As gops, it is silent where all went well.
fn tell_collection(
    target: &Found,
    collection: &Collection,
    args: &GcArgs,
    common: &Common,
) -> Result<(), Error> {
    let answer = Gc::new(collection, args.dry_run);
    if let Some(forced) = &answer.forced {
        tell_effort(&forced.effort, common);
    }
    if common.json {
        return write(target, "probe", answer, common);
    }
    if !args.dry_run {
        let kib = |bytes: u64| bytes / 1024;
        let (before, after) = (kib(collection.before.live), kib(collection.after.live));
        done(
            common,
            &format!(
                "collection {} took {:.1} ms; live heap {before} -> {after} KiB",
                collection.cycle,
                collection.duration.as_secs_f64() * 1e3
            ),
        );
    }
    Ok(())
}

pub(super) fn set_gc(args: &SetGcArgs, common: &Common) -> Result<(), Error> {
    let percent = gc_percent(args.percent)?;
    let knob = &args.knob;
    let target = knob.target.find(common)?;
    let probe = |process: &Process| {
        with_options(knob, |options| set_percent(process, knob.runtime.chosen(), percent, options))
    };
    match choose(&target, &way(knob)?, common, probe)? {
        Chosen::Probe(set) => {
            let answer = SetGc::new(&set, knob.dry_run);
            if let Some(effort) = &answer.effort {
                tell_effort(effort, common);
            }
            if common.json {
                return write(&target, "probe", answer, common);
            }
            output::write(common, |out| writeln!(out, "{answer}"))
        }
        Chosen::Agent(connection) => {
            let request = Request::SetGc(args.percent);
            if !common.json {
                return agent::pass_on(connection, &request, &knob.way, common);
            }
            let peer = connection.peer().to_owned();
            let text = agent::ask_for_text(connection, &request, &knob.way)?;
            let answer = SetGc::parse(&text).ok_or_else(|| agent::garbage(peer, "what setgc did", &text))?;
            write(&target, "agent", answer, common)
        }
    }
}

pub(super) fn set_mem_limit(args: &SetMemLimitArgs, common: &Common) -> Result<(), Error> {
    if args.knob.way.via == Via::Agent {
        return Err(Error::Usage("agents of gops cannot set a memory limit: use --via probe".to_owned()));
    }
    let knob = &args.knob;
    let target = Found::Process(knob.target.process("setmemlimit", common)?);
    let Found::Process(process) = &target else { return Ok(()) };
    let limit = args.limit.0;
    let (set, needs) = with_options(knob, |options| {
        let subject = Subject::verify_chosen(process, knob.runtime.chosen())?;
        let needs = knob::needs(&subject)?;
        if limit.cast_unsigned() <= needs.overhead && !args.force {
            return Err(Error::Refused {
                pid: process.pid(),
                what: format!(
                    "{} bytes are mapped that no collection can free: with a limit of {limit} it would do nothing but \
                     collect; nothing is written",
                    needs.overhead
                ),
                hint: Some("set a higher limit, or this one with --force".to_owned()),
            });
        }
        Ok((knob::set_memory_limit(&subject, limit, options)?, needs))
    })?;
    let answer = SetMemLimit::new(&set, needs, knob.dry_run);
    tell_effort(&answer.effort, common);
    let alive = needs.overhead.saturating_add(needs.marked);
    if limit != NO_LIMIT && limit.cast_unsigned() < alive {
        let style = Style::for_stderr(common.color);
        // A warning that cannot be written is no failure of the answer.
        let _ = writeln!(
            std::io::stderr().lock(),
            "{} {alive} bytes are in use after a collection: with a lower limit, up to half of the CPU time goes into \
             collections",
            style.hint("warning:"),
        );
    }
    if common.json {
        return write(&target, "probe", answer, common);
    }
    output::write(common, |out| writeln!(out, "{answer}"))
}

/// Does it so that Ctrl-C ends it in good order.
fn with_options<T>(args: &GcArgs, change: impl FnOnce(&Options<'_>) -> Result<T, Error>) -> Result<T, Error> {
    let interrupt = Interrupt::catch().map_err(|e| Error::Failed(format!("cannot catch signals: {e}")))?;
    let interrupted = || interrupt.is_pending();
    let timeout = args.way.timeout.unwrap_or(TIMEOUT);
    let guard = Path::new(guard::OURSELVES);
    change(&Options { timeout, dry_run: args.dry_run, interrupted: &interrupted, guard })
}

/// Who may do it: an agent cannot say what it would do.
fn way(args: &GcArgs) -> Result<WayArgs, Error> {
    args.runtime.way(args.way)?.without_agent(args.dry_run.then_some("--dry-run"))
}

fn write(
    target: &Found,
    via: &'static str,
    answer: impl serde::Serialize,
    common: &Common,
) -> Result<(), Error> {
    output::write_json(common, &Sourced { source: Source::new(&target.named(), via), answer })
}

fn done(common: &Common, what: &str) {
    if common.verbose > 0 {
        let style = Style::for_stderr(common.color);
        // What cannot be said is no failure of what was done.
        let _ = writeln!(std::io::stderr().lock(), "{} {what}", style.hint("done:"));
    }
}

/// Each write, where that is wanted.
fn tell_effort(effort: &Effort, common: &Common) {
    // What a dry run would write is its answer.
    if common.verbose == 0 && (common.json || !effort.dry_run) {
        return;
    }
    let style = Style::for_stderr(common.color);
    let mut err = std::io::stderr().lock();
    let title = if effort.dry_run { "would write:" } else { "wrote:" };
    for word in &effort.written {
        let _ = writeln!(err, "{} {}", style.hint(title), printable_str(&word.to_string()));
    }
    if effort.stops > 0 {
        let _ = writeln!(
            err,
            "{} all threads stopped {} times for {} µs in all",
            style.hint("cost:"),
            effort.stops,
            effort.stopped_us
        );
    }
}
