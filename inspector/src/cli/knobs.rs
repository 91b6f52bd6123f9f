//! Commands `gc`, `setgc` and `setmemlimit`.

use std::path::Path;
use std::time::Duration;

use super::args::{Common, GcArgs, SetGcArgs, SetMemLimitArgs, Via, WayArgs};
use super::command::{Patience, Run};
use super::confinement::{GUARDING, Work};
use super::interrupt::Interrupt;
use super::notices::Notice;
use super::via::{Chosen, choose};
use super::{agent, output};
use crate::Error;
use crate::agent::{Request, Signal};
use crate::change::gc::Collection;
use crate::change::knob::NO_LIMIT;
use crate::change::{ChangeOptions, guard};
use crate::operations::change::{collect, gc_percent, set_memory_limit, set_percent};
use crate::operations::target::ResolvedTarget;
use crate::process::Process;
use crate::report::answers::{Source, Sourced};
use crate::report::changes::{Effort, Gc, SetGc, SetMemLimit};

/// Maximum time of a garbage collection, including obstacles to it.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Run for GcArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        gc(self, common)
    }

    fn work(&self) -> Work {
        GUARDING
    }

    fn patience(&self) -> Patience {
        Patience::given(self.way.timeout)
    }
}

impl Run for SetGcArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        set_gc(self, common)
    }

    fn work(&self) -> Work {
        GUARDING
    }

    fn patience(&self) -> Patience {
        Patience::given(self.knob.way.timeout)
    }
}

impl Run for SetMemLimitArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        set_mem_limit(self, common)
    }

    fn work(&self) -> Work {
        GUARDING
    }

    fn patience(&self) -> Patience {
        Patience::given(self.knob.way.timeout)
    }
}

fn gc(args: &GcArgs, common: &Common) -> Result<(), Error> {
    let target = args.target.find(common)?;
    let probe =
        |process: &Process| with_options(args, |options| collect(process, args.runtime.chosen(), options));
    match choose(&target, &way(args)?, common, probe)? {
        Chosen::Probe(collection) => tell_collection(&target, &collection, args, common),
        Chosen::Agent(connection) => {
            let parse = |text: &str| (text == "ok").then_some(());
            agent::read(connection, &Request::Plain(Signal::Gc), &args.way, "ok", parse)?;
            if common.json {
                let answer = Gc { collected: true, forced: None };
                return write(&target, "agent", answer, common);
            }
            done(common, "collected");
            Ok(())
        }
    }
}

/// Reports a collection. As in gops, success is silent.
fn tell_collection(
    target: &ResolvedTarget,
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

fn set_gc(args: &SetGcArgs, common: &Common) -> Result<(), Error> {
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
            let parse = |text: &str| {
                let source = Source::new(&target.named(), "agent");
                SetGc::parse(text).map(|answer| Sourced { source, answer })
            };
            let request = Request::SetGc(args.percent);
            agent::answer(connection, &request, &knob.way, common, "what setgc did", parse).map(drop)
        }
    }
}

fn set_mem_limit(args: &SetMemLimitArgs, common: &Common) -> Result<(), Error> {
    if args.knob.way.via == Via::Agent {
        return Err(Error::Usage("agents of gops cannot set a memory limit: use --via probe".to_owned()));
    }
    let knob = &args.knob;
    let target = ResolvedTarget::Process(knob.target.process("setmemlimit", common)?);
    let ResolvedTarget::Process(process) = &target else { return Ok(()) };
    let limit = args.limit.0;
    let (set, needs) = with_options(knob, |options| {
        set_memory_limit(process, knob.runtime.chosen(), limit, args.force, options)
    })?;
    let answer = SetMemLimit::new(&set, needs, knob.dry_run);
    tell_effort(&answer.effort, common);
    let alive = needs.overhead.saturating_add(needs.marked);
    if limit != NO_LIMIT && limit.cast_unsigned() < alive {
        Notice::Warning.tell(
            common,
            format_args!(
                "{alive} bytes are in use after a collection: with a lower limit, up to half of the CPU time goes into \
                 collections"
            ),
        );
    }
    if common.json {
        return write(&target, "probe", answer, common);
    }
    output::write(common, |out| writeln!(out, "{answer}"))
}

/// Makes a change so that Ctrl-C ends it in good order.
fn with_options<T>(
    args: &GcArgs,
    change: impl FnOnce(&ChangeOptions<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let interrupt = Interrupt::catch().map_err(|e| Error::Failed(format!("cannot catch signals: {e}")))?;
    let interrupted = || interrupt.is_pending();
    let timeout = args.way.timeout.unwrap_or(TIMEOUT);
    let guard = Path::new(guard::OURSELVES);
    change(&ChangeOptions { timeout, dry_run: args.dry_run, interrupted: &interrupted, guard })
}

/// Returns who may make the change. An agent cannot do a dry run.
fn way(args: &GcArgs) -> Result<WayArgs, Error> {
    args.runtime.way(args.way)?.without_agent(args.dry_run.then_some("--dry-run"))
}

fn write(
    target: &ResolvedTarget,
    via: &'static str,
    answer: impl serde::Serialize,
    common: &Common,
) -> Result<(), Error> {
    output::write_json(common, &Sourced { source: Source::new(&target.named(), via), answer })
}

fn done(common: &Common, what: &str) {
    if common.verbose > 0 {
        Notice::Done.tell(common, what);
    }
}

/// Reports each write, if wanted.
fn tell_effort(effort: &Effort, common: &Common) {
    // The writes that a dry run would make are its answer.
    if common.verbose == 0 && (common.json || !effort.dry_run) {
        return;
    }
    let wrote = if effort.dry_run { Notice::WouldWrite } else { Notice::Wrote };
    effort.written.iter().for_each(|word| wrote.tell(common, word));
    if effort.stops > 0 {
        Notice::Cost.tell(
            common,
            format_args!("all threads stopped {} times for {} µs in all", effort.stops, effort.stopped_us),
        );
    }
}
