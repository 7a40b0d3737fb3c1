//! Instants and half-open ranges of event time, in nanoseconds UTC.

use std::fmt;

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// Nanoseconds in a second.
pub const NANOS_PER_SEC: i64 = 1_000_000_000;
/// Nanoseconds in a minute.
pub const NANOS_PER_MINUTE: i64 = 60 * NANOS_PER_SEC;
/// Nanoseconds in an hour.
pub const NANOS_PER_HOUR: i64 = 60 * NANOS_PER_MINUTE;
/// Nanoseconds in a UTC day.
pub const NANOS_PER_DAY: i64 = 24 * NANOS_PER_HOUR;

/// An instant: nanoseconds since 1970-01-01T00:00:00Z, negative before it.
///
/// Serialized as RFC 3339 with `Z` and without superfluous fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Timestamp = Timestamp(0);
    /// 1678-01-01T00:00:00Z: points before it are refused.
    pub const EARLIEST: Timestamp = Timestamp(-9_214_560_000 * NANOS_PER_SEC);
    /// 2262-01-01T00:00:00Z: points at or after it are refused.
    pub const END: Timestamp = Timestamp(9_214_646_400 * NANOS_PER_SEC);

    /// `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Timestamp(nanos)
    }

    /// `secs` seconds after the epoch; saturates at the ends of the representable range.
    pub const fn from_secs(secs: i64) -> Self {
        Timestamp(secs.saturating_mul(NANOS_PER_SEC))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whether a point may carry this time: `[1678-01-01, 2262-01-01)`.
    pub fn is_accepted(self) -> bool {
        (Timestamp::EARLIEST..Timestamp::END).contains(&self)
    }

    /// This instant plus `nanos`, saturating.
    #[must_use]
    pub const fn saturating_add(self, nanos: i64) -> Self {
        Timestamp(self.0.saturating_add(nanos))
    }

    /// This instant minus `nanos`, saturating.
    #[must_use]
    pub const fn saturating_sub(self, nanos: i64) -> Self {
        Timestamp(self.0.saturating_sub(nanos))
    }

    /// Start of the UTC day that holds this instant.
    #[must_use]
    pub const fn start_of_day(self) -> Self {
        Timestamp(self.0.div_euclid(NANOS_PER_DAY).saturating_mul(NANOS_PER_DAY))
    }

    /// Reads RFC 3339 (`2024-01-01T00:00:00Z`, offsets allowed), or a date or date and time
    /// without zone, which mean UTC.
    ///
    /// # Errors
    /// A sentence that says which forms are understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let nanos = DateTime::parse_from_rfc3339(text)
            .map(|at| at.with_timezone(&Utc))
            .or_else(|_| parse_without_zone(text))
            .ok()
            .and_then(|at| at.timestamp_nanos_opt());
        nanos.map(Timestamp).ok_or_else(|| {
            format!("cannot read {text:?} as a time; write it like 2024-01-31T13:00:00Z")
        })
    }
}

fn parse_without_zone(text: &str) -> Result<DateTime<Utc>, chrono::ParseError> {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
        .or_else(|_| {
            NaiveDate::parse_from_str(text, "%Y-%m-%d").map(|day| day.and_time(Default::default()))
        })
        .map(|naive| naive.and_utc())
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = DateTime::<Utc>::from_timestamp_nanos(self.0);
        let text = at.to_rfc3339_opts(SecondsFormat::Nanos, true);
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, "Z"));
        match fraction.trim_end_matches('Z').trim_end_matches('0') {
            "" => write!(f, "{}Z", whole.trim_end_matches('Z')),
            digits => write!(f, "{whole}.{digits}Z"),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A half-open range of event time `[start, end)`; empty when `start >= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeRange {
    /// First instant inside.
    pub start: Timestamp,
    /// First instant after.
    pub end: Timestamp,
}

impl TimeRange {
    /// Everything representable.
    pub const ALL: TimeRange = TimeRange { start: Timestamp(i64::MIN), end: Timestamp(i64::MAX) };

    /// `[start, end)`.
    pub const fn new(start: Timestamp, end: Timestamp) -> Self {
        TimeRange { start, end }
    }

    /// Everything before `end`.
    pub const fn before(end: Timestamp) -> Self {
        TimeRange { start: Timestamp(i64::MIN), end }
    }

    /// Everything from `start` on.
    pub const fn since(start: Timestamp) -> Self {
        TimeRange { start, end: Timestamp(i64::MAX) }
    }

    /// Whether no instant is inside.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Whether `at` is inside.
    pub fn contains(self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether every instant of `other` is inside; an empty range is inside every range.
    pub fn covers(self, other: TimeRange) -> bool {
        other.is_empty() || (self.start <= other.start && other.end <= self.end)
    }

    /// The common part, possibly empty.
    #[must_use]
    pub fn intersect(self, other: TimeRange) -> TimeRange {
        TimeRange { start: self.start.max(other.start), end: self.end.min(other.end) }
    }

    /// Whether some instant is in both.
    pub fn overlaps(self, other: TimeRange) -> bool {
        !self.intersect(other).is_empty()
    }
}

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// A set of instants: disjoint, non-adjacent, ascending, non-empty ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimeRanges(Vec<TimeRange>);

impl TimeRanges {
    /// No instant at all.
    pub const fn none() -> Self {
        TimeRanges(Vec::new())
    }

    /// Every instant.
    pub fn all() -> Self {
        TimeRanges(vec![TimeRange::ALL])
    }

    /// Whether no instant is inside.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TimeRange> + Clone + '_ {
        self.0.iter().copied()
    }

    /// Number of separate ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest single range around everything; `None` when empty.
    pub fn hull(&self) -> Option<TimeRange> {
        Some(TimeRange::new(self.0.first()?.start, self.0.last()?.end))
    }

    /// Whether `at` is inside, in logarithmic time.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.range_at(at).is_some()
    }

    /// The range that holds `at`, in logarithmic time.
    pub fn range_at(&self, at: Timestamp) -> Option<TimeRange> {
        let after = self.0.partition_point(|range| range.end <= at);
        self.0.get(after).copied().filter(|range| range.contains(at))
    }

    /// Whether some instant of `range` is inside, in logarithmic time.
    pub fn overlaps(&self, range: TimeRange) -> bool {
        let after = self.0.partition_point(|own| own.end <= range.start);
        self.0.get(after).is_some_and(|own| own.overlaps(range))
    }

    /// Whether every instant of `range` is inside, in logarithmic time.
    pub fn covers(&self, range: TimeRange) -> bool {
        let after = self.0.partition_point(|own| own.end <= range.start);
        range.is_empty() || self.0.get(after).is_some_and(|own| own.covers(range))
    }

    /// The instants that are in `range` too; costs what is in there.
    #[must_use]
    pub fn within(&self, range: TimeRange) -> TimeRanges {
        let first = self.0.partition_point(|own| own.end <= range.start);
        let end = self.0.partition_point(|own| own.start < range.end).max(first);
        self.0[first..end].iter().map(|own| own.intersect(range)).collect()
    }

    /// The instants in both.
    #[must_use]
    pub fn intersect(&self, other: &TimeRanges) -> TimeRanges {
        let (mut own, mut others) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut common = Vec::new();
        while let (Some(a), Some(b)) = (own.peek(), others.peek()) {
            let both = a.intersect(**b);
            if !both.is_empty() {
                common.push(both);
            }
            if a.end <= b.end {
                own.next();
            } else {
                others.next();
            }
        }
        TimeRanges(common)
    }

    /// The instants in either.
    #[must_use]
    pub fn union(&self, other: &TimeRanges) -> TimeRanges {
        self.iter().chain(other.iter()).collect()
    }

    /// The instants of `self` that are not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &TimeRanges) -> TimeRanges {
        self.intersect(&other.complement())
    }

    fn complement(&self) -> TimeRanges {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut from = TimeRange::ALL.start;
        for range in &self.0 {
            gaps.push(TimeRange::new(from, range.start));
            from = range.end;
        }
        gaps.push(TimeRange::new(from, TimeRange::ALL.end));
        gaps.retain(|gap| !gap.is_empty());
        TimeRanges(gaps)
    }
}

impl FromIterator<TimeRange> for TimeRanges {
    /// Sorts, drops empty ranges, joins what overlaps or touches.
    fn from_iter<I: IntoIterator<Item = TimeRange>>(ranges: I) -> Self {
        let mut sorted: Vec<TimeRange> = ranges.into_iter().filter(|r| !r.is_empty()).collect();
        sorted.sort_by_key(|range| range.start);
        let mut joined: Vec<TimeRange> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        TimeRanges(joined)
    }
}

impl From<TimeRange> for TimeRanges {
    fn from(range: TimeRange) -> Self {
        [range].into_iter().collect()
    }
}

impl fmt::Display for TimeRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            write!(f, "{}{range}", if i > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(i64, i64)]) -> TimeRanges {
        ranges
            .iter()
            .map(|&(a, b)| TimeRange::new(Timestamp::from_nanos(a), Timestamp::from_nanos(b)))
            .collect()
    }

    #[test]
    fn times_print_without_superfluous_fraction() {
        assert_eq!(Timestamp::from_nanos(1).to_string(), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(Timestamp::from_nanos(1_500_000_000).to_string(), "1970-01-01T00:00:01.5Z");
        assert_eq!(Timestamp::from_secs(-1).to_string(), "1969-12-31T23:59:59Z");
        assert_eq!(Timestamp::EARLIEST.to_string(), "1678-01-01T00:00:00Z");
        assert_eq!(Timestamp::END.to_string(), "2262-01-01T00:00:00Z");
    }

    #[test]
    fn times_are_read_in_the_usual_forms() {
        for text in ["2024-01-01T00:00:00Z", "2024-01-01T02:00:00+02:00", "2024-01-01 00:00:00"] {
            assert_eq!(Timestamp::parse(text), Ok(Timestamp::from_secs(1_704_067_200)), "{text}");
        }
        assert_eq!(Timestamp::parse("2024-01-01"), Ok(Timestamp::from_secs(1_704_067_200)));
        assert!(Timestamp::parse("yesterday").is_err());
    }

    #[test]
    fn sets_join_cut_and_subtract() {
        assert_eq!(set(&[(5, 7), (1, 3), (3, 4), (9, 9)]), set(&[(1, 4), (5, 7)]));
        assert_eq!(set(&[(0, 10)]).subtract(&set(&[(2, 3), (9, 12)])), set(&[(0, 2), (3, 9)]));
        assert_eq!(set(&[(0, 4), (6, 9)]).intersect(&set(&[(3, 7)])), set(&[(3, 4), (6, 7)]));
        assert_eq!(
            set(&[(0, 4), (6, 9)]).within(TimeRange::new(Timestamp(3), Timestamp(7))),
            set(&[(3, 4), (6, 7)])
        );
        assert!(set(&[(0, 4), (6, 9)]).contains(Timestamp::from_nanos(6)));
        assert!(!set(&[(0, 4), (6, 9)]).contains(Timestamp::from_nanos(4)));
        assert!(set(&[(0, 4)]).covers(TimeRange::new(Timestamp(1), Timestamp(4))));
        assert!(!set(&[(0, 4), (6, 9)]).covers(TimeRange::new(Timestamp(1), Timestamp(7))));
    }
}
