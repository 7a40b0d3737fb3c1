//! Ranges of time per series, for work that concerns few series only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::point_set::compare_values;
use crate::time::{TimeRange, TimeRanges};

/// For some series of a measurement, or for groups of them, the ranges of time that matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesRanges {
    tags: Vec<Arc<str>>,
    /// Ascending by values.
    series: Vec<(Vec<Option<String>>, TimeRanges)>,
}

impl SeriesRanges {
    /// These ranges for the series with these values of `tags`, one per tag, NULL where a series
    /// lacks it. Without tags all series are one.
    pub fn new(
        tags: Vec<Arc<str>>,
        ranges: impl IntoIterator<Item = (Vec<Option<String>>, TimeRange)>,
    ) -> Self {
        let mut by_series: BTreeMap<Vec<Option<String>>, Vec<TimeRange>> = BTreeMap::new();
        for (values, range) in ranges {
            by_series.entry(values).or_default().push(range);
        }
        let joined = |(values, ranges): (_, Vec<TimeRange>)| (values, ranges.into_iter().collect());
        SeriesRanges { tags, series: by_series.into_iter().map(joined).collect() }
    }

    /// The tags that tell its series apart.
    pub fn tags(&self) -> &[Arc<str>] {
        &self.tags
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// All times that matter for some series.
    pub fn times(&self) -> TimeRanges {
        self.series.iter().flat_map(|(_, ranges)| ranges.iter()).collect()
    }

    /// The ranges of one series; `value_of` gives its value of the tag at a position of
    /// [`SeriesRanges::tags`].
    pub fn ranges_of<'a>(
        &self,
        value_of: impl Fn(usize) -> Option<&'a str>,
    ) -> Option<&TimeRanges> {
        let found =
            self.series.binary_search_by(|(values, _)| compare_values(values, &value_of)).ok()?;
        Some(&self.series[found].1)
    }

    /// Values that tags need to have: `(tag, values)`, all must hold. A tag that some series lacks
    /// is not among them.
    pub fn tag_values(&self) -> Vec<(Arc<str>, BTreeSet<String>)> {
        let values_of = |at: usize| {
            let values = self.series.iter().map(|(values, _)| values[at].clone());
            values.collect::<Option<BTreeSet<String>>>()
        };
        let tags = self.tags.iter().enumerate();
        tags.filter_map(|(at, tag)| Some((Arc::clone(tag), values_of(at)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn secs(from: i64, to: i64) -> TimeRange {
        TimeRange::new(Timestamp::from_secs(from), Timestamp::from_secs(to))
    }

    #[test]
    fn ranges_are_kept_per_series() {
        let entry = |host: Option<&str>, range| (vec![host.map(str::to_owned)], range);
        let ranges = SeriesRanges::new(
            vec!["host".into()],
            [
                entry(Some("b"), secs(2, 3)),
                entry(Some("a"), secs(5, 6)),
                entry(Some("b"), secs(1, 2)),
            ],
        );
        assert_eq!(ranges.len(), 2);
        assert_eq!(ranges.ranges_of(|_| Some("b")), Some(&secs(1, 3).into()));
        assert_eq!(ranges.ranges_of(|_| Some("c")), None);
        assert_eq!(ranges.times(), [secs(1, 3), secs(5, 6)].into_iter().collect());
        let hosts = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        assert_eq!(ranges.tag_values(), [("host".into(), hosts)]);

        let without = SeriesRanges::new(vec!["host".into()], [entry(None, secs(1, 2))]);
        assert_eq!(without.ranges_of(|_| None), Some(&secs(1, 2).into()));
        assert!(without.tag_values().is_empty());
        let one = SeriesRanges::new(Vec::new(), [(Vec::new(), secs(1, 2))]);
        assert_eq!(one.ranges_of(|_| unreachable!("no tag to ask for")), Some(&secs(1, 2).into()));
    }
}
