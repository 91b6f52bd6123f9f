//! Command `stack`.

use std::cell::Cell;
use std::mem::ManuallyDrop;

use super::args::{Common, StackArgs, WayArgs};
use super::capture::catch;
use super::command::{Patience, Run};
use super::notices::Notice;
use super::via::{Chosen, choose};
use super::{agent, output, panicking};
use crate::Error;
use crate::agent::{AgentTarget, Connection, Request, Signal};
use crate::operations::runtimes::{Answers, ask};
use crate::operations::stack::{Seen, look};
use crate::operations::stuck;
use crate::operations::target::ResolvedTarget;
use crate::process::Process;
use crate::report::answers::Source;
use crate::report::dump::Dump;
use crate::report::stack::{AnswerCost, Counts, Filter, StackReport, States};
use crate::report::traceback::Level;
use crate::runtime::snapshot::{Consistency, Pause, Snapshot, SnapshotOptions};
use crate::runtime::view::View;

impl Run for StackArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        run(self, common)
    }

    fn patience(&self) -> Patience {
        Patience::given(self.way.timeout)
    }

    fn unpaused(&self) -> Option<&'static str> {
        (!self.no_pause).then_some("stack")
    }
}

fn run(args: &StackArgs, common: &Common) -> Result<(), Error> {
    let filter = filter(args);
    let way = way(args)?;
    let target = args.target.find(common)?;
    wait(args, &target, common)?;
    let options = options(args);
    let outside =
        |process: &Process| ask(process, args.runtime.chosen(), |opened| look(process, opened, &options));
    match choose(&target, &args.runtime.way(way)?, common, outside)? {
        Chosen::Probe(seen) => {
            // The program ends with this value: freeing a hundred thousand stacks one by one is useless.
            let seen = ManuallyDrop::new(seen);
            print(&seen, &target.named(), args, &filter, common)
        }
        Chosen::Agent(connection) => print_of_agent(connection, &target.named(), args, &filter, common),
    }
}

/// Waits until the time of the dump has come.
fn wait(args: &StackArgs, target: &ResolvedTarget, common: &Common) -> Result<(), Error> {
    if args.after.is_none() && args.when_stuck.is_none() {
        return Ok(());
    }
    let ResolvedTarget::Process(process) = target else {
        return Err(Error::Usage("--after and --when-stuck need a process of this machine".to_owned()));
    };
    let interrupt = catch()?;
    let interrupted = || interrupt.is_pending();
    if let Some(after) = args.after {
        stuck::wait(process, after.duration(), &interrupted)?;
    }
    if let Some(time) = args.when_stuck {
        let time = time.duration();
        Notice::Hint.tell_on_terminal(
            common,
            format_args!(
                "waiting until no goroutine of process {} has moved for {} s",
                process.pid(),
                time.as_secs_f64()
            ),
        );
        stuck::wait_until_stuck(process, args.runtime.chosen(), time, &interrupted)?;
    }
    Ok(())
}

fn options(args: &StackArgs) -> SnapshotOptions {
    let pause = if args.no_pause { Pause::No } else { Pause::AtMost(args.max_pause) };
    SnapshotOptions { pause, system: args.all, goid: args.goroutine }
}

/// Returns who may answer. An agent shows only the program's goroutines, and stops the world.
fn way(args: &StackArgs) -> Result<WayArgs, Error> {
    let no_pause = args.no_pause.then_some("--no-pause");
    args.way.without_agent(args.all.then_some("--all").or(no_pause))
}

fn print(
    seen: &Answers<Seen>,
    target: &AgentTarget,
    args: &StackArgs,
    filter: &Filter,
    common: &Common,
) -> Result<(), Error> {
    let level = if args.all { Level::System } else { Level::User };
    let counts = Cell::new(Counts::default());
    let count = |written| counts.set(counts.get().and(written));
    if common.json {
        seen.write_json(common, |seen, out| {
            let report = StackReport::new(&seen.view, &seen.snapshot, filter, level);
            report.write_json(seen.pid, &seen.cost(), seen.panicking, out).map(count)
        })?;
    } else {
        output::write(common, |out| {
            seen.write_text(out, |seen, out| {
                let report = StackReport::new(&seen.view, &seen.snapshot, filter, level);
                report.write_text(out).map(count)
            })
        })?;
    }
    for (_, seen) in seen.iter() {
        tell_unknown(&seen.view, common);
        tell_too_many(&seen.snapshot, args, common);
        panicking::tell(seen.panicking, common);
        if common.verbose > 0 {
            tell_evidence(&seen.view, &seen.cost(), &seen.snapshot, common);
        }
    }
    if let Some(state) = missed_state(args, &counts.get()) {
        let reports =
            || seen.iter().map(|(_, seen)| StackReport::new(&seen.view, &seen.snapshot, filter, level));
        let known = reports().any(|report| report.is_state(state));
        let states = reports().map(|report| report.states()).reduce(States::and);
        if let Some(states) = states {
            tell_states(target, state, &states, known, common)?;
        }
    }
    conclude(args, target, &counts.get(), common).and(seen.conclude())
}

fn print_of_agent(
    connection: Connection,
    target: &AgentTarget,
    args: &StackArgs,
    filter: &Filter,
    common: &Common,
) -> Result<(), Error> {
    let request = Request::Plain(Signal::StackTrace);
    if !common.json && filter.is_empty() {
        return agent::pass_on(connection, &request, &args.way, common);
    }
    let peer = connection.peer().to_owned();
    let text = agent::ask_for_text(connection, &request, &args.way)?;
    let dump = Dump::parse(&text).ok_or_else(|| agent::garbage(peer, "a dump of goroutines", &text))?;
    let source = Source::new(target, "agent");
    let counts = Cell::new(Counts::default());
    output::write_foreign(common, |out| {
        let written =
            if common.json { dump.write_json(&source, filter, out)? } else { dump.write_text(filter, out)? };
        counts.set(written);
        Ok(())
    })?;
    if let Some(state) = missed_state(args, &counts.get()) {
        // The states of the target's release are not known here.
        tell_states(target, state, &dump.states(), true, common)?;
    }
    conclude(args, target, &counts.get(), common)
}

fn filter(args: &StackArgs) -> Filter {
    Filter { goid: args.goroutine, state: args.state.clone(), pattern: args.pattern.clone() }
}

/// Returns the requested state, if no goroutine was written and no other filter was set.
fn missed_state<'a>(args: &'a StackArgs, counts: &Counts) -> Option<&'a str> {
    let nothing_else = args.goroutine.is_none() && args.pattern.is_none();
    args.state.as_deref().filter(|_| counts.goroutines == 0 && nothing_else)
}

/// Lists the existing states if no goroutine is in the requested one. A state that no goroutine can have is a
/// usage error.
fn tell_states(
    target: &AgentTarget,
    state: &str,
    states: &States,
    known: bool,
    common: &Common,
) -> Result<(), Error> {
    if !known {
        return Err(Error::Usage(format!(
            "--state: no goroutine can be in state {state:?}; {target} has {states}"
        )));
    }
    Notice::Hint.tell(common, format_args!("no goroutine is in state {state:?}; {target} has {states}"));
    Ok(())
}

/// Reports unconfirmed and missing data, as a hint or as the error of a partial answer.
fn conclude(args: &StackArgs, target: &AgentTarget, counts: &Counts, common: &Common) -> Result<(), Error> {
    if counts.unconfirmed > 0 {
        Notice::Hint.tell(
            common,
            format_args!(
                "{} of {} goroutines are unconfirmed: they ran, or may have run, while they were read",
                counts.unconfirmed, counts.goroutines,
            ),
        );
    }
    if counts.incomplete > 0 {
        Notice::Hint.tell(
            common,
            format_args!(
                "the outermost frames of {} of {} goroutines are missing (--json says why)",
                counts.incomplete, counts.goroutines,
            ),
        );
    }
    if let Some(id) = args.goroutine.filter(|_| counts.goroutines == 0) {
        let among = if args.all { "no goroutine" } else { "no visible goroutine" };
        let todo = if args.all { "" } else { " (try --all)" };
        return Err(Error::Failed(format!("{target}: {among} {id}{todo}")));
    }
    if counts.is_partial() {
        return Err(Error::Partial(format!(
            "the frames of {} of {} goroutines could not be read",
            counts.unavailable, counts.goroutines
        )));
    }
    Ok(())
}

/// Reports that the threads were not stopped together, and why.
fn tell_too_many(snapshot: &Snapshot, args: &StackArgs, common: &Common) {
    let Some(too_many) = snapshot.too_many else { return };
    Notice::Hint.tell(
        common,
        format_args!(
            "stopping {} threads at once would take about {:.1} ms, more than --max-pause {:?}: they were stopped one at a \
             time, so the goroutines were not all seen at the same instant",
            too_many.threads,
            too_many.expected.as_secs_f64() * 1e3,
            args.max_pause,
        ),
    );
}

/// Reports facts that could not be found or confirmed.
fn tell_unknown(view: &View, common: &Common) {
    view.unknown.iter().for_each(|unknown| Notice::Unknown.tell(common, unknown));
}

fn tell_evidence(view: &View, cost: &AnswerCost, snapshot: &Snapshot, common: &Common) {
    for evidence in &view.evidence {
        Notice::Known.tell(common, evidence);
    }
    let consistency = match snapshot.consistency {
        Consistency::Instant => "all seen at one instant",
        Consistency::InstantVerifiedAfterwards => "seen at one instant, verified after it",
        Consistency::EachByItself => "each goroutine seen at its own instant",
    };
    Notice::Cost.tell(common, format_args!("{cost}; {consistency}"));
}
