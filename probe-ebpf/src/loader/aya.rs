//! Loader that uses `aya`.

use std::os::fd::{AsFd as _, BorrowedFd};

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{self, BtfTracePoint, PerfEvent, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader, Pod, VerifierLogLevel};

#[cfg(feature = "libbpf")]
use super::Places;
use super::{Object, ProgramCost, Runs};
use crate::Error;
use crate::records::SampledTarget;

// SAFETY: the struct is `repr(C)`, has no padding, and any bytes are a valid value.
unsafe impl Pod for SampledTarget {}

pub(super) struct Loaded {
    // Declared before the programs, so that it is unmapped first.
    records: RingBuf<MapData>,
    targets: HashMap<MapData, u32, SampledTarget>,
    counters: PerCpuArray<MapData, u64>,
    ebpf: Ebpf,
}

impl Loaded {
    pub(super) fn load(object: &Object<'_>) -> Result<Self, Error> {
        // The log of a program that passes costs more than its verification.
        match Self::load_with(object, VerifierLogLevel::DISABLE) {
            Err(Error::Refused { .. }) => Self::load_with(object, VerifierLogLevel::default()),
            other => other,
        }
    }

    fn load_with(object: &Object<'_>, log: VerifierLogLevel) -> Result<Self, Error> {
        let btf = Btf::from_sys_fs().map_err(|e| Error::NoTypes(e.to_string()))?;
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf)).verifier_log_level(log);
        for (name, value) in object.constants {
            loader.override_global(name, value, true);
        }
        let mut ebpf = loader.load(object.bytes).map_err(|e| Error::new("creating BPF maps", e))?;
        for wanted in object.programs {
            let refused = |e| Error::of_program(wanted.name, e);
            match wanted.runs {
                Runs::OnClock => program::<PerfEvent>(&mut ebpf, wanted.name)?.load().map_err(refused)?,
                Runs::OnTracepoint(tracepoint) => {
                    program::<BtfTracePoint>(&mut ebpf, wanted.name)?
                        .load(tracepoint, &btf)
                        .map_err(refused)?;
                }
                #[cfg(feature = "libbpf")]
                Runs::AtPlaces => return Err(no_places()),
            }
        }
        Ok(Loaded {
            records: map(&mut ebpf, "records")?,
            targets: map(&mut ebpf, "targets")?,
            counters: map(&mut ebpf, "counters")?,
            ebpf,
        })
    }
}

impl super::Loaded for Loaded {
    fn on_clock(&mut self, name: &'static str, cpus: &[u32], rate: u32) -> Result<(), Error> {
        let program: &mut PerfEvent = program(&mut self.ebpf, name)?;
        for &cpu in cpus {
            program
                .attach(
                    PerfEventConfig::Software(SoftwareEvent::CpuClock),
                    PerfEventScope::AllProcessesOneCpu { cpu },
                    SamplePolicy::Frequency(rate.into()),
                    false,
                )
                .map_err(|e| Error::new("opening a perf event", e))?;
        }
        Ok(())
    }

    fn on_tracepoint(&mut self, name: &'static str) -> Result<(), Error> {
        let program: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
        program.attach().map_err(|e| Error::new("attaching to a tracepoint", e))?;
        Ok(())
    }

    #[cfg(feature = "libbpf")]
    fn at_places(&mut self, _: &'static str, _: &Places<'_>) -> Result<(), Error> {
        Err(no_places())
    }

    fn add(&mut self, pid: u32, target: &SampledTarget) -> Result<(), Error> {
        self.targets.insert(pid, target, 0).map_err(|e| Error::new("adding a target", e))
    }

    fn counter(&self, index: u32) -> Result<u64, Error> {
        let values = self.counters.get(&index, 0).map_err(|e| Error::new("reading counters", e))?;
        Ok(values.iter().sum())
    }

    fn cost(&self, program: &'static str) -> Option<ProgramCost> {
        let info = self.ebpf.program(program)?.info().ok()?;
        Some(ProgramCost { runs: info.run_count(), time: info.run_time() })
    }

    fn read(&mut self, each: &mut dyn FnMut(&[u8])) {
        while let Some(item) = self.records.next() {
            each(&item);
        }
    }

    fn ring(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }
}

/// Error for places: `aya` has no single attachment to many places, and one attachment for each takes seconds
/// to end.
#[cfg(feature = "libbpf")]
fn no_places() -> Error {
    Error::Other { action: "attaching to places of a program", text: "aya cannot".to_owned() }
}

fn program<'e, T>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut T, Error>
where
    &'e mut T: TryFrom<&'e mut programs::Program, Error = ProgramError>,
{
    let missing = Error::Other { action: "finding a BPF program", text: format!("no program {name}") };
    let program = ebpf.program_mut(name).ok_or(missing)?;
    program.try_into().map_err(|e| Error::new("finding a BPF program", e))
}

fn map<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, Error>
where
    T: TryFrom<Map, Error = MapError>,
{
    let missing = || Error::Other { action: "opening a BPF map", text: format!("no map {name}") };
    let map = ebpf.take_map(name).ok_or_else(missing)?;
    T::try_from(map).map_err(|e| Error::new("opening a BPF map", e))
}
