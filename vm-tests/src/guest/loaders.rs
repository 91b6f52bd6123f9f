//! Each loader of BPF programs on the same kernel.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use fixtures::pprof as read;
use inspector::capture::cpu::mode::{CaptureOptions, Loader, Mode};
use inspector::capture::cpu::profile::profile;
use inspector::capture::cpu::session::{Captured, capture};
use inspector::process::Process;
#[cfg(feature = "libbpf")]
use inspector::process::maps::Mapping;
use inspector::profile::pprof;

use super::sampling::{ENOUGH, busy, shares, still};
use super::targets::HOT;
use super::{Done, Failure, Machine, ensure};

/// Why there is nothing to compare.
#[cfg(not(feature = "libbpf"))]
const ONE: &str = "built without the second loader (--features libbpf, as scripts/vm-tests does)";

/// BPF programs of ours that the kernel has.
fn programs() -> usize {
    let ours = |name: Option<&str>| matches!(name, Some("on_cpu" | "on_fork" | "on_exec"));
    aya::programs::loaded_programs().flatten().filter(|info| ours(info.name_as_str())).count()
}

pub(crate) fn each_has_the_shares(machine: &Machine) -> Result<Done, Failure> {
    #[cfg(not(feature = "libbpf"))]
    if machine.own {
        return Ok(Done::Lacking(ONE.to_owned()));
    }
    let target = busy(machine.target(&HOT)?)?;
    let mut done = Vec::new();
    for &loader in Loader::ALL {
        let before = programs();
        let (captured, loaded) = match sampled(target.pid(), loader) {
            Err(error) if !machine.own => {
                still(target)?;
                return Ok(Done::Lacking(format!("by {loader:?}: {error}")));
            }
            other => other?,
        };
        let what = format!("{loader:?}");
        let samples = captured.counts.taken;
        ensure(captured.counts.lost == 0, || format!("{what}: {:?}", captured.counts))?;
        let text = shares_of(&what, samples, captured)?;
        // What is on this machine beside us is not ours to count.
        if machine.own {
            ensure(loaded == before + 2, || format!("{what}: {loaded} programs, {before} before"))?;
            until(&what, || programs() == before)?;
        }
        done.push(format!("{text} by {what}"));
    }
    still(target)?;
    Ok(Done::Passed(done.join("; ")))
}

/// For longer and longer until there is enough; and how many programs the kernel had meanwhile.
fn sampled(pid: u32, loader: Loader) -> Result<(Captured, usize), Failure> {
    let process = Process::pin(pid.try_into()?)?;
    let mut seconds = 2;
    loop {
        let options = CaptureOptions {
            rate: 99,
            duration: Duration::from_secs(seconds),
            whole_system: false,
            children: false,
            by_thread: false,
            kernel_frames: true,
            mode: Some(Mode::Bpf),
            loader,
        };
        let mut loaded = 0;
        let captured = capture(std::slice::from_ref(&process), &options, &mut || {
            loaded = loaded.max(programs());
            ControlFlow::Continue(())
        })?;
        if captured.counts.taken >= ENOUGH || seconds >= 20 {
            return Ok((captured, loaded));
        }
        seconds *= 3;
    }
}

fn shares_of(what: &str, samples: u64, mut captured: Captured) -> Result<String, Failure> {
    ensure(samples >= ENOUGH, || format!("{what}: {samples} samples are too few"))?;
    let profile = read::parse(&pprof::write(&profile(&mut captured, &|_| None)));
    let rows = profile.ok_or_else(|| format!("{what}: not a profile"))?.rows;
    let [all, parts @ ..] = shares(&rows);
    let text = format!("{samples} samples, {all} in its work: {parts:?}");
    ensure(all * 10 >= samples * 6 && parts.iter().all(|&part| part > 0), || format!("{what}: {text}"))?;
    Ok(text)
}

/// What the kernel frees when no CPU can be in it any more.
fn until(what: &str, gone: impl Fn() -> bool) -> Result<(), Failure> {
    let start = Instant::now();
    while !gone() {
        ensure(start.elapsed() < Duration::from_secs(60), || format!("{what}: programs are left"))?;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[cfg(not(feature = "libbpf"))]
pub(crate) fn places(_: &Machine) -> Result<Done, Failure> {
    Ok(Done::Lacking(ONE.to_owned()))
}

/// The runner's own calls.
#[cfg(feature = "libbpf")]
pub(crate) fn places(machine: &Machine) -> Result<Done, Failure> {
    use probe_ebpf::cpu::{self, Places, Sampler};
    use probe_ebpf::records::SampledTarget;

    let version = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    let has = (numbers.next(), numbers.next()) >= (Some(6), Some(6));
    let options = cpu::SamplerOptions {
        rate: 99,
        whole_system: false,
        kernel_frames: false,
        stack: 1024,
        follow: false,
        loader: Loader::Libbpf,
    };
    let functions = [one, two, three].map(|function: extern "C" fn(u64) -> u64| function as usize as u64);
    let offsets = functions.map(|address| own_offset(address).unwrap_or_default());
    let pid = std::process::id();
    let places = Places { file: "/proc/self/exe".as_ref(), pid: Some(pid), offsets: &offsets };
    let begun = Sampler::load_for_places(&options).and_then(|mut sampler| {
        sampler.add(pid, &SampledTarget::default())?;
        sampler.start_at(&options, &places)?;
        Ok(sampler)
    });
    let mut sampler = match begun {
        Err(error) if !has => {
            return Ok(Done::Passed(format!("as it has to be before Linux 6.6, it is refused: {error}")));
        }
        Err(error) if !machine.own && error.is_denied() => return Ok(Done::Lacking(error.to_string())),
        other => other?,
    };
    ensure(has, || "they work, though Linux has them only from 6.6 on".to_owned())?;
    let calls = [10, 20, 30];
    (0..calls[0]).for_each(|n| _ = one(n));
    (0..calls[1]).for_each(|n| _ = two(n));
    (0..calls[2]).for_each(|n| _ = three(n));
    let mut seen = [0u64; 3];
    sampler.read(|record| {
        if let probe_ebpf::records::Record::Sample(sample) = record
            && let Some(at) =
                functions.iter().position(|&address| sample.user.is_some_and(|r| r.ip == address))
        {
            seen[at] += 1;
        }
    });
    ensure(seen == calls, || format!("{seen:?} calls were seen, not {calls:?}"))?;
    Ok(Done::Passed(format!("{seen:?} calls of three functions, as there were")))
}

// Different, or else the linker makes one of them.
#[cfg(feature = "libbpf")]
#[inline(never)]
extern "C" fn one(n: u64) -> u64 {
    std::hint::black_box(n).wrapping_add(11)
}

#[cfg(feature = "libbpf")]
#[inline(never)]
extern "C" fn two(n: u64) -> u64 {
    std::hint::black_box(n).wrapping_mul(12)
}

#[cfg(feature = "libbpf")]
#[inline(never)]
extern "C" fn three(n: u64) -> u64 {
    std::hint::black_box(n) ^ 13
}

/// The offset in our own file of what is at an address.
#[cfg(feature = "libbpf")]
fn own_offset(address: u64) -> Option<u64> {
    let maps = Mapping::parse_all(&std::fs::read("/proc/self/maps").ok()?);
    let found = maps.iter().find(|mapping| mapping.contains(address))?;
    Some(address - found.start + found.offset)
}
