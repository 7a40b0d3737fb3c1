//! A wall clock that jumps ahead must not take history along: expiry waits until it can be trusted.

use std::time::Duration;

use highwater_core::Timestamp;
use highwater_core::time::NANOS_PER_HOUR;

/// A wall clock that moves so much more, or less, than time has passed has jumped: an hour.
const JUMP_NANOS: i64 = NANOS_PER_HOUR;
/// So long it has to go on without a jump: ten minutes.
const PROBATION: Duration = Duration::from_secs(600);

/// Watches the wall clock beside a clock that nobody sets.
#[derive(Debug, Default)]
pub(crate) struct ClockGuard {
    /// The last look: wall clock, and time since some fixed moment.
    last: Option<(Timestamp, Duration)>,
    pause: Option<Pause>,
}

/// Why and until when nothing expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pause {
    /// How far the clock jumped, in nanoseconds; the last jump counts.
    jump_nanos: i64,
    until: Duration,
}

impl ClockGuard {
    /// Looks at the wall clock when `elapsed` has passed since some fixed moment. Returns whether
    /// the clock can be trusted.
    pub(crate) fn look(&mut self, now: Timestamp, elapsed: Duration) -> bool {
        if let Some((then, before)) = self.last.replace((now, elapsed)) {
            let passed = i64::try_from(elapsed.saturating_sub(before).as_nanos());
            let moved = now.as_nanos().saturating_sub(then.as_nanos());
            let jump_nanos = moved.saturating_sub(passed.unwrap_or(i64::MAX));
            // Only a jump ahead is a danger; one back may end it, which takes as long to tell.
            let is_jump =
                jump_nanos > JUMP_NANOS || self.pause.is_some() && jump_nanos < -JUMP_NANOS;
            if is_jump {
                self.pause = Some(Pause { jump_nanos, until: elapsed + PROBATION });
            }
        }
        self.pause = self.pause.filter(|pause| elapsed < pause.until);
        self.pause.is_none()
    }

    /// Trusts the clock from now on, until it jumps again.
    pub(crate) fn trust(&mut self) {
        self.pause = None;
    }

    /// Why nothing expires, if nothing does.
    pub(crate) fn objection(&self) -> Option<String> {
        let hours = self.pause?.jump_nanos as f64 / NANOS_PER_HOUR as f64;
        Some(format!(
            "the clock jumped by {hours:.1} hours; nothing is dropped before it has gone on for 10 \
             minutes without a jump, or POST /api/v1/retention/resume says that it is right"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at a wall clock that shows `offset` seconds more than have passed.
    fn look(guard: &mut ClockGuard, passed: u64, offset: i64) -> bool {
        let wall = Timestamp::from_secs(1_700_000_000 + passed.cast_signed() + offset);
        guard.look(wall, Duration::from_secs(passed))
    }

    #[test]
    fn a_jump_ahead_pauses_until_the_clock_has_gone_on_for_ten_minutes() {
        let mut guard = ClockGuard::default();
        assert!(
            look(&mut guard, 0, 0) && look(&mut guard, 5, 3_600),
            "an hour may be a correction"
        );
        assert!(!look(&mut guard, 10, 3_600 + 86_400));
        assert!(guard.objection().unwrap().contains("24.0 hours"));
        assert!(!look(&mut guard, 609, 3_600 + 86_400));
        assert!(look(&mut guard, 610, 3_600 + 86_400) && guard.objection().is_none());
    }

    #[test]
    fn each_jump_begins_anew_and_one_back_alone_is_harmless() {
        let mut guard = ClockGuard::default();
        assert!(look(&mut guard, 0, 0) && look(&mut guard, 5, -86_400));
        assert!(!look(&mut guard, 10, 0));
        assert!(!look(&mut guard, 500, -86_400), "back again");
        assert!(!look(&mut guard, 1_099, -86_400) && look(&mut guard, 1_100, -86_400));
    }

    #[test]
    fn somebody_may_vouch_for_the_clock() {
        let mut guard = ClockGuard::default();
        assert!(look(&mut guard, 0, 0) && !look(&mut guard, 5, 7_200));
        guard.trust();
        assert!(look(&mut guard, 10, 7_200));
        assert!(!look(&mut guard, 15, 14_500), "until the next jump");
    }
}
