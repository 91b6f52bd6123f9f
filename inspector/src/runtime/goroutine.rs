//! Values of `runtime.g` and `runtime.m`.

use super::fields::{GFields, MFields};

/// Values of `g.atomicstatus` without the scan bit (`runtime/runtime2.go`, Go 1.18–1.27).
pub mod status {
    /// Just allocated.
    pub const IDLE: u32 = 0;
    /// Waiting on a run queue.
    pub const RUNNABLE: u32 = 1;
    /// Executing Go code.
    pub const RUNNING: u32 = 2;
    /// Executing a system call or C code.
    pub const SYSCALL: u32 = 3;
    /// Blocked in the runtime.
    pub const WAITING: u32 = 4;
    /// Unused, exited, or not yet initialised.
    pub const DEAD: u32 = 6;
    /// Stack is being moved.
    pub const COPYSTACK: u32 = 8;
    /// Stopped itself for a preemption.
    pub const PREEMPTED: u32 = 9;
    /// Reported as leaked by the garbage collector (from Go 1.26).
    pub const LEAKED: u32 = 10;
    /// Reserved for a thread that C created (from Go 1.26).
    pub const DEADEXTRA: u32 = 11;
    /// Flag added while the garbage collector scans the stack.
    pub const SCAN: u32 = 0x1000;

    /// All names that [`name`] returns for known states.
    pub const NAMES: [&str; 10] = [
        "idle",
        "runnable",
        "running",
        "syscall",
        "waiting",
        "dead",
        "copystack",
        "preempted",
        "leaked",
        "waiting for cgo callback",
    ];

    /// Returns the name of a state as the runtime prints it (`gStatusStrings`).
    pub fn name(status: u32) -> &'static str {
        match status {
            IDLE => "idle",
            RUNNABLE => "runnable",
            RUNNING => "running",
            SYSCALL => "syscall",
            WAITING => "waiting",
            DEAD => "dead",
            COPYSTACK => "copystack",
            PREEMPTED => "preempted",
            LEAKED => "leaked",
            DEADEXTRA => "waiting for cgo callback",
            _ => "???",
        }
    }
}

/// Contents of a `runtime.g`, read at one moment. Addresses are runtime addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Goroutine {
    /// Address of the g.
    pub addr: u64,
    /// Goroutine id.
    pub goid: u64,
    /// Id of the goroutine that created this one; 0 if unknown (before Go 1.21).
    pub parent_goid: u64,
    /// Status as read, including the scan bit.
    pub raw_status: u32,
    /// Index of the wait reason.
    pub wait_reason: u8,
    /// Number of times, modulo 256, that the goroutine left the running state.
    pub tracking_seq: u8,
    /// True if the goroutine runs a cleanup of user code (from Go 1.25).
    pub running_cleanups: bool,
    /// Start of the wait on the monotonic clock, in nanoseconds; 0 until a garbage collection saw the
    /// goroutine wait.
    pub waitsince: i64,
    /// Address of the m that runs the goroutine, 0 if none.
    pub m: u64,
    /// Address of the m that the goroutine is locked to, 0 if none.
    pub lockedm: u64,
    /// Lower end of the stack.
    pub stack_lo: u64,
    /// Upper end of the stack.
    pub stack_hi: u64,
    /// Saved stack pointer.
    pub sched_sp: u64,
    /// Saved program counter.
    pub sched_pc: u64,
    /// Stack pointer at entry to the system call, 0 outside of one.
    pub syscallsp: u64,
    /// Program counter at entry to the system call.
    pub syscallpc: u64,
    /// Program counter of the `go` statement.
    pub gopc: u64,
    /// Entry address of the goroutine's function.
    pub startpc: u64,
    /// Address of the recorded ancestors, 0 if none.
    pub ancestors: u64,
    /// Address of the profiler labels, 0 if none.
    pub labels: u64,
    /// Address of the synctest bubble or group, 0 if none.
    pub bubble: u64,
}

impl Goroutine {
    /// Parses the bytes of a g at `addr`. Fields beyond `bytes` are 0.
    pub fn parse(fields: &GFields, addr: u64, bytes: &[u8]) -> Self {
        let word = |at: usize| load::<8>(bytes, at).map_or(0, u64::from_le_bytes);
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let optional = |at: Option<usize>| at.map_or(0, word);
        Goroutine {
            addr,
            goid: word(fields.goid),
            parent_goid: optional(fields.parent_goid),
            raw_status: load::<4>(bytes, fields.atomicstatus).map_or(0, u32::from_le_bytes),
            wait_reason: byte(fields.waitreason),
            tracking_seq: byte(fields.tracking_seq),
            running_cleanups: fields.running_cleanups.is_some_and(|at| byte(at) != 0),
            waitsince: word(fields.waitsince).cast_signed(),
            m: word(fields.m),
            lockedm: word(fields.lockedm),
            stack_lo: word(fields.stack_lo),
            stack_hi: word(fields.stack_hi),
            sched_sp: word(fields.sched_sp),
            sched_pc: word(fields.sched_pc),
            syscallsp: word(fields.syscallsp),
            syscallpc: word(fields.syscallpc),
            gopc: word(fields.gopc),
            startpc: word(fields.startpc),
            ancestors: word(fields.ancestors),
            labels: word(fields.labels),
            bubble: optional(fields.bubble),
        }
    }

    /// Returns the status without the scan bit.
    pub fn status(&self) -> u32 {
        self.raw_status & !status::SCAN
    }

    /// Returns true if the garbage collector holds the goroutine to scan its stack.
    pub fn is_scanned(&self) -> bool {
        self.raw_status & status::SCAN != 0
    }

    /// Returns true if the goroutine is parked or runnable but still has a thread. The thread is about to
    /// run it, has not yet recorded the stop, or continues for it on a system stack (`runtime.execute`,
    /// `casgstatus` before `dropg`, `casGToWaiting`; Go 1.18–1.27).
    pub fn is_parked_on_thread(&self) -> bool {
        self.m != 0 && matches!(self.status(), status::WAITING | status::RUNNABLE | status::LEAKED)
    }

    /// Returns true if the g holds no goroutine.
    pub fn is_dead(&self) -> bool {
        matches!(self.status(), status::IDLE | status::DEAD | status::DEADEXTRA)
    }

    /// Returns true if `sp` is in the goroutine's stack.
    pub fn stack_contains(&self, sp: u64) -> bool {
        self.stack_lo <= sp && sp < self.stack_hi
    }

    /// Returns true if the stack has a plausible size and address.
    pub fn has_plausible_stack(&self) -> bool {
        self.stack_lo < self.stack_hi
            && self.stack_hi - self.stack_lo <= MAX_STACK
            && self.stack_lo.is_multiple_of(8)
            && self.stack_hi < 1 << 56
    }

    /// Returns the current [`Epoch`] of the goroutine.
    pub fn epoch(&self) -> Epoch {
        Epoch {
            goid: self.goid,
            status: self.status(),
            tracking_seq: self.tracking_seq,
            m: self.m,
            stack: (self.stack_lo, self.stack_hi),
            sched: (self.sched_pc, self.sched_sp),
            syscall: (self.syscallpc, self.syscallsp),
        }
    }
}

/// Values that must be equal in two readings of a g for the stack read in between to be consistent.
///
/// The scan bit may change without a change of the stack. Only the tracking sequence reveals a goroutine
/// that ran and parked again at the same place (`runtime.casgstatus`). The sequence has eight bits: a
/// goroutine that stops 256 times between two readings seems to be in the same epoch. Consistency of the
/// stack must then be shown by other means. `g.m` is set before a thread runs the goroutine, and stays set
/// until after the stop is recorded (`runtime.execute`, `dropg`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epoch {
    goid: u64,
    status: u32,
    tracking_seq: u8,
    m: u64,
    stack: (u64, u64),
    sched: (u64, u64),
    syscall: (u64, u64),
}

impl Epoch {
    /// Returns true if the g copied to `bytes` is still in this epoch. While the target is stopped, this is
    /// the only work for each g.
    pub fn holds(&self, fields: &GFields, bytes: &[u8]) -> bool {
        let is = |at: usize, value: u64| load::<8>(bytes, at) == Some(value.to_le_bytes());
        let status = load::<4>(bytes, fields.atomicstatus).map(u32::from_le_bytes);
        is(fields.sched_sp, self.sched.1)
            && bytes.get(fields.tracking_seq) == Some(&self.tracking_seq)
            && status.is_some_and(|s| s & !status::SCAN == self.status)
            && is(fields.sched_pc, self.sched.0)
            && is(fields.m, self.m)
            && is(fields.goid, self.goid)
            && is(fields.stack_lo, self.stack.0)
            && is(fields.stack_hi, self.stack.1)
            && is(fields.syscallsp, self.syscall.1)
            && is(fields.syscallpc, self.syscall.0)
    }
}

/// Maximum plausible stack size in bytes. Go limits stacks to 1 GB by default; a program may raise the
/// limit.
const MAX_STACK: u64 = 1 << 40;

/// Contents of a `runtime.m`, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct M {
    /// Address of the m.
    pub addr: u64,
    /// Id of the m.
    pub id: i64,
    /// Thread id in the target's pid namespace; 0 for an m without a thread.
    pub procid: u64,
    /// Address of the goroutine that the m runs, 0 if none.
    pub curg: u64,
    /// Address of the scheduling goroutine.
    pub g0: u64,
    /// Address of the signal-handling goroutine.
    pub gsignal: u64,
    /// Address of the next older m.
    pub alllink: u64,
    /// Stack pointer of the caller of a vDSO function, 0 outside of one.
    pub vdso_sp: u64,
    /// Program counter of the caller of the vDSO function.
    pub vdso_pc: u64,
}

impl M {
    /// Parses the bytes of an m at `addr`. Fields beyond `bytes` are 0.
    pub fn parse(fields: &MFields, addr: u64, bytes: &[u8]) -> Self {
        let word = |at: usize| load::<8>(bytes, at).map_or(0, u64::from_le_bytes);
        let optional = |at: Option<usize>| at.map_or(0, word);
        M {
            addr,
            id: word(fields.id).cast_signed(),
            procid: word(fields.procid),
            curg: word(fields.curg),
            g0: word(fields.g0),
            gsignal: word(fields.gsignal),
            alllink: word(fields.alllink),
            vdso_sp: optional(fields.vdso_sp),
            vdso_pc: optional(fields.vdso_pc),
        }
    }
}

/// Returns the `N` bytes at `at`.
fn load<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
