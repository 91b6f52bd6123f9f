//! Last steps of each profile command: writes the profile in its format to its file, and shows it.

use std::io::Write;
use std::time::Duration;

use super::wait;
use crate::Error;
use crate::agent::payload::Payload;
use crate::agent::{AgentTarget, Connection, Signal};
use crate::cli::args::{Common, Format, FormatArgs, Via, WayArgs};
use crate::cli::capture::catch;
use crate::cli::destination::{About, Content, Destination, Failed, Form, Written};
use crate::cli::interrupt::Interrupt;
use crate::cli::notices::Notice;
use crate::cli::opening::{Tool, show};
use crate::cli::output;
use crate::cli::transport::copy_from_agent;
use crate::cli::via::agent_only;
use crate::operations::profile::{Taken, difference};
use crate::operations::target::ResolvedTarget;
use crate::process::Pid;
use crate::profile::json::ProfileAnswer;
use crate::profile::text::Bounds;
use crate::profile::{MAX_WRITTEN, WriteError, flamegraph, folded, pprof, speedscope, text};
use crate::report::answers::{Asked, ProfileOf, Source, Sourced};
use crate::report::sampling::Sampling;
use crate::report::stack::AnswerCost;

/// Destination, format and title of a profile.
pub(super) struct Job<'a> {
    kind: &'static str,
    args: &'a FormatArgs,
    format: Format,
    /// Title drawn above the profile.
    title: String,
    asked: Asked,
    to: Destination,
    pub(super) interrupt: Interrupt,
    common: &'a Common,
}

impl<'a> Job<'a> {
    /// Checks the arguments before any work is done.
    pub(super) fn begin(
        kind: &'static str,
        args: &'a FormatArgs,
        asked: Asked,
        of: &str,
        common: &'a Common,
    ) -> Result<Self, Error> {
        let format = args.for_file(common.output.as_deref()).map_err(Error::Usage)?;
        let to = Destination::choose(content(kind, format), &asked, common)?;
        if args.open && (format != Format::Pprof || to.file().is_none()) {
            return Err(Error::Usage("--open requires --format pprof and a file destination".to_owned()));
        }
        let title = format!("{kind} profile of {of}");
        Ok(Job { kind, args, format, title, asked, to, interrupt: catch()?, common })
    }

    /// Writes the profile of an agent. With `apart`, asks `found` twice, so far apart, and writes the
    /// difference.
    pub(super) fn of_agent(
        self,
        found: &ResolvedTarget,
        connection: Connection,
        signal: Signal,
        way: &WayArgs,
        apart: Option<Duration>,
    ) -> Result<(), Error> {
        // The sample type that is shown first is part of the file.
        if self.format == Format::Pprof && apart.is_none() && self.args.sample_type.is_none() {
            let about = About { asked: &self.asked, via: "agent", cost: None, sampling: None };
            self.to.deliver(&about, self.common, &self.interrupt, |out| {
                copy_from_agent(connection, signal, Payload::Profile, way, &self.interrupt, out)
            })?;
            return self.show();
        }
        let mut taken = self.ask(connection, signal, way)?;
        if let Some(apart) = apart {
            wait(self.kind, apart, &self.interrupt);
            let way = WayArgs { via: Via::Agent, ..*way };
            let again = agent_only(found, &way, signal)?;
            taken = difference(taken, self.ask(again, signal, &way)?)?;
        }
        self.write(taken, "agent")
    }

    fn ask(&self, connection: Connection, signal: Signal, way: &WayArgs) -> Result<Taken, Error> {
        let peer = connection.peer().to_owned();
        let mut bytes = Limited(Vec::new());
        let copied = copy_from_agent(connection, signal, Payload::Profile, way, &self.interrupt, &mut bytes);
        match copied {
            Ok((_, None)) => {}
            Ok((_, Some(_))) if self.interrupt.is_pending() => return Err(Error::Interrupted),
            Ok((_, Some(damage))) => {
                return Err(Error::Failed(format!("the profile of {peer} is not whole: {damage}")));
            }
            Err(Failed::Output(_)) => {
                return Err(Error::Failed(format!(
                    "the profile of {peer} is larger than {} MiB; --format pprof saves it unchanged",
                    MAX_PACKED >> 20
                )));
            }
            Err(Failed::Other(error)) => return Err(error),
        }
        let profile = pprof::read(&bytes.0)
            .map_err(|e| Error::Failed(format!("the profile of {peer} cannot be read: {e}")))?;
        Ok(Taken { profile, cost: None, missing: None, notes: Vec::new(), ticks: None, sampling: None })
    }

    /// Writes a profile.
    pub(super) fn write(self, taken: Taken, via: &'static str) -> Result<(), Error> {
        let Taken { mut profile, cost, missing, notes, sampling, .. } = taken;
        let sample_type = profile.sample_type(self.args.sample_type.as_deref()).map_err(write_error)?;
        profile.default_sample_type = sample_type;
        let title = &self.title;
        let bytes = match self.format {
            Format::Pprof => pprof::write(&profile),
            Format::Folded => folded::write(&profile, sample_type).map_err(write_error)?,
            Format::Flamegraph => flamegraph::write(&profile, sample_type, title).map_err(write_error)?,
            Format::Speedscope => {
                output::escaped(&speedscope::write(&profile, sample_type, title).map_err(write_error)?)
                    .map_err(|e| Error::Failed(e.to_string()))?
            }
            Format::Text => text::write(&profile, sample_type, Bounds::default()).map_err(write_error)?,
            Format::Json => {
                let content = ProfileAnswer::from(&profile);
                let answer = ProfileOf { profile: self.kind, cost, sampling: sampling.clone(), content };
                let answer = Sourced { source: Source::of(&self.asked, via), answer };
                let written = serde_json::to_vec_pretty(&answer).map_err(std::io::Error::other);
                let mut bytes = written
                    .and_then(|bytes| output::escaped(&bytes))
                    .map_err(|e| Error::Failed(e.to_string()))?;
                bytes.push(b'\n');
                bytes
            }
        };
        // Notes within the text are not repeated beside it.
        let in_text = |note: &String| self.format == Format::Text && profile.comments.contains(note);
        let notes: Vec<String> = match self.to {
            Destination::Stdout => notes.into_iter().filter(|note| !in_text(note)).collect(),
            Destination::Device(..) | Destination::File(_) => notes,
        };
        let about = About { asked: &self.asked, via, cost, sampling: sampling.as_ref() };
        let delivered = self.to.deliver(&about, self.common, &self.interrupt, |out| {
            out.write_all(&bytes).and_then(|()| out.flush()).map_err(Failed::Output)?;
            let written: Written = (bytes.len() as u64, None);
            Ok(written)
        });
        self.tell(&notes, cost, sampling.as_ref());
        delivered?;
        if let Some(missing) = missing {
            return Err(Error::Partial(missing));
        }
        self.show()
    }

    fn show(&self) -> Result<(), Error> {
        match self.to.file() {
            Some(path) if self.args.open => show(Tool::Pprof, path, self.process()),
            _ => Ok(()),
        }
    }

    fn process(&self) -> Option<Pid> {
        match self.asked {
            Asked::One(AgentTarget::Process(pid)) => Some(pid),
            _ => None,
        }
    }

    /// Prints notes; with `-v`, also the method of sampling and the cost.
    fn tell(&self, notes: &[String], cost: Option<AnswerCost>, sampling: Option<&Sampling>) {
        notes.iter().for_each(|note| Notice::Note.tell(self.common, note));
        if self.common.verbose == 0 {
            return;
        }
        if let Some(sampling) = sampling {
            Notice::Samples.tell(self.common, sampling);
        }
        if let Some(cost) = cost {
            Notice::Cost.tell(
                self.common,
                format_args!(
                    "{} threads stopped, the longest for {} µs; {} bytes read in {} calls, {}",
                    cost.threads_stopped,
                    cost.stopped_us,
                    cost.bytes_read,
                    cost.read_calls,
                    cost.written(),
                ),
            );
        }
    }
}

fn content(kind: &'static str, format: Format) -> Content {
    let (extension, form) = match format {
        Format::Pprof => (".pb.gz", Form::Binary(Payload::Profile.name())),
        Format::Folded => (".folded", Form::Text),
        Format::Flamegraph => (".svg", Form::Document),
        Format::Speedscope => (".speedscope.json", Form::Document),
        Format::Text => (".txt", Form::Text),
        Format::Json => (".json", Form::Json),
    };
    Content { kind, extension, form }
}

fn write_error(error: WriteError) -> Error {
    match error {
        WriteError::NoSampleType { .. } => Error::Usage(error.to_string()),
        other => Error::Failed(other.to_string()),
    }
}

/// Maximum size of an agent's profile in memory, compressed, in bytes.
const MAX_PACKED: usize = MAX_WRITTEN / 8;

/// Buffer of at most [`MAX_PACKED`] bytes.
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_PACKED {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
