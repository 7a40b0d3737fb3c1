//! Points named one by one, for deletes that no condition on time and tags can express.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::{NANOS_PER_DAY, NANOS_PER_MINUTE, TimeRange, TimeRanges, Timestamp};

/// A set of points of one measurement, by tags and time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PointSet {
    tags: Vec<Arc<str>>,
    /// Ascending by values.
    series: Vec<SeriesTimes>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SeriesTimes {
    /// Per tag of the set, NULL where the points lack it.
    values: Vec<Option<String>>,
    /// Nanoseconds since the epoch, ascending; numbers, as there may be very many.
    times: Vec<i64>,
}

impl PointSet {
    /// The points with these values of `tags`, one per tag, at these times.
    pub fn new(
        tags: Vec<Arc<str>>,
        points: impl IntoIterator<Item = (Vec<Option<String>>, Timestamp)>,
    ) -> Self {
        let mut by_series: BTreeMap<Vec<Option<String>>, Vec<i64>> = BTreeMap::new();
        for (values, time) in points {
            by_series.entry(values).or_default().push(time.as_nanos());
        }
        let sorted = |(values, mut times): (_, Vec<i64>)| {
            times.sort_unstable();
            times.dedup();
            SeriesTimes { values, times }
        };
        PointSet { tags, series: by_series.into_iter().map(sorted).collect() }
    }

    /// The tags that tell its series apart.
    pub fn tags(&self) -> &[Arc<str>] {
        &self.tags
    }

    /// Number of points.
    pub fn len(&self) -> usize {
        self.series.iter().map(|series| series.times.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Times of the points of one series in nanoseconds, ascending; `value_of` gives its value of
    /// the tag at a position of [`PointSet::tags`].
    pub fn times_of<'a>(&self, value_of: impl Fn(usize) -> Option<&'a str>) -> &[i64] {
        let found =
            self.series.binary_search_by(|series| compare_values(&series.values, &value_of));
        found.map_or(&[], |at| &self.series[at].times)
    }

    /// The whole minutes with a point.
    pub fn minutes(&self) -> TimeRanges {
        self.rounded_to(NANOS_PER_MINUTE)
    }

    /// The whole UTC days with a point.
    pub fn days(&self) -> TimeRanges {
        self.rounded_to(NANOS_PER_DAY)
    }

    fn rounded_to(&self, width: i64) -> TimeRanges {
        let times = self.series.iter().flat_map(|series| &series.times);
        let mut slots: Vec<i64> = times.map(|time| time.div_euclid(width)).collect();
        slots.sort_unstable();
        slots.dedup();
        let runs = slots.chunk_by(|a, b| a + 1 == *b);
        let start = |slot: i64| Timestamp::from_nanos(slot.saturating_mul(width));
        runs.map(|run| TimeRange::new(start(run[0]), start(run[run.len() - 1].saturating_add(1))))
            .collect()
    }
}

/// Compares the values of some tags with those that `value_of` gives for their positions.
pub(crate) fn compare_values<'a>(
    values: &[Option<String>],
    value_of: &impl Fn(usize) -> Option<&'a str>,
) -> Ordering {
    let values = values.iter().enumerate();
    values.fold(Ordering::Equal, |order, (tag, value)| {
        order.then_with(|| value.as_deref().cmp(&value_of(tag)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(host: Option<&str>, secs: i64) -> (Vec<Option<String>>, Timestamp) {
        (vec![host.map(str::to_owned)], Timestamp::from_secs(secs))
    }

    #[test]
    fn points_are_found_by_series_and_time() {
        let points =
            [point(Some("b"), 1), point(None, 60), point(Some("b"), 0), point(Some("b"), 1)];
        let set = PointSet::new(vec!["host".into()], points);
        assert_eq!(set.len(), 3);
        assert_eq!(set.times_of(|_| Some("b")), [0, 1_000_000_000]);
        assert_eq!(set.times_of(|_| None), [60_000_000_000]);
        assert!(set.times_of(|_| Some("a")).is_empty());
        let minutes = TimeRange::new(Timestamp::EPOCH, Timestamp::from_secs(120));
        assert_eq!(set.minutes(), TimeRanges::from(minutes));
    }
}
