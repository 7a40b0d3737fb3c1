//! The newest points of a stretch of time: where a batch ends. Pure, and bounded by the batch.

/// Looks at the times of points, in any order, and keeps those of the newest.
#[derive(Debug)]
pub(crate) struct Newest {
    most: usize,
    /// Those that may be among the newest.
    times: Vec<i64>,
    /// With so many it is worth leaving some out.
    full: usize,
    /// The newest of those that were left out.
    older: Option<i64>,
}

impl Newest {
    /// Of so many points, at least one; all points of one instant count together, so that there may
    /// be more.
    pub(crate) fn of(most: u64) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
        Newest { most, times: Vec::new(), full: most.saturating_mul(2), older: None }
    }

    /// Looks at more times, in nanoseconds.
    pub(crate) fn add(&mut self, times: &[i64]) {
        self.times.extend_from_slice(times);
        if self.times.len() >= self.full {
            self.leave_out();
            self.full = self.times.len().max(self.most).saturating_mul(2);
        }
    }

    /// Leaves out what is older than the newest points.
    pub(crate) fn leave_out(&mut self) {
        let Some(surplus) = self.times.len().checked_sub(self.most).filter(|more| *more > 0) else {
            return;
        };
        let (left_out, oldest, _) = self.times.select_nth_unstable(surplus);
        let oldest = *oldest;
        let newest = left_out.iter().copied().filter(|time| *time < oldest).max();
        self.older = self.older.max(newest);
        self.times.retain(|time| *time >= oldest);
    }

    /// Time of the oldest of them; `None` if there is no point at all.
    pub(crate) fn start(&self) -> Option<i64> {
        self.times.iter().copied().min()
    }

    /// Time of the newest point before them.
    pub(crate) fn older(&self) -> Option<i64> {
        self.older
    }

    /// How many of them lie before an instant.
    pub(crate) fn before(&self, end: i64) -> u64 {
        self.times.iter().filter(|time| **time < end).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_those_of_a_sorted_list(
            parts in prop::collection::vec(prop::collection::vec(0..40i64, 0..12), 0..8),
            most in 0..20u64,
        ) {
            let mut newest = Newest::of(most);
            parts.iter().for_each(|part| newest.add(part));
            newest.leave_out();
            let mut all: Vec<i64> = parts.concat();
            all.sort_unstable_by(|a, b| b.cmp(a));
            let start = all.get((most.max(1) as usize).min(all.len()).wrapping_sub(1)).copied();
            prop_assert_eq!(newest.start(), start);
            let start = start.unwrap_or(0);
            prop_assert_eq!(newest.older(), all.iter().copied().find(|time| *time < start));
            let count = |end: i64| all.iter().filter(|t| (start..end).contains(*t)).count() as u64;
            prop_assert_eq!(newest.before(i64::MAX), count(i64::MAX));
            prop_assert_eq!(newest.before(20), count(20));
        }
    }
}
