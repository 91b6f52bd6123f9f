//! Arithmetic of the runtime's pacer for GOGC: `gcControllerState.setGCPercent` and `commit`
//! (runtime/mgcpacer.go).
//!
//! The collector does the same arithmetic again at the end of each cycle. Unsigned numbers wrap as in Go.

use crate::arch::Machine;

/// `runtime.defaultHeapMinimum` with GOGC=100.
const HEAP_MINIMUM: u64 = 4 << 20;

/// Returns `heapMinimum`: the smallest heap at which a collection begins, in bytes. The result for -1 (off)
/// is that of the same arithmetic.
pub const fn heap_minimum(percent: i32) -> u64 {
    HEAP_MINIMUM.wrapping_mul((percent as i64).cast_unsigned()) / 100
}

/// Terms of the heap goal besides GOGC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Bytes that the last cycle marked (`heapMarked`).
    pub marked: u64,
    /// Bytes of stacks to be scanned (`lastStackScan`; `stackScan` in Go 1.18).
    pub stacks: u64,
    /// Bytes of global variables to be scanned (`globalsScan`).
    pub globals: u64,
}

impl Live {
    fn goal(&self, percent: i32) -> u64 {
        match u64::try_from(percent) {
            Ok(percent) => {
                let scanned = self.marked.wrapping_add(self.stacks).wrapping_add(self.globals);
                self.marked.wrapping_add(scanned.wrapping_mul(percent) / 100)
            }
            Err(_) => u64::MAX,
        }
    }

    /// Computes `gcPercentHeapGoal` of Go 1.19 and later.
    pub fn percent_goal(&self, percent: i32) -> u64 {
        self.goal(percent).max(heap_minimum(percent))
    }
}

/// Further terms of Go 1.18, whose pacer fixes the trigger together with the goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trigger18 {
    /// Terms that later releases have as well.
    pub live: Live,
    /// Bytes of the heap that the last cycle scanned (`lastHeapScan`).
    pub heap_scan: u64,
    /// Bytes allocated per byte scanned, in CPU time (`consMark`).
    pub cons_mark: f64,
}

impl Trigger18 {
    /// Computes `trigger` and `heapGoal` for this percentage, after sweeping is done (`commit` of Go 1.18.0
    /// to 1.18.10, with the redesigned pacer, which all 1.18 releases are built with).
    pub fn commit(&self, percent: i32, machine: &dyn Machine) -> (u64, u64) {
        /// `gcGoalUtilization`.
        const GOAL_UTILIZATION: f64 = 0.25;
        let truncated = |value| machine.float_to_uint64(value);
        let (marked, minimum) = (self.live.marked, heap_minimum(percent));
        let goal = self.live.goal(percent);
        let growth = goal.wrapping_sub(marked) as f64;
        let least = minimum.max(truncated(0.7 * growth).wrapping_add(marked));
        let mut runway = truncated(0.95 * growth);
        if goal > minimum {
            runway = runway.max(goal.wrapping_sub(minimum));
        }
        let most = runway.wrapping_add(marked).max(least);
        let scanned = self.heap_scan.wrapping_add(self.live.stacks).wrapping_add(self.live.globals);
        let factor = self.cons_mark * (1.0 - GOAL_UTILIZATION) / GOAL_UTILIZATION;
        let runway = truncated(factor * scanned as f64);
        let trigger = if runway > goal { least } else { goal.wrapping_sub(runway) };
        let trigger = trigger.max(least).min(most);
        (trigger, goal.max(trigger))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::host::MACHINE;

    #[test]
    fn minimum() {
        assert_eq!(heap_minimum(100), 4 << 20);
        assert_eq!(heap_minimum(50), 2 << 20);
        assert_eq!(heap_minimum(0), 0);
        assert_eq!(heap_minimum(-1), (u64::MAX - (4 << 20) + 1) / 100);
    }

    #[test]
    fn goals() {
        let live = Live { marked: 10 << 20, stacks: 1 << 20, globals: 1 << 20 };
        assert_eq!(live.percent_goal(100), 22 << 20);
        assert_eq!(live.percent_goal(-1), u64::MAX);
        assert_eq!(Live { marked: 0, stacks: 0, globals: 0 }.percent_goal(100), 4 << 20);
    }

    /// Small and large heap, computed by hand.
    #[test]
    fn triggers_of_go_1_18() {
        let live = Live { marked: 100 << 20, stacks: 0, globals: 0 };
        let of = |cons_mark| Trigger18 { live, heap_scan: 50 << 20, cons_mark }.commit(100, MACHINE);
        // No runway: the trigger is the goal less the minimum.
        assert_eq!(of(0.0), ((200 << 20), 200 << 20));
        // Runway of 3*0.1*50 MiB.
        assert_eq!(of(0.1), ((200 << 20) - 15_728_640, 200 << 20));
        // Lower limit: 70 % of the growth.
        assert_eq!(of(10.0), ((170 << 20), 200 << 20));
        let small = Trigger18 { live: Live { marked: 1 << 20, ..live }, heap_scan: 0, cons_mark: 0.0 };
        assert_eq!(small.commit(100, MACHINE), (4 << 20, 4 << 20));
    }
}
