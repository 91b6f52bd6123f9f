//! What differs between minor releases of Go and no table of layouts says: the only place that compares their numbers.
//!
//! Each fact names the file and the function of Go's source that it was taken from. A new minor release either changes
//! none of them, or gets a fact here.

use std::fmt;

/// A minor release of Go: 27 of Go 1.27.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoRelease(u32);

impl fmt::Display for GoRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "go1.{}", self.0)
    }
}

impl GoRelease {
    /// The release Go 1.`minor`.
    pub const fn of_minor(minor: u32) -> Self {
        Self(minor)
    }

    /// 27 of Go 1.27.4.
    pub const fn minor(self) -> u32 {
        self.0
    }
}

/// The collector and its pacer.
impl GoRelease {
    /// Whether there is a memory limit (GOMEMLIMIT): `runtime/mgcpacer.go`, `gcControllerState.memoryLimit`. From Go 1.19.
    pub const fn has_memory_limit(self) -> bool {
        self.0 >= 19
    }

    /// Whether the heap's goal is computed whenever it is asked for, of `gcPercentHeapGoal`, rather than stored in `heapGoal`
    /// and `trigger`: `runtime/mgcpacer.go`, `gcControllerState.heapGoal` and `commit`. From Go 1.19.
    pub const fn computes_heap_goal(self) -> bool {
        self.0 >= 19
    }

    /// Whether the heap's sizes are counted in `gcController` (`heapInUse`, `totalAlloc`) rather than in `memstats`:
    /// `runtime/mgcpacer.go`, `gcControllerState`. From Go 1.19.
    pub const fn counts_heap_in_controller(self) -> bool {
        self.0 >= 19
    }

    /// The field that has the bytes of stacks which the last collection scanned: `runtime/mgcpacer.go`,
    /// `gcControllerState`. Renamed in Go 1.19.
    pub const fn stack_scan_field(self) -> &'static str {
        if self.0 >= 19 { "lastStackScan" } else { "stackScan" }
    }

    /// Whether the room below the memory limit grows with it, three percent: `runtime/mgcpacer.go`,
    /// `memoryLimitHeapGoalHeadroomPercent`. From Go 1.21.
    pub const fn leaves_share_of_limit(self) -> bool {
        self.0 >= 21
    }
}

/// Goroutines of the runtime's own, and what a g refers to.
impl GoRelease {
    /// Whether the finalizer goroutine's state is a word of flags, `fingStatus`, rather than bools: `runtime/mfinal.go`,
    /// `fingRunningFinalizer`. From Go 1.20.
    pub const fn has_finalizer_flags(self) -> bool {
        self.0 >= 20
    }

    /// The variable that says what the finalizer goroutine does: `runtime/mfinal.go`.
    pub const fn finalizer_state_variable(self) -> &'static str {
        if self.has_finalizer_flags() { "runtime.fingStatus" } else { "runtime.fingRunning" }
    }

    /// Whether cleanups have goroutines of their own, which are the runtime's while they run no cleanup:
    /// `runtime/traceback.go`, `isSystemGoroutine`. From Go 1.25.
    pub const fn has_cleanup_goroutines(self) -> bool {
        self.0 >= 25
    }

    /// Whether a g refers to its labels as a list rather than as a map: `runtime/pprof/label.go`, `labelMap`. From Go 1.24.
    pub const fn keeps_labels_in_list(self) -> bool {
        self.0 >= 24
    }

    /// Whether goroutines of a test share a `synctestBubble` with a number of its own, rather than a `synctestGroup`, which
    /// is named by its root: `runtime/synctest.go`. From Go 1.25; groups are those of Go 1.24.
    pub const fn has_synctest_bubbles(self) -> bool {
        self.0 >= 25
    }

    /// The number of wrapper functions where none is in the program: `internal/abi/symtab.go`, `FuncIDWrapper`
    /// (`runtime/symtab.go`, `funcID_wrapper` before Go 1.21). It moved in Go 1.22 and 1.25.
    pub const fn wrapper_id(self) -> u8 {
        match self.0 {
            ..22 => 21,
            22..25 => 22,
            25.. => 23,
        }
    }
}

/// Texts of tracebacks.
impl GoRelease {
    /// Whether a header of a traceback with runtime frames names the addresses of g and m: `runtime/traceback.go`,
    /// `goroutineheader`. From Go 1.22.
    pub const fn names_g_and_m(self) -> bool {
        self.0 >= 22
    }

    /// Whether headers mark waits that only the goroutine's own bubble can end: `runtime/traceback.go`, `goroutineheader`.
    /// From Go 1.25.
    pub const fn marks_durable_waits(self) -> bool {
        self.0 >= 25
    }

    /// Whether that mark is only there while the goroutine waits, not where its wait reason is an old one:
    /// `runtime/traceback.go`, `goroutineheader`. From Go 1.26.
    pub const fn marks_durable_waits_only_while_waiting(self) -> bool {
        self.0 >= 26
    }

    /// The word for the bubble of a goroutine in its header: `runtime/traceback.go`, `goroutineheader`. Changed in Go 1.25.
    pub const fn bubble_word(self) -> &'static str {
        if self.has_synctest_bubbles() { "bubble" } else { "group" }
    }

    /// Whether headers can have labels: `runtime/runtime1.go`, `debug.tracebacklabels`. From Go 1.26.
    pub const fn has_traceback_labels(self) -> bool {
        self.0 >= 26
    }

    /// Whether labels stand behind the brackets, and are quoted only where they have to be: `runtime/traceback.go`,
    /// `goroutineheader` and `tracebackStringNeedsQuoting`. From Go 1.27; in Go 1.26 they stand within.
    pub const fn prints_labels_behind_state(self) -> bool {
        self.0 >= 27
    }

    /// Whether a stack that is too deep loses its middle, rather than its end: `runtime/traceback.go`, `traceback1` with
    /// `tracebackInnerFrames`. From Go 1.21.
    pub const fn leaves_out_middle_frames(self) -> bool {
        self.0 >= 21
    }

    /// The most frames that are kept of an ancestor: `runtime/proc.go`, `saveAncestors`, with `tracebackInnerFrames` from
    /// Go 1.21 on, `_TracebackMaxFrames` before.
    pub const fn ancestor_frames(self) -> usize {
        if self.0 >= 21 { 50 } else { 100 }
    }

    /// Whether type arguments are shortened when they are printed; before, the linker wrote `[...]`:
    /// `runtime/traceback.go`, `funcNameForPrint`. From Go 1.21.
    pub const fn shortens_type_arguments(self) -> bool {
        self.0 >= 21
    }

    /// Whether a generic method of a generic type has two lists of type arguments, of which each is shortened:
    /// `runtime/traceback.go`, `funcNamePiecesForPrint`. From Go 1.27.
    pub const fn has_generic_methods(self) -> bool {
        self.0 >= 27
    }

    /// Whether the loops that run finalizers and cleanups are printed among user frames: `runtime/traceback.go`,
    /// `showframe`, with `FuncID_runFinalizers` and `FuncID_runCleanups`. From Go 1.25.
    pub const fn shows_finalizer_loops(self) -> bool {
        self.0 >= 25
    }

    /// Whether a method of the runtime counts as exported only where its receiver is too: `runtime/traceback.go`,
    /// `isExportedRuntime`. From Go 1.23; before, only the letter behind the package counts.
    pub const fn looks_at_receivers(self) -> bool {
        self.0 >= 23
    }

    /// Whether messages about unknown program counters and unexpected return addresses name the goroutine: `runtime/traceback.go`, `gentraceback`, and from
    /// Go 1.21 `unwinder.initAt`. From Go 1.19.
    pub const fn names_goroutine_of_unknown_pc(self) -> bool {
        self.0 >= 19
    }

    /// Whether it names the address of the g as well: `runtime/traceback.go`, `unwinder.initAt`. From Go 1.22.
    pub const fn names_g_of_unknown_pc(self) -> bool {
        self.0 >= 22
    }

    /// Whether liveness of arguments is looked up at the program counter of the call, not at that of the outermost inlined
    /// one: `runtime/traceback.go`, `traceback2` and its `printArgs`. From Go 1.21.
    pub const fn looks_up_arguments_at_call(self) -> bool {
        self.0 >= 21
    }
}

/// Walking stacks.
impl GoRelease {
    /// Whether the caller of an injected call (preemption, a debugger's) was interrupted, as that of `sigpanic` was in each
    /// release: `runtime/traceback.go`, `unwinder.next`. From Go 1.21.
    pub const fn injects_calls_as_interrupts(self) -> bool {
        self.0 >= 21
    }
}

/// Buckets of profiles.
impl GoRelease {
    /// The most entries that a bucket's stack has: `runtime/mprof.go`, `maxStack`, from Go 1.23 on `maxProfStackDepth`.
    pub const fn max_bucket_depth(self) -> u64 {
        if self.0 >= 23 { 1024 } else { 32 }
    }

    /// Whether the depth of a profile's stacks is a setting: `runtime/extern.go`, `debug.profstackdepth`. From Go 1.23.
    pub const fn has_profile_depth(self) -> bool {
        self.0 >= 23
    }

    /// Whether stacks of contention are recorded by frame pointers, without inlined calls, which are added when they are
    /// read: `runtime/mprof.go`, `saveblockevent` and `expandFrames`. From Go 1.23.
    pub const fn records_contention_by_frame_pointers(self) -> bool {
        self.0 >= 23
    }

    /// Whether an event of a mutex is scaled when it is recorded, rather than when the profile is written:
    /// `runtime/mprof.go`, `saveBlockEventStack`; before Go 1.20 `runtime/pprof/pprof.go`, `scaleMutexProfile`.
    pub const fn scales_mutex_events_when_recorded(self) -> bool {
        self.0 >= 20
    }

    /// Whether the cycle of the heap's profile is a variable of its own, `mProfCycle`, with a flag in its lowest bit:
    /// `runtime/mprof.go`, `mProfCycleHolder`. From Go 1.19.
    pub const fn has_profile_cycle(self) -> bool {
        self.0 >= 19
    }

    /// Whether objects of a bucket have one size, by which all of it is computed; before, sums of bytes are kept:
    /// `runtime/mprof.go`, `memRecordCycle`, and `runtime/pprof/protomem.go`, `scaleHeapSample`. From Go 1.27.
    pub const fn has_one_size_per_bucket(self) -> bool {
        self.0 >= 27
    }

    /// The function that tells the linker that a program reads the heap's profile: `cmd/link/internal/ld/lib.go`. Changed
    /// in Go 1.23.
    pub const fn memory_profile_reader(self) -> &'static str {
        if self.0 >= 23 { "runtime.memProfileInternal" } else { "runtime.MemProfile" }
    }

    /// Whether packages below `internal/runtime` count as the runtime, which a heap profile leaves out at the inner end:
    /// `runtime/pprof/protomem.go`, `writeHeapProto`. From Go 1.24.
    pub const fn hides_internal_runtime(self) -> bool {
        self.0 >= 24
    }

    /// Whether a location that is known already can be part of a further one: `runtime/pprof/proto.go`,
    /// `appendLocsForStack`. From Go 1.19.
    pub const fn joins_known_locations(self) -> bool {
        self.0 >= 19
    }

    /// Whether recursion is told by names as they are printed, where type arguments are left out: `runtime/pprof/proto.go`,
    /// `pcDeck.tryAdd`. Only Go 1.21; `runtime_FrameSymbolName` repaired it in Go 1.22.
    pub const fn tells_recursion_by_printed_names(self) -> bool {
        self.0 == 21
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use symbols::layout::{self, Table};
    use symbols::version::GoVersion;

    fn each(mut check: impl FnMut(GoRelease, &Table)) {
        for release in layout::releases() {
            let version = GoVersion::release(release.minor, release.patch);
            check(
                GoRelease::of_minor(release.minor),
                &layout::lookup(symbols::image::Arch::Amd64, &version).unwrap().table,
            );
        }
    }

    /// What tables can say too, they say in each release.
    #[test]
    fn tables_agree() {
        each(|release, table| {
            let has = |of: &str, field: &str| table.field(of, field).is_some();
            let controller = |field| has("runtime.gcControllerState", field);
            assert_eq!(release.has_memory_limit(), controller("memoryLimit"), "{release}");
            assert_eq!(release.computes_heap_goal(), controller("gcPercentHeapGoal"), "{release}");
            assert_eq!(release.computes_heap_goal(), !controller("heapGoal"), "{release}");
            assert_eq!(release.counts_heap_in_controller(), controller("heapInUse"), "{release}");
            assert!(controller(release.stack_scan_field()), "{release}");
            assert_eq!(release.has_synctest_bubbles(), has("runtime.synctestBubble", "id"), "{release}");
            assert_eq!(release.has_traceback_labels(), has("runtime.debug", "tracebacklabels"), "{release}");
            assert_eq!(release.has_profile_depth(), has("runtime.debug", "profstackdepth"), "{release}");
            assert_eq!(release.has_cleanup_goroutines(), has("runtime.g", "runningCleanups"), "{release}");
            assert_eq!(release.has_one_size_per_bucket(), !has("runtime.memRecordCycle", "alloc_bytes"));
        });
    }

    #[test]
    fn order() {
        assert!(GoRelease::of_minor(18) < GoRelease::of_minor(27));
        assert_eq!(GoRelease::of_minor(27).to_string(), "go1.27");
        let ids = [18, 21, 22, 24, 25, 30].map(|minor| GoRelease::of_minor(minor).wrapper_id());
        assert_eq!(ids, [21, 21, 22, 22, 23, 23]);
    }
}
