//! Loader that uses `libbpf`.

mod said;

use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use libbpf_rs::btf::types::{DataSec, Var};
use libbpf_rs::{
    Btf, ErrorKind, Link, MapCore as _, MapFlags, MapHandle, Object as LoadedObject, ObjectBuilder,
    OpenObject, ProgramAttachType, ProgramMut, ProgramType, RingBuffer, RingBufferBuilder, UprobeMultiOpts,
    libbpf_sys,
};
use perf_event::Builder;
use perf_event::events::Software;

use super::{Object, Places, ProgramCost, Runs};
use crate::Error;
use crate::records::{Runtime, SampledTarget};

pub(super) struct Loaded {
    /// Links of attachments; the first field, because dropping a link ends its attachment.
    links: Vec<Link>,
    ring: RingBuffer<'static>,
    /// Copies of records from the ring buffer; each is passed on before the next one is made.
    received: Receiver<Vec<u8>>,
    records: MapHandle,
    targets: MapHandle,
    counters: MapHandle,
    object: LoadedObject,
}

const CONSTANTS: &str = ".rodata";

impl Loaded {
    pub(super) fn load(object: &Object<'_>) -> Result<Self, Error> {
        said::begin();
        let mut builder = ObjectBuilder::default();
        let mut open = builder
            .name("probe")
            .and_then(|builder| builder.open_memory(object.bytes))
            .map_err(failed("reading a BPF object"))?;
        set_constants(&mut open, object)?;
        for mut program in open.progs_mut() {
            let wanted = object.programs.iter().find(|wanted| program.name() == wanted.name);
            program.set_autoload(wanted.is_some());
            // The section of the program names another type, so that other loaders can read the object.
            if wanted.is_some_and(|wanted| matches!(wanted.runs, Runs::AtPlaces)) {
                program.set_prog_type(ProgramType::Kprobe);
                program.set_attach_type(ProgramAttachType::TraceUprobeMulti);
            }
        }
        let loaded = open.load().map_err(|error| not_loaded(&error, object))?;
        let records = map(&loaded, "records")?;
        let (send, received) = channel();
        let mut ring = RingBufferBuilder::new();
        ring.add(&records, move |bytes| {
            // Sending fails only if nobody reads any more.
            i32::from(send.send(bytes.to_vec()).is_err())
        })
        .map_err(failed("opening a BPF map"))?;
        let ring = ring.build().map_err(failed("opening a BPF map"))?;
        let (targets, counters) = (map(&loaded, "targets")?, map(&loaded, "counters")?);
        Ok(Loaded { links: Vec::new(), ring, received, records, targets, counters, object: loaded })
    }

    fn program(&self, name: &'static str) -> Result<ProgramMut<'_>, Error> {
        let missing = || Error::Other { action: "finding a BPF program", text: format!("no program {name}") };
        self.object.progs_mut().find(|program| program.name() == name).ok_or_else(missing)
    }
}

impl super::Loaded for Loaded {
    fn on_clock(&mut self, program: &'static str, cpus: &[u32], rate: u32) -> Result<(), Error> {
        said::begin();
        let mut links = Vec::new();
        for &cpu in cpus {
            let event = Builder::new(Software::CPU_CLOCK)
                .any_pid()
                .one_cpu(cpu as usize)
                .exclude_kernel(false)
                .exclude_hv(false)
                .sample_frequency(rate.into())
                .build()
                .map_err(|e| Error::of_system("opening a perf event", e))?;
            let event = event.into_raw_fd();
            match self.program(program)?.attach_perf_event(event) {
                Ok(link) => links.push(link),
                Err(error) => {
                    // SAFETY: the event is open, and nobody else owns it: a link takes it over only if the
                    // attachment succeeds.
                    drop(unsafe { OwnedFd::from_raw_fd(event) });
                    return Err(failed("opening a perf event")(error));
                }
            }
        }
        self.links.append(&mut links);
        Ok(())
    }

    fn on_tracepoint(&mut self, program: &'static str) -> Result<(), Error> {
        said::begin();
        let link = self.program(program)?.attach_trace().map_err(failed("attaching to a tracepoint"))?;
        self.links.push(link);
        Ok(())
    }

    /// Requires Linux 6.6. Before 6.10 the program runs only for the first thread of the named process.
    fn at_places(&mut self, program: &'static str, places: &Places<'_>) -> Result<(), Error> {
        const ACTION: &str = "attaching to places of a program";
        said::begin();
        let other = |text: String| Error::Other { action: ACTION, text };
        let offsets = places.offsets.iter().map(|&offset| usize::try_from(offset));
        let offsets = offsets.collect::<Result<Vec<_>, _>>().map_err(|e| other(e.to_string()))?;
        if offsets.is_empty() {
            return Err(other("there are none".to_owned()));
        }
        // For the library, pid -1 means all processes, and 0 means the caller.
        let pid = places.pid.map_or(Ok(-1), i32::try_from).map_err(|e| other(e.to_string()))?;
        let options = UprobeMultiOpts { offsets, ..UprobeMultiOpts::default() };
        let link = self.program(program)?.attach_uprobe_multi_with_opts(pid, places.file, "", options);
        self.links.push(link.map_err(failed(ACTION))?);
        Ok(())
    }

    fn add(&mut self, pid: u32, target: &SampledTarget) -> Result<(), Error> {
        said::begin();
        let added = self.targets.update(&pid.to_ne_bytes(), &bytes_of(target), MapFlags::ANY);
        added.map_err(failed("adding a target"))
    }

    fn counter(&self, index: u32) -> Result<u64, Error> {
        said::begin();
        let values = self.counters.lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY);
        let values = values.map_err(failed("reading counters"))?.unwrap_or_default();
        Ok(values.iter().filter_map(|value| value.first_chunk().copied()).map(u64::from_ne_bytes).sum())
    }

    fn cost(&self, program: &'static str) -> Option<ProgramCost> {
        let program = self.program(program).ok()?;
        let mut info = libbpf_sys::bpf_prog_info::default();
        let mut size = u32::try_from(size_of_val(&info)).ok()?;
        // SAFETY: the struct is as large as the size passed with it, and requests no arrays.
        let result = unsafe {
            libbpf_sys::bpf_prog_get_info_by_fd(program.as_fd().as_raw_fd(), &raw mut info, &raw mut size)
        };
        (result == 0)
            .then(|| ProgramCost { runs: info.run_cnt, time: Duration::from_nanos(info.run_time_ns) })
    }

    fn read(&mut self, each: &mut dyn FnMut(&[u8])) {
        while self.ring.consume_raw_n(1) > 0 {
            self.received.try_iter().for_each(|record| each(&record));
        }
    }

    fn ring(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }
}

fn map(object: &LoadedObject, name: &'static str) -> Result<MapHandle, Error> {
    const ACTION: &str = "opening a BPF map";
    let missing = || Error::Other { action: ACTION, text: format!("no map {name}") };
    let map = object.maps().find(|map| map.name() == name).ok_or_else(missing)?;
    MapHandle::try_from(&map).map_err(failed(ACTION))
}

/// Sets each constant, found by the types of the object: the library has only the bytes of all constants.
fn set_constants(open: &mut OpenObject, object: &Object<'_>) -> Result<(), Error> {
    let missing =
        |name: &str| Error::Other { action: "reading a BPF object", text: format!("no constant {name}") };
    let types = Btf::from_raw("probe", object.bytes).map_err(failed("reading a BPF object"))?;
    let section: Option<DataSec<'_>> = types.as_ref().and_then(|types| types.type_by_name(CONSTANTS));
    let mut map = open
        .maps_mut()
        .find(|map| map.name().as_encoded_bytes().ends_with(CONSTANTS.as_bytes()))
        .ok_or_else(|| missing(CONSTANTS))?;
    let values = map.initial_value_mut().ok_or_else(|| missing(CONSTANTS))?;
    for (name, value) in object.constants {
        let place = section.iter().flat_map(|section| section.iter()).find(|place| {
            let variable = types.as_ref().and_then(|types| types.type_by_id::<Var<'_>>(place.ty));
            variable.and_then(|variable| variable.name()).is_some_and(|found| found == *name)
        });
        let place = place.filter(|place| place.size == size_of_val(value)).ok_or_else(|| missing(name))?;
        let at = place.offset as usize;
        let bytes = values.get_mut(at..at + place.size).ok_or_else(|| missing(name))?;
        bytes.copy_from_slice(&value.to_ne_bytes());
    }
    Ok(())
}

/// Returns the bytes of a target as the BPF programs read them: `repr(C)`, without padding.
fn bytes_of(target: &SampledTarget) -> [u8; size_of::<SampledTarget>()] {
    let runtime = |runtime: &Runtime| {
        let &Runtime { g_m, g_goid, g_labels, g_sched_pc, g_sched_sp, g_sched_bp, m_curg, unused, .. } =
            runtime;
        let words = [
            runtime.text_start,
            runtime.text_end,
            runtime.morestack_start,
            runtime.morestack_end,
            runtime.systemstack_start,
            runtime.systemstack_end,
            runtime.tls_g.cast_unsigned(),
        ];
        let halves = [g_m, g_goid, g_labels, g_sched_pc, g_sched_sp, g_sched_bp, m_curg, unused];
        let halves = halves.map(u32::to_ne_bytes);
        [words.map(u64::to_ne_bytes).as_flattened(), halves.as_flattened()].concat()
    };
    let mut bytes = [0; size_of::<SampledTarget>()];
    let all = target.runtimes.iter().flat_map(runtime);
    let all = all.chain([target.count, target.flags].into_iter().flat_map(u32::to_ne_bytes));
    bytes.iter_mut().zip(all).for_each(|(byte, value)| *byte = value);
    bytes
}

/// Converts an error of the library, with its messages since the action began.
fn failed(action: &'static str) -> impl Fn(libbpf_rs::Error) -> Error {
    move |error| match error.kind() {
        ErrorKind::PermissionDenied => {
            Error::Denied { action, source: io::ErrorKind::PermissionDenied.into() }
        }
        _ => Error::Other { action, text: format!("{error:#}{}", said::in_brackets()) },
    }
}

fn not_loaded(error: &libbpf_rs::Error, object: &Object<'_>) -> Error {
    let refused =
        object.programs.iter().find_map(|program| Some((program.name, said::log_of(program.name)?)));
    match refused {
        Some((program, log)) => Error::refused(program, io::Error::other(error.to_string()), &log),
        None if error.kind() == ErrorKind::PermissionDenied => Error::Denied {
            action: "creating BPF maps or loading a program",
            source: io::ErrorKind::PermissionDenied.into(),
        },
        None => {
            Error::Other { action: "loading a BPF object", text: format!("{error:#}{}", said::in_brackets()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_the_bytes_that_they_have_in_memory() {
        let runtime = Runtime {
            text_start: 0x0807_0605_0403_0201,
            text_end: 2,
            morestack_start: 11,
            morestack_end: 12,
            systemstack_start: 13,
            systemstack_end: 14,
            tls_g: -8,
            g_m: 3,
            g_goid: 4,
            g_labels: 5,
            g_sched_sp: 6,
            g_sched_bp: 7,
            m_curg: 8,
            g_sched_pc: 10,
            unused: 15,
        };
        let last = Runtime { tls_g: -16, m_curg: 11, ..Runtime::default() };
        let runtimes = [runtime, Runtime::default(), runtime, last];
        let target = SampledTarget { runtimes, count: 9, flags: 10 };
        // SAFETY: the struct is `repr(C)`, has no padding, and its bytes are only read.
        let expected = unsafe { *(&raw const target).cast::<[u8; size_of::<SampledTarget>()]>() };
        assert_eq!(bytes_of(&target), expected);
    }
}
