//! Heap sizes at which a collection begins and has to be complete (`runtime/mgcpacer.go`:
//! `heapGoalInternal`, `memoryLimitHeapGoal`, `trigger`).

use crate::runtime::release::GoRelease;

/// State of the pacer, from which goal and trigger follow. Go 1.19 and later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pacer {
    /// Go release; newer ones leave more room below the memory limit.
    pub(super) release: GoRelease,
    pub(super) percent_goal: u64,
    pub(super) memory_limit: u64,
    pub(super) mapped_ready: u64,
    pub(super) heap_free: u64,
    /// Bytes of heap objects: allocated minus freed.
    pub(super) heap_alloc: u64,
    pub(super) heap_marked: u64,
    pub(super) sweep_min_trigger: u64,
    /// Heap size at which the current cycle began; all ones outside of a cycle.
    pub(super) triggered: u64,
    pub(super) runway: u64,
}

/// Minimum room below the memory limit, in bytes (`memoryLimitMinHeapGoalHeadroom`).
const HEADROOM: u64 = 1 << 20;
/// Room below the memory limit in percent (`memoryLimitHeapGoalHeadroomPercent`).
const HEADROOM_PERCENT: u64 = 3;
/// Minimum distance of the goal from the trigger, in bytes (`heapGoalInternal.minRunway`).
const MIN_RUNWAY: u64 = 64 << 10;
/// Minimum heap goal in bytes (`runtime.defaultHeapMinimum`).
const HEAP_MINIMUM: u64 = 4 << 20;

impl Pacer {
    /// Returns the heap goal and the corresponding minimum trigger.
    fn goal_and_least_trigger(&self) -> (u64, u64) {
        let limited = self.limited_goal();
        if limited < self.percent_goal {
            return (limited, 0);
        }
        let mut goal = self.percent_goal.max(self.sweep_min_trigger);
        if self.triggered != u64::MAX {
            // This sum wraps, as in the runtime.
            goal = goal.max(self.triggered.wrapping_add(MIN_RUNWAY));
        }
        (goal, self.sweep_min_trigger)
    }

    /// Returns the heap goal (`runtime.MemStats.NextGC`).
    pub(super) fn goal(&self) -> u64 {
        self.goal_and_least_trigger().0
    }

    fn limited_goal(&self) -> u64 {
        // In the runtime these two never exceed the mapped memory. Values that do are not credible anyway.
        let other = self.mapped_ready.wrapping_sub(self.heap_free).wrapping_sub(self.heap_alloc);
        let over = self.mapped_ready.saturating_sub(self.memory_limit);
        let taken = other.wrapping_add(over);
        if taken >= self.memory_limit {
            return self.heap_marked;
        }
        let left = self.memory_limit - taken;
        let share = if self.release.leaves_share_of_limit() { left / 100 * HEADROOM_PERCENT } else { 0 };
        let headroom = HEADROOM.max(share);
        let goal = match left.checked_sub(headroom) {
            Some(goal) if goal >= headroom => goal,
            _ => headroom,
        };
        goal.max(self.heap_marked)
    }

    /// Returns the heap size at which the next cycle begins.
    pub(super) fn trigger(&self) -> u64 {
        let (goal, least) = self.goal_and_least_trigger();
        let Some(room) = goal.checked_sub(self.heap_marked).filter(|&room| room > 0) else { return goal };
        let part =
            |sixty_fourths: u64| (room / 64).wrapping_mul(sixty_fourths).wrapping_add(self.heap_marked);
        let least = least.max(self.heap_marked).max(part(45));
        let mut most = part(61);
        if goal > HEAP_MINIMUM {
            most = most.max(goal - HEAP_MINIMUM);
        }
        let most = most.max(least);
        goal.checked_sub(self.runway).unwrap_or(least).max(least).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const IDLE: Pacer = Pacer {
        release: GoRelease::of_minor(24),
        percent_goal: 8 * MIB,
        memory_limit: i64::MAX as u64,
        mapped_ready: 12 * MIB,
        heap_free: MIB,
        heap_alloc: 3 * MIB,
        heap_marked: 4 * MIB,
        sweep_min_trigger: 0,
        triggered: u64::MAX,
        runway: 0,
    };

    #[test]
    fn goals() {
        assert_eq!(IDLE.goal(), 8 * MIB);
        assert_eq!(Pacer { sweep_min_trigger: 9 * MIB, ..IDLE }.goal(), 9 * MIB);
        assert_eq!(Pacer { triggered: 8 * MIB, ..IDLE }.goal(), 8 * MIB + 65536);
        // Eight of the twelve MiB are not heap: 20 - 8 = 12, minus 1 MiB of room.
        let limit = Pacer { memory_limit: 20 * MIB, percent_goal: 100 * MIB, ..IDLE };
        assert_eq!(limit.goal(), 11 * MIB);
        assert_eq!(Pacer { memory_limit: 5 * MIB, ..limit }.goal(), 4 * MIB);
        // Room of three percent from Go 1.21.
        let large = Pacer { memory_limit: 8 * MIB + 1000 * MIB, percent_goal: u64::MAX, ..IDLE };
        assert_eq!(large.goal(), 1000 * MIB - 1000 * MIB / 100 * 3);
        assert_eq!(Pacer { release: GoRelease::of_minor(20), ..large }.goal(), 999 * MIB);
    }

    #[test]
    fn triggers() {
        assert_eq!(IDLE.trigger(), 4 * MIB + 4 * MIB / 64 * 61);
        assert_eq!(Pacer { runway: MIB, ..IDLE }.trigger(), 7 * MIB);
        assert_eq!(Pacer { runway: 4 * MIB, ..IDLE }.trigger(), 4 * MIB + 4 * MIB / 64 * 45);
        assert_eq!(Pacer { heap_marked: 9 * MIB, ..IDLE }.trigger(), 8 * MIB);
    }

    #[test]
    fn nothing_overflows() {
        let all = Pacer {
            release: GoRelease::of_minor(27),
            percent_goal: u64::MAX,
            memory_limit: u64::MAX,
            mapped_ready: u64::MAX,
            heap_free: u64::MAX,
            heap_alloc: u64::MAX,
            heap_marked: u64::MAX,
            sweep_min_trigger: u64::MAX,
            triggered: u64::MAX - 1,
            runway: u64::MAX,
        };
        let _ = (all.goal(), all.trigger());
        let none =
            Pacer { memory_limit: 0, percent_goal: 0, mapped_ready: 0, heap_marked: 0, runway: 1, ..all };
        let _ = (none.goal(), none.trigger());
    }
}
