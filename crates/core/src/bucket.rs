//! Buckets: half-open slices of event time `[start, end)`, keyed by their UTC start.
//!
//! SQL's `time_bucket`, staleness, refresh and gap filling all round here, so they cannot
//! disagree. Fixed widths count from the Unix epoch plus an offset, before 1970 as well as after;
//! weeks start on Monday (ISO 8601); months, quarters and years follow the proleptic Gregorian
//! calendar. With a time zone all of them follow its clocks, see [`local`].

pub mod local;
mod text;

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
pub use chrono_tz::Tz as Zone;

pub use local::LocalBucket;
pub use text::{BucketError, BucketWords, offset_of, zone_of};

use text::{nanos_of_unit, split_duration, width_of};

use crate::time::{NANOS_PER_DAY, NANOS_PER_SEC, TimeRange, Timestamp};

/// From the epoch (a Thursday) to the first Monday, 1970-01-05.
const FIRST_MONDAY: i64 = 4 * NANOS_PER_DAY;

/// How event time is cut into buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// Equal widths: boundaries at `offset + k * width` nanoseconds from the epoch.
    Fixed {
        /// Length in nanoseconds, positive.
        width: i64,
        /// Position of one boundary, in `[0, width)`.
        offset: i64,
    },
    /// Calendar months, counted in groups of `months` from January 1970: 1 month, 3 a quarter,
    /// 12 a year.
    Months(u32),
    /// By the clocks of a time zone.
    Local(LocalBucket),
}

impl Bucket {
    /// One UTC day.
    pub const DAY: Bucket = Bucket::Fixed { width: NANOS_PER_DAY, offset: 0 };

    /// Buckets of `width` nanoseconds from the epoch.
    pub fn fixed(width: i64) -> Option<Bucket> {
        (width > 0).then_some(Bucket::Fixed { width, offset: 0 })
    }

    /// Start of the bucket that holds `at`; saturates at the ends of representable time.
    pub fn start_of(self, at: Timestamp) -> Timestamp {
        match self {
            Bucket::Fixed { width, offset } => {
                let nanos = i128::from(at.as_nanos());
                let into = (nanos - i128::from(offset)).rem_euclid(i128::from(width));
                saturate(nanos - into)
            }
            Bucket::Months(months) => {
                let month = month_index(at);
                start_of_month(month - month.rem_euclid(i64::from(months)))
            }
            Bucket::Local(local) => local.start_of(at),
        }
    }

    /// First instant after the bucket that holds `at`; saturates.
    pub fn end_of(self, at: Timestamp) -> Timestamp {
        match self {
            Bucket::Fixed { width, .. } => {
                saturate(i128::from(self.start_of(at).as_nanos()) + i128::from(width))
            }
            Bucket::Months(months) => {
                let month = month_index(at);
                let start = month - month.rem_euclid(i64::from(months));
                start_of_month(start + i64::from(months))
            }
            Bucket::Local(local) => local.end_of(at),
        }
    }

    /// The bucket that holds `at`.
    pub fn range_of(self, at: Timestamp) -> TimeRange {
        TimeRange::new(self.start_of(at), self.end_of(at))
    }

    /// Whether a bucket starts at `at`.
    pub fn is_boundary(self, at: Timestamp) -> bool {
        self.start_of(at) == at
    }

    /// The smallest range of whole buckets around `range`; empty stays empty.
    pub fn round_out(self, range: TimeRange) -> TimeRange {
        if range.is_empty() {
            return range;
        }
        let last = range.end.saturating_sub(1);
        TimeRange::new(self.start_of(range.start), self.end_of(last))
    }

    /// The buckets that `range` touches, ascending.
    pub fn iter(self, range: TimeRange) -> impl Iterator<Item = TimeRange> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            (at < range.end).then(|| {
                let bucket = self.range_of(at);
                at = if bucket.end > at { bucket.end } else { range.end };
                bucket
            })
        })
    }

    /// Whether every boundary of `coarser` is also a boundary of `self`, so that buckets of
    /// `self` can be merged into those of `coarser`.
    pub fn refines(self, coarser: Bucket) -> bool {
        match (self, coarser) {
            (
                Bucket::Fixed { width, offset },
                Bucket::Fixed { width: outer, offset: outer_offset },
            ) => outer % width == 0 && (outer_offset - offset).rem_euclid(width) == 0,
            // Every month starts at a UTC midnight, and nothing coarser than a day divides all months.
            (Bucket::Fixed { width, offset }, Bucket::Months(_)) => {
                NANOS_PER_DAY % width == 0 && offset == 0
            }
            (Bucket::Months(inner), Bucket::Months(outer)) => outer % inner == 0,
            (Bucket::Local(inner), Bucket::Local(outer)) => inner.refines(outer),
            (Bucket::Fixed { width, offset }, Bucket::Local(outer)) => outer.lies_on(width, offset),
            (Bucket::Months(_), Bucket::Fixed { .. } | Bucket::Local(_))
            | (Bucket::Local(_), Bucket::Fixed { .. } | Bucket::Months(_)) => false,
        }
    }
}

fn saturate(nanos: i128) -> Timestamp {
    Timestamp::from_nanos(nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
}

/// Months since January 1970.
fn month_index(at: Timestamp) -> i64 {
    let date = DateTime::<Utc>::from_timestamp_nanos(at.as_nanos());
    (i64::from(date.year()) - 1970) * 12 + i64::from(date.month0())
}

fn start_of_month(month: i64) -> Timestamp {
    saturate(start_of_month_nanos(month))
}

/// From the epoch to the first day of the month, counted from January 1970.
fn start_of_month_nanos(month: i64) -> i128 {
    let year = 1970 + month.div_euclid(12);
    let first = NaiveDate::from_ymd_opt(year as i32, month.rem_euclid(12) as u32 + 1, 1)
        .expect("years of representable time are valid dates");
    let secs = first.and_time(Default::default()).and_utc().timestamp();
    i128::from(secs) * i128::from(NANOS_PER_SEC)
}

impl serde::Serialize for Bucket {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Bucket {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A span of time counted back from an instant: fixed nanoseconds, or calendar months.
///
/// Read from `30s`, `7d`, `1w`, `3mo`, `2y`, and `0s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// Nanoseconds, not negative.
    Nanos(i64),
    /// Calendar months; a day that the target month lacks becomes its last day.
    Months(u32),
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span::Nanos(0);

    /// The instant this long before `at`, saturating.
    pub fn before(self, at: Timestamp) -> Timestamp {
        match self {
            Span::Nanos(nanos) => at.saturating_sub(nanos),
            Span::Months(months) => DateTime::<Utc>::from_timestamp_nanos(at.as_nanos())
                .checked_sub_months(chrono::Months::new(months))
                .and_then(|then| then.timestamp_nanos_opt())
                .map_or(Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos),
        }
    }

    /// The instant this long after `at`, saturating.
    pub fn after(self, at: Timestamp) -> Timestamp {
        match self {
            Span::Nanos(nanos) => at.saturating_add(nanos),
            Span::Months(months) => DateTime::<Utc>::from_timestamp_nanos(at.as_nanos())
                .checked_add_months(chrono::Months::new(months))
                .and_then(|then| then.timestamp_nanos_opt())
                .map_or(Timestamp::from_nanos(i64::MAX), Timestamp::from_nanos),
        }
    }
}

impl FromStr for Span {
    type Err = BucketError;

    fn from_str(text: &str) -> Result<Self, BucketError> {
        if let (0, unit) = split_duration(text)?
            && (nanos_of_unit(unit).is_some() || ["mo", "q", "y"].contains(&unit))
        {
            return Ok(Span::ZERO);
        }
        Ok(match width_of(text)? {
            Bucket::Fixed { width, .. } => Span::Nanos(width),
            Bucket::Months(months) => Span::Months(months),
            Bucket::Local(_) => return Err(BucketError::Unreadable(text.to_owned())),
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Span::Nanos(0) => f.write_str("0s"),
            Span::Nanos(width) => Bucket::Fixed { width, offset: 0 }.fmt(f),
            Span::Months(months) => Bucket::Months(months).fmt(f),
        }
    }
}

impl serde::Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start(bucket: &str, at: &str) -> String {
        let bucket: Bucket = bucket.parse().unwrap();
        bucket.start_of(Timestamp::parse(at).unwrap()).to_string()
    }

    #[test]
    fn buckets_start_where_the_calendar_says() {
        let cases = [
            ("1m", "2024-01-15T14:32:45Z", "2024-01-15T14:32:00Z"),
            ("1h", "2024-01-15T14:32:45Z", "2024-01-15T14:00:00Z"),
            ("1d", "1969-12-31T23:00:00Z", "1969-12-31T00:00:00Z"),
            ("1w", "2024-01-15T14:32:45Z", "2024-01-15T00:00:00Z"),
            ("1w", "2024-01-14T23:59:59Z", "2024-01-08T00:00:00Z"),
            ("1w", "1969-12-31T23:00:00Z", "1969-12-29T00:00:00Z"),
            ("7d", "2024-01-15T14:32:45Z", "2024-01-11T00:00:00Z"),
            ("1mo", "2024-02-29T10:00:00Z", "2024-02-01T00:00:00Z"),
            ("1q", "2024-06-30T23:59:59Z", "2024-04-01T00:00:00Z"),
            ("1y", "1969-12-31T23:00:00Z", "1969-01-01T00:00:00Z"),
        ];
        for (bucket, at, expected) in cases {
            assert_eq!(start(bucket, at), expected, "{bucket} of {at}");
        }
    }

    #[test]
    fn widths_read_and_print_alike() {
        for text in ["10s", "90s", "1m", "36h", "7d", "1w", "2w", "1mo", "1q", "1y", "250ms"] {
            assert_eq!(text.parse::<Bucket>().unwrap().to_string(), text);
        }
        for text in ["", "5", "m", "0s", "-1m", "1x", "99999999999999999999d", "9999999d", "1.5h"] {
            assert!(text.parse::<Bucket>().is_err(), "{text}");
        }
        assert_eq!("0s".parse::<Span>(), Ok(Span::ZERO));
        assert_eq!("2y".parse::<Span>().unwrap().to_string(), "2y");
    }

    #[test]
    fn only_matching_boundaries_refine() {
        let refines = |a: &str, b: &str| a.parse::<Bucket>().unwrap().refines(b.parse().unwrap());
        assert!(refines("1m", "1h") && refines("1h", "1d") && refines("1d", "1w"));
        assert!(refines("1d", "1mo") && refines("1mo", "1y") && refines("1q", "1y"));
        assert!(!refines("7m", "1h") && !refines("1w", "1mo") && !refines("7d", "1w"));
        assert!(!refines("1mo", "1d") && !refines("36h", "1mo"));
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_instant(nanos: i64, pick in 0usize..8) {
            let bucket: Bucket = ["7ns", "10s", "1m", "1h", "1w", "1mo", "1q", "1y"][pick].parse().unwrap();
            let at = Timestamp::from_nanos(nanos / 2);
            let range = bucket.range_of(at);
            prop_assert!(range.contains(at));
            prop_assert!(bucket.is_boundary(range.start) && bucket.is_boundary(range.end));
        }
    }
}
