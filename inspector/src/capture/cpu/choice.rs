//! Choice of the sample source: the best one that works here.

use super::bpf::Bpf;
use super::known::SampledProgram;
use super::mode::{CaptureOptions, Mode};
use super::perf::{self, Perf};
use super::privileges;
use super::ptrace::{self, Ptrace};
use super::source::{MAX_STACK, Source};
use crate::Error;

/// Reason why a source cannot take samples.
type Why = Box<dyn std::error::Error>;

fn why_no_bpf(error: probe_ebpf::Error) -> Why {
    if error.is_denied() { format!("{error}: {}", privileges::for_bpf()).into() } else { error.into() }
}

/// Chosen source.
pub(super) struct Chosen {
    pub(super) source: Box<dyn Source>,
    pub(super) mode: Mode,
    /// Samples per second and CPU that the source can take.
    pub(super) rate: u32,
    /// Reasons why better sources are not used.
    pub(super) because: Vec<String>,
}

/// Returns the best source that works, with the reasons against better ones.
pub(super) fn choose(options: &CaptureOptions, known: &[SampledProgram]) -> Result<Chosen, Error> {
    let mut because = Vec::new();
    for mode in [Mode::Bpf, Mode::Perf, Mode::Ptrace] {
        if options.mode.is_some_and(|wanted| wanted != mode) {
            continue;
        }
        let tried = match mode {
            Mode::Bpf => bpf(options, known),
            Mode::Perf => perf_events(options, known),
            Mode::Ptrace => stops(options, known),
        };
        match tried {
            Ok((source, rate)) => return Ok(Chosen { source, mode, rate, because }),
            Err(why) => because.push(format!("{mode}: {why}")),
        }
    }
    Err(Error::Failed(format!("no samples can be taken: {}", because.join("; "))))
}

fn bpf(options: &CaptureOptions, known: &[SampledProgram]) -> Result<(Box<dyn Source>, u32), Why> {
    let loaded = Bpf::load(probe_ebpf::cpu::SamplerOptions {
        rate: options.rate,
        whole_system: options.whole_system,
        kernel_frames: options.kernel_frames,
        stack: MAX_STACK,
        follow: options.children,
        loader: options.loader,
    });
    let mut source = loaded.map_err(why_no_bpf)?;
    add_all(known, &mut source)?;
    source.start().map_err(why_no_bpf)?;
    Ok((Box::new(source), options.rate))
}

fn perf_events(options: &CaptureOptions, known: &[SampledProgram]) -> Result<(Box<dyn Source>, u32), Why> {
    let mut source = Perf::open(perf::PerfOptions {
        rate: options.rate,
        whole_system: options.whole_system,
        kernel_frames: options.kernel_frames,
        follow: options.children,
        scope: None,
    })?;
    add_all(known, &mut source)?;
    let rate = source.rate();
    Ok((Box::new(source), rate))
}

fn stops(options: &CaptureOptions, known: &[SampledProgram]) -> Result<(Box<dyn Source>, u32), Why> {
    if options.whole_system {
        return Err("it needs processes to stop: name some".into());
    }
    let mut source = Ptrace::new(ptrace::PtraceOptions { rate: options.rate, follow: options.children });
    add_all(known, &mut source)?;
    let rate = source.rate();
    Ok((Box::new(source), rate))
}

fn add_all(known: &[SampledProgram], source: &mut dyn Source) -> Result<(), Why> {
    for known in known {
        source.add(known.pid, &known.go_targets())?;
    }
    Ok(())
}
