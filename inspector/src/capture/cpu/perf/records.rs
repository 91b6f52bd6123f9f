//! Records in the buffers of perf events (`perf_event_open(2)`, section "MMAP layout").

use crate::arch::host;
use crate::native::frame::SampleRegisters;

/// Sample with the fields that [`sample_type`](super::events) requests, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sample {
    /// Number of the event; for an inherited event, the number of its origin.
    pub(super) id: u64,
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) time: u64,
    pub(super) in_kernel: bool,
    pub(super) kernel: Vec<u64>,
    /// Return addresses without the instruction pointer.
    pub(super) frames: Vec<u64>,
    pub(super) user: Option<SampleRegisters>,
    pub(super) stack: Vec<u8>,
}

/// Record with the fields that matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Sample(Box<Sample>),
    Fork { pid: u32, parent: u32, time: u64 },
    Exec { pid: u32, time: u64 },
    Exit { pid: u32, tid: u32, time: u64 },
    Lost { lost: u64, time: u64 },
}

impl Record {
    pub(super) fn time(&self) -> u64 {
        match self {
            Record::Sample(sample) => sample.time,
            Record::Fork { time, .. }
            | Record::Exec { time, .. }
            | Record::Exit { time, .. }
            | Record::Lost { time, .. } => *time,
        }
    }

    /// Parses a record without its header. `None` if it is of no interest, or broken.
    pub(super) fn parse(kind: u32, misc: u16, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        // All records except samples end with pid and tid, time, and number of the event.
        let ending = || bytes.len().checked_sub(16).and_then(|at| Fields(bytes.get(at..)?).word());
        Some(match kind {
            kind::SAMPLE => Record::Sample(Box::new(sample(misc, fields)?)),
            kind::FORK | kind::EXIT => {
                let (pid, parent) = fields.halves()?;
                let (tid, _) = fields.halves()?;
                let time = fields.word()?;
                if kind == kind::FORK {
                    Record::Fork { pid, parent, time }
                } else {
                    Record::Exit { pid, tid, time }
                }
            }
            kind::COMM if misc & MISC_COMM_EXEC != 0 => {
                Record::Exec { pid: fields.halves()?.0, time: ending()? }
            }
            kind::LOST => {
                fields.word()?;
                Record::Lost { lost: fields.word()?, time: ending()? }
            }
            kind::LOST_SAMPLES => Record::Lost { lost: fields.word()?, time: ending()? },
            _ => return None,
        })
    }
}

/// Values of `enum perf_event_type`.
mod kind {
    pub(super) const LOST: u32 = 2;
    pub(super) const COMM: u32 = 3;
    pub(super) const EXIT: u32 = 4;
    pub(super) const FORK: u32 = 7;
    pub(super) const SAMPLE: u32 = 9;
    pub(super) const LOST_SAMPLES: u32 = 13;
}

const MISC_CPUMODE: u16 = 7;
const MISC_KERNEL: u16 = 1;
const MISC_COMM_EXEC: u16 = 1 << 13;
/// Markers of `enum perf_callchain_context`: a marker is not an address; it tells the kind of the addresses
/// after it.
const CONTEXT_KERNEL: u64 = (-128i64).cast_unsigned();
const CONTEXT_USER: u64 = (-512i64).cast_unsigned();
const CONTEXT_MAX: u64 = (-4095i64).cast_unsigned();
/// Value of `PERF_SAMPLE_REGS_ABI_64`.
const ABI_64: u64 = 2;

fn sample(misc: u16, mut fields: Fields<'_>) -> Option<Sample> {
    let id = fields.word()?;
    let (pid, tid) = fields.halves()?;
    let time = fields.word()?;
    let in_kernel = misc & MISC_CPUMODE == MISC_KERNEL;
    let mut sample = Sample { id, pid, tid, time, in_kernel, ..Sample::default() };
    let length = fields.word()?;
    let chain = fields.take(usize::try_from(length).ok()?.checked_mul(8)?)?;
    let mut context = 0;
    for word in chain.chunks_exact(8) {
        let word = word.try_into().map(u64::from_le_bytes).ok()?;
        match context {
            _ if word >= CONTEXT_MAX => context = word,
            CONTEXT_KERNEL => sample.kernel.push(word),
            CONTEXT_USER => sample.frames.push(word),
            _ => {}
        }
    }
    // The first address is the instruction pointer.
    if !sample.frames.is_empty() {
        sample.frames.remove(0);
    }
    let abi = fields.word()?;
    if abi != 0 {
        let mut registers = [0; host::PERF_REGISTERS.count_ones() as usize];
        for register in &mut registers {
            *register = fields.word()?;
        }
        let [bp, sp, ip] = host::perf_registers(registers);
        sample.user = (abi == ABI_64).then_some(SampleRegisters { ip, sp, bp });
    }
    let size = usize::try_from(fields.word()?).ok()?;
    if size > 0 {
        let stack = fields.take(size)?;
        let filled = usize::try_from(fields.word()?).ok()?.min(size);
        sample.stack = stack.get(..filled)?.to_vec();
    }
    Some(sample)
}

struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn word(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn halves(&mut self) -> Option<(u32, u32)> {
        let mut half = || self.take(4)?.try_into().ok().map(u32::from_le_bytes);
        Some((half()?, half()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    const PID_AND_TID: u64 = 7 << 32 | 5;

    #[test]
    fn a_sample_in_a_system_call() {
        let mut bytes =
            words(&[99, PID_AND_TID, 1000, 6, CONTEXT_KERNEL, 0x8001, CONTEXT_USER, 0x10, 0x20, 0x30]);
        bytes.extend(words(&[ABI_64, 0xb0, 0xa0, 0x10, 16, 1, 2, 8]));
        let expected = Sample {
            id: 99,
            pid: 5,
            tid: 7,
            time: 1000,
            in_kernel: true,
            kernel: vec![0x8001],
            frames: vec![0x20, 0x30],
            user: Some(SampleRegisters { ip: 0x10, sp: 0xa0, bp: 0xb0 }),
            stack: 1u64.to_le_bytes().to_vec(),
        };
        let record = Record::parse(kind::SAMPLE, MISC_KERNEL, &bytes);
        assert_eq!(record, Some(Record::Sample(Box::new(expected))));
    }

    #[test]
    fn threads_of_the_kernel_have_no_registers() {
        let bytes = words(&[99, PID_AND_TID, 1000, 2, CONTEXT_KERNEL, 0x8001, 0, 0]);
        let Some(Record::Sample(sample)) = Record::parse(kind::SAMPLE, MISC_KERNEL, &bytes) else {
            panic!("no sample")
        };
        assert_eq!((sample.user, sample.kernel.len(), sample.frames.len()), (None, 1, 0));
    }

    #[test]
    fn lives_of_processes() {
        let fork = words(&[3 << 32 | 5, 4 << 32 | 7, 1000, PID_AND_TID, 1000, 99]);
        assert_eq!(Record::parse(kind::FORK, 0, &fork), Some(Record::Fork { pid: 5, parent: 3, time: 1000 }));
        let exit = Record::parse(kind::EXIT, 0, &fork);
        assert_eq!(exit, Some(Record::Exit { pid: 5, tid: 7, time: 1000 }));
        let name = words(&[PID_AND_TID, 0x74_6f68, PID_AND_TID, 2000, 99]);
        assert_eq!(Record::parse(kind::COMM, 0, &name), None);
        let exec = Record::parse(kind::COMM, MISC_COMM_EXEC, &name);
        assert_eq!(exec, Some(Record::Exec { pid: 5, time: 2000 }));
        let lost = words(&[99, 17, PID_AND_TID, 3000, 99]);
        assert_eq!(Record::parse(kind::LOST, 0, &lost), Some(Record::Lost { lost: 17, time: 3000 }));
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(kind in 0u32..16, misc: u16, bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Record::parse(kind, misc, &bytes);
        }

        #[test]
        fn no_length_is_believed(length: u64, abi in 0u64..4, size: u64, filled: u64) {
            let mut bytes = words(&[1, 2, 3, length]);
            bytes.extend(words(&[abi, 1, 2, 3, size, 4, filled]));
            let _ = Record::parse(kind::SAMPLE, 1, &bytes);
        }
    }
}
