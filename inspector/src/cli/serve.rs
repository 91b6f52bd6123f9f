//! Command `serve`.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::args::{Common, ServeArgs};
use super::command::{Patience, Run};
use super::confinement::{GUARDING, Work};
use super::interrupt::Interrupt;
use super::notices::Notice;
use super::output;
use super::turn::{Turn, Turns};
use crate::Error;
use crate::agent::peer::Policy;
use crate::agent::server::{Answers, Outcome, Server};
use crate::agent::socket::Listen;
use crate::agent::{AgentTarget, Request, Signal};
use crate::change;
use crate::operations::binary::{self, Copied, Stream};
use crate::operations::change::{collect, gc_percent, set_percent};
use crate::operations::runtimes::{Answers as Answered, ask};
use crate::operations::{cpu, memstats, profile, stack, stats, version};
use crate::printable::printable_str;
use crate::process::Process;
use crate::report::answers::{Serving, Source, Sourced};
use crate::report::changes::SetGc;
use crate::report::stack::{Filter, StackReport};
use crate::report::traceback::Level;
use crate::runtime::memstats::Wanted;
use crate::runtime::snapshot::{Pause, SnapshotOptions};

/// Maximum pause, equal to the default of `stack`.
const MAX_PAUSE: Duration = Duration::from_millis(20);
/// Maximum time of a change.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum time that a request waits for others that stop the process.
const WAIT: Duration = Duration::from_secs(20);

impl Run for ServeArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        run(self, common)
    }

    fn work(&self) -> Work {
        Work { samples: true, serves: true, ..GUARDING }
    }

    fn patience(&self) -> Patience {
        Patience::Endless
    }
}

fn run(args: &ServeArgs, common: &Common) -> Result<(), Error> {
    let process = args.target.process("serve", common)?;
    // A process that cannot be read, or is no Go process, is not served.
    let version = version::as_agent(&process, args.runtime.chosen())?;
    let interrupt = Interrupt::catch().map_err(|e| Error::Failed(format!("cannot catch signals: {e}")))?;
    let listen = |source| Error::Failed(format!("cannot listen on {}: {source}", args.listen));
    let policy = Policy {
        own: rustix::process::geteuid().as_raw(),
        users: args.allow_uid.iter().copied().collect(),
        remote: args.allow_remote,
        changes: args.allow_changes,
    };
    let server = Server::bind(&args.listen, policy.clone()).map_err(listen)?;
    let address = server.address().map_err(listen)?;
    announce(&process, &address, &policy, common)?;
    let outside = Outside {
        process: &process,
        version,
        runtime: args.runtime.chosen(),
        interrupt: interrupt.clone(),
        turns: Turns::default(),
    };
    let mut until = || {
        if interrupt.is_pending() {
            return ControlFlow::Break(Err(Error::Interrupted));
        }
        match process.check() {
            Ok(()) => ControlFlow::Continue(()),
            Err(gone) => ControlFlow::Break(Err(gone.into())),
        }
    };
    server.run(&outside, &mut until).map_err(listen)?
}

fn announce(process: &Process, address: &Listen, policy: &Policy, common: &Common) -> Result<(), Error> {
    if common.json {
        let source = Source::new(&AgentTarget::Process(process.pid()), "probe");
        let answer = Serving { listening: address.to_string() };
        output::write_json(common, &Sourced { source, answer })?;
    } else {
        output::write(common, |out| writeln!(out, "{address}"))?;
    }
    let how = match address {
        Listen::Tcp(address) => format!("try `gops stack {address}`; end"),
        Listen::Unix(_) => "end".to_owned(),
    };
    Notice::Serving.tell(
        common,
        format_args!(
            "process {} ({}) as if it had an agent, for root and user {}; {how} with Ctrl-C",
            process.pid(),
            process.name(),
            policy.own,
        ),
    );
    let may = if policy.changes {
        "the stacks and the program of this process, stop it for moments, and make it collect garbage more often or not at all"
    } else {
        "the stacks of this process, and stop it for moments"
    };
    if !policy.users.is_empty() {
        let users: Vec<String> = policy.users.iter().map(ToString::to_string).collect();
        Notice::Warning.tell(common, format_args!("these users can read {may}: {}", users.join(", ")));
    }
    if !policy.remote && matches!(address, Listen::Tcp(address) if !address.ip().is_loopback()) {
        Notice::Warning
            .tell(common, "only requests from this machine are answered; --allow-remote answers others too");
    }
    if policy.remote {
        Notice::Warning.tell(
            common,
            format_args!(
                "everybody on other machines who can reach {address} can read {may}; nothing is encrypted"
            ),
        );
    }
    Ok(())
}

/// Answers for a process, made from outside.
struct Outside<'p> {
    process: &'p Process,
    version: String,
    /// Runtime that was chosen; `None` for all.
    runtime: Option<&'p str>,
    interrupt: Interrupt,
    /// Turns of requests: only one at a time can stop threads.
    turns: Turns,
}

impl Answers for Outside<'_> {
    fn answer(&self, request: &Request, out: &mut dyn Write) -> io::Result<Outcome> {
        let signal = request.signal();
        tracing::info!("{} was asked for", signal.command());
        match signal {
            Signal::Version => writeln!(out, "{}", self.version)?,
            Signal::StackTrace => self.stack(out)?,
            Signal::MemStats => self.memstats(out)?,
            Signal::Stats => self.stats(out)?,
            Signal::BinaryDump => self.binary(out)?,
            Signal::Gc => return self.collect(out),
            Signal::SetGcPercent => self.set_percent(request, out)?,
            Signal::HeapProfile => {
                return profile_or_nothing(signal, profile::heap(self.process, self.runtime), out);
            }
            Signal::CpuProfile => {
                let interrupted = || self.interrupt.is_pending();
                let profile = cpu::as_agent(self.process, signal.measures_for(), &interrupted);
                return profile_or_nothing(signal, profile, out);
            }
            _ => {
                let command = signal.command();
                writeln!(
                    out,
                    "gops-probe: {command} cannot be answered from outside of the process; it needs an agent in it"
                )?;
                // gops discards or saves the bytes that it gets here.
                return Ok(Outcome::Refused);
            }
        }
        Ok(Outcome::Answered)
    }
}

/// Writes a profile. After an error nothing is written: gops would take the text for a profile.
fn profile_or_nothing(
    signal: Signal,
    profile: Result<Vec<u8>, Error>,
    out: &mut dyn Write,
) -> io::Result<Outcome> {
    match profile {
        Ok(profile) => out.write_all(&profile).map(|()| Outcome::Answered),
        Err(e) => {
            tracing::warn!("{}: {e}", signal.command());
            Ok(Outcome::Refused)
        }
    }
}

impl Outside<'_> {
    /// Waits for other requests that stop the process, but at most for [`WAIT`].
    fn turn(&self) -> Result<Turn<'_>, Error> {
        self.turns.take(WAIT).ok_or_else(|| Error::Refused {
            pid: self.process.pid(),
            what: format!("another request has kept it to itself for {} s", WAIT.as_secs()),
            hint: None,
        })
    }

    fn stack(&self, out: &mut dyn Write) -> io::Result<()> {
        let options = SnapshotOptions { pause: Pause::AtMost(MAX_PAUSE), system: false, goid: None };
        let look = |opened| stack::look(self.process, opened, &options);
        let seen = self.turn().and_then(|_turn| ask(self.process, self.runtime, look));
        match seen {
            Ok(seen) => {
                let filter = Filter::default();
                seen.write_text(out, |seen, out| {
                    let report = StackReport::new(&seen.view, &seen.snapshot, &filter, Level::User);
                    report.write_text(out).map(drop)
                })?;
                missing(&seen, out)
            }
            Err(error) => failed(&error, out),
        }
    }

    /// Forces a collection. gops discards the answer; only the end of the connection tells it that the
    /// collection is done.
    fn collect(&self, out: &mut dyn Write) -> io::Result<Outcome> {
        match self.change(|options| collect(self.process, self.runtime, options)) {
            Ok(_) => write!(out, "ok").map(|()| Outcome::Answered),
            Err(error) => failed(&error, out).map(|()| Outcome::Refused),
        }
    }

    fn set_percent(&self, request: &Request, out: &mut dyn Write) -> io::Result<()> {
        let Request::SetGc(percent) = request else { return Ok(()) };
        let set = gc_percent(*percent).and_then(|percent| {
            self.change(|options| set_percent(self.process, self.runtime, percent, options))
        });
        match set {
            Ok(set) => writeln!(out, "{}", SetGc::new(&set, false)),
            Err(error) => failed(&error, out),
        }
    }

    fn memstats(&self, out: &mut dyn Write) -> io::Result<()> {
        let look = |opened| memstats::look(self.process, &opened, Wanted::Instant);
        let answer = self.turn().and_then(|_turn| ask(self.process, self.runtime, look));
        match answer {
            Ok(answers) => {
                answers.write_text(out, |answer, out| answer.write_text(out))?;
                missing(&answers, out)
            }
            Err(error) => failed(&error, out),
        }
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&change::ChangeOptions<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _turn = self.turn()?;
        let interrupted = || self.interrupt.is_pending();
        let guard = Path::new(change::guard::OURSELVES);
        change(&change::ChangeOptions { timeout: TIMEOUT, dry_run: false, interrupted: &interrupted, guard })
    }

    fn stats(&self, out: &mut dyn Write) -> io::Result<()> {
        let look = |opened| stats::look(self.process, &opened, false);
        match ask(self.process, self.runtime, look) {
            Ok(answers) => {
                answers.write_text(out, |answer, out| answer.write_text(out))?;
                missing(&answers, out)
            }
            Err(error) => failed(&error, out),
        }
    }

    fn binary(&self, out: &mut dyn Write) -> io::Result<()> {
        let executable = match self.process.executable() {
            Ok(executable) => executable,
            Err(error) => return failed(&error.into(), out),
        };
        match binary::copy(&executable, &mut Stream(out), &mut |_| ControlFlow::Continue(()))? {
            Copied::Whole(_) => Ok(()),
            Copied::Stopped(_) | Copied::Unreadable(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Writes the runtimes that did not answer, if there are several.
fn missing<T>(answers: &Answered<T>, out: &mut dyn Write) -> io::Result<()> {
    answers.conclude().map_or_else(|error| failed(&error, out), Ok)
}

fn failed(error: &Error, out: &mut dyn Write) -> io::Result<()> {
    tracing::warn!("{error}");
    writeln!(out, "gops-probe: {}", printable_str(&error.to_string()))
}
