//! BPF programs that sample what runs on the CPUs.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use caps::Capability;
use fixtures::Fixture;
use probe_ebpf::cpu::{Options, Sampler};
use probe_ebpf::records::{Record, Target};

use super::identity::{OTHER, OWNER};
use super::machine::expect;
use super::targets::RUNNING;
use super::{Done, Failure, Machine, ensure};

const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// Samples that are enough to judge by.
const ENOUGH: u64 = 40;

/// How long they are waited for: an emulated machine has its own idea of time.
const PATIENCE: Duration = Duration::from_secs(30);

const OPTIONS: Options =
    Options { rate: 199, whole_system: false, kernel_frames: true, stack: 4096, follow: true };

/// Samples a process that is busy in its own code, until there is enough to say how it went.
///
/// # Errors
/// What the kernel lacks or denies ([`probe_ebpf::Error`]), or what is wrong with the samples.
pub fn sample(pid: u32) -> Result<String, Failure> {
    let begin = Instant::now();
    let mut sampler = Sampler::load(&OPTIONS)?;
    let loaded = begin.elapsed();
    sampler.add(pid, &Target::default())?;
    sampler.start(&OPTIONS)?;
    let code = code(pid)?;
    let (mut samples, mut user, mut inside, mut stacks, mut foreign) = (0u64, 0u64, 0u64, 0u64, 0u64);
    let begin = Instant::now();
    while samples < ENOUGH && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
        sampler.read(|record| match record {
            Record::Sample(sample) => {
                samples += 1;
                foreign += u64::from(sample.pid != pid);
                if let (false, Some(registers)) = (sample.in_kernel, sample.user) {
                    user += 1;
                    let known = code.iter().any(|&(start, end)| (start..end).contains(&registers.ip));
                    inside += u64::from(known && registers.sp != 0);
                }
            }
            Record::Stack(part) => stacks += u64::from(!part.bytes.is_empty()),
            _ => {}
        });
    }
    let counts = sampler.counts()?;
    let mut text = format!("{samples} samples, {user} in user code, {inside} of them in mapped code");
    let _ = write!(text, ", {stacks} copies of stacks, {counts:?}, loaded in {loaded:.1?}");
    ensure(samples >= ENOUGH, || format!("too few samples: {text}"))?;
    ensure(foreign == 0, || format!("{foreign} samples of other processes: {text}"))?;
    ensure(inside == user && user * 2 > samples, || format!("samples outside of its code: {text}"))?;
    ensure(stacks * 10 >= samples * 9, || format!("stacks are missing: {text}"))?;
    ensure(counts.taken >= samples && counts.lost == 0, || format!("lost samples: {text}"))?;
    Ok(text)
}

/// The ranges of its code that a process has mapped.
fn code(pid: u32) -> Result<Vec<(u64, u64)>, Failure> {
    let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else {
        // Another user's: what is user space's at all.
        return Ok(vec![(1 << 12, 1 << 47)]);
    };
    let ranges = maps.lines().filter(|line| line.contains(" r-xp ")).filter_map(|line| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    });
    Ok(ranges.collect())
}

fn busy(mut target: Fixture) -> Result<Fixture, Failure> {
    let answer = target.command("start loop 1")?;
    ensure(answer.starts_with("ok "), || format!("the target says {answer}"))?;
    Ok(target)
}

fn still(mut target: Fixture) -> Result<(), Failure> {
    target.assert_untouched()?;
    target.order("stop")?;
    Ok(())
}

pub(crate) fn sampler(machine: &Machine) -> Result<Done, Failure> {
    let target = busy(machine.target(&RUNNING)?)?;
    let text = match sample(target.pid()) {
        Ok(text) => text,
        Err(error) if lacking(machine, &error.to_string()) => {
            still(target)?;
            return Ok(Done::Lacking(error.to_string()));
        }
        Err(error) => return Err(error),
    };
    still(target)?;
    Ok(Done::Passed(text))
}

/// Whether this is a machine of somebody else that has no types, or forbids BPF even to us.
fn lacking(machine: &Machine, error: &str) -> bool {
    !machine.own && (error.contains("does not describe its types") || error.contains("the kernel denies"))
}

pub(crate) fn needs(machine: &Machine) -> Result<Done, Failure> {
    if let Some(why) = machine.no_other_users() {
        return Ok(Done::Lacking(why));
    }
    let target = busy(machine.target_as(OWNER, &RUNNING)?)?;
    let pid = target.pid().to_string();
    let run = |capabilities| machine.runner_as(OTHER.with(capabilities), &["sample", &pid]);
    let both = &[Capability::CAP_BPF, Capability::CAP_PERFMON];
    let paranoid = fs::read_to_string(PARANOID)?;
    let mut causes = Vec::new();
    if machine.own {
        // A level of Debian's and Ubuntu's kernels alone, and their default.
        fs::write(PARANOID, "3")?;
        let output = run(both)?;
        expect("both in perf_event_paranoid 3", &output, 5, &["the kernel denies"])?;
        causes.push(format!(
            "both in perf_event_paranoid 3: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
        fs::write(PARANOID, "2")?;
    }
    let both = run(both)?;
    let text = String::from_utf8_lossy(&both.stderr).into_owned();
    if lacking(machine, &text) {
        still(target)?;
        return Ok(Done::Lacking(text));
    }
    expect("with CAP_BPF and CAP_PERFMON", &both, 0, &[])?;
    for (with, capabilities) in [
        ("neither", &[][..]),
        ("CAP_BPF only", &[Capability::CAP_BPF]),
        ("CAP_PERFMON only", &[Capability::CAP_PERFMON]),
    ] {
        let output = run(capabilities)?;
        expect(with, &output, 5, &["the kernel denies"])?;
        causes.push(format!("{with}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    if machine.own {
        fs::write(PARANOID, paranoid.trim())?;
    }
    still(target)?;
    Ok(Done::Passed(format!("works with both (perf_event_paranoid up to 2); {}", causes.join("; "))))
}
