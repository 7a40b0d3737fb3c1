//! Where time comes from. Logic never reads the wall clock; it asks a [`Clock`].

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::time::Timestamp;

/// A source of the current time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The current time, UTC.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX))
    }
}

/// A clock that moves only when told to, and never backwards.
#[derive(Debug, Default)]
pub struct MockClock(AtomicI64);

impl MockClock {
    /// A clock standing at `now`.
    pub fn at(now: Timestamp) -> Self {
        MockClock(AtomicI64::new(now.as_nanos()))
    }

    /// Moves the clock to `to`. Returns the unchanged time if `to` lies before it.
    ///
    /// # Errors
    /// The time the clock stands at, if `to` is earlier.
    pub fn advance_to(&self, to: Timestamp) -> Result<(), Timestamp> {
        let before = self.0.fetch_max(to.as_nanos(), Ordering::SeqCst);
        if before > to.as_nanos() { Err(Timestamp::from_nanos(before)) } else { Ok(()) }
    }
}

impl Clock for MockClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

/// Measures how long something took; for reports and metrics, never for decisions.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// A running stopwatch.
    #[expect(clippy::disallowed_methods, reason = "durations are measured, not decided upon")]
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// Time since the start, on the machine's monotonic clock.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// The same in milliseconds with fraction.
    pub fn elapsed_ms(self) -> f64 {
        self.elapsed().as_secs_f64() * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mock_clock_never_goes_back() {
        let clock = MockClock::default();
        clock.advance_to(Timestamp::from_secs(5)).unwrap();
        assert_eq!(clock.advance_to(Timestamp::from_secs(4)), Err(Timestamp::from_secs(5)));
        assert_eq!(clock.now(), Timestamp::from_secs(5));
    }
}
