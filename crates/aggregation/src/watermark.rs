//! The watermark (`last_processed`): event time up to which buckets are closed and materialized.
//!
//! It labels answers and schedules work; no answer depends on it. It stands on bucket boundaries
//! (UTC midnights for an aggregate that is kept by days), never moves back, and never passes the
//! wall clock minus lateness, so a point from the year 2261 moves nothing.

use highwater_core::bucket::Span;
use highwater_core::{Bucket, ErrorKind, TimeRanges, Timestamp};

/// End of the last bucket that is closed at `now`: one that ended at least `lateness` ago.
pub fn closing(grid: Bucket, now: Timestamp, lateness: Span) -> Timestamp {
    grid.start_of(lateness.before(now))
}

/// Where the watermark stands, given what is still `stale` and the time of the earliest point.
///
/// A new aggregate starts at the first bucket with data, once that is closed; before, there is no
/// watermark.
pub fn advance(
    grid: Bucket,
    current: Option<Timestamp>,
    earliest: Option<Timestamp>,
    stale: &TimeRanges,
    closing: Timestamp,
) -> Option<Timestamp> {
    let first_bucket = || earliest.map(|at| grid.start_of(at)).filter(|first| *first < closing);
    let from = current.or_else(first_bucket)?;
    let pending = stale.iter().find(|range| range.end > from);
    let reached = pending.map_or(closing, |range| grid.start_of(range.start).min(closing));
    Some(from.max(reached))
}

/// Why the watermark cannot be set by hand to where it was asked to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatermarkError {
    /// Not the start of a bucket.
    #[error("{to} is no bucket boundary; the nearest are {before} and {after}")]
    OffBoundary {
        /// Where it was asked to be.
        to: Timestamp,
        /// The boundary before that.
        before: Timestamp,
        /// The boundary after that.
        after: Timestamp,
    },
    /// Before where it stands.
    #[error("the watermark stands at {current} and does not move back to {to}")]
    Backwards {
        /// Where it was asked to be.
        to: Timestamp,
        /// Where it stands.
        current: Timestamp,
    },
    /// Past buckets that are still open.
    #[error("buckets are closed up to {closing} only, so the watermark cannot be {to}")]
    NotClosed {
        /// Where it was asked to be.
        to: Timestamp,
        /// The furthest it can be.
        closing: Timestamp,
    },
}

impl WatermarkError {
    /// What the caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            WatermarkError::Backwards { .. } => ErrorKind::Conflict,
            WatermarkError::OffBoundary { .. } | WatermarkError::NotClosed { .. } => {
                ErrorKind::Invalid
            }
        }
    }
}

/// Checks that the watermark may be set to `to`; what is stale before that must be refreshed first.
///
/// # Errors
/// [`WatermarkError`] says why not.
pub fn check_move(
    grid: Bucket,
    current: Option<Timestamp>,
    to: Timestamp,
    closing: Timestamp,
) -> Result<(), WatermarkError> {
    let bucket = grid.range_of(to);
    match current {
        _ if bucket.start != to => {
            Err(WatermarkError::OffBoundary { to, before: bucket.start, after: bucket.end })
        }
        Some(current) if to < current => Err(WatermarkError::Backwards { to, current }),
        _ if to > closing => Err(WatermarkError::NotClosed { to, closing }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use highwater_core::TimeRange;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(&format!("2024-01-01T{text}:00Z")).unwrap()
    }

    fn hourly() -> Bucket {
        "1h".parse().unwrap()
    }

    fn stale(ranges: &[(&str, &str)]) -> TimeRanges {
        ranges.iter().map(|(start, end)| TimeRange::new(at(start), at(end))).collect()
    }

    #[test]
    fn a_bucket_closes_when_lateness_has_passed() {
        let cases = [
            ("1h", "10:59", "0s", "10:00"),
            ("1h", "11:00", "0s", "11:00"),
            ("1h", "11:00", "1m", "10:00"),
            ("1h", "11:01", "1m", "11:00"),
            ("1d", "23:59", "0s", "00:00"),
        ];
        for (grid, now, lateness, expected) in cases {
            let closing = closing(grid.parse().unwrap(), at(now), lateness.parse().unwrap());
            assert_eq!(closing, at(expected), "{grid} at {now}, {lateness} late");
        }
    }

    #[test]
    fn it_advances_over_what_is_materialized_and_never_back() {
        let advance = |current: Option<&str>, earliest: Option<&str>, pending: &[(&str, &str)]| {
            let next =
                advance(hourly(), current.map(at), earliest.map(at), &stale(pending), at("12:00"));
            next.map(|at| at.to_string()[11..16].to_owned())
        };
        let next = |text: &str| Some(text.to_owned());
        assert_eq!(advance(None, None, &[]), None, "no data");
        assert_eq!(advance(None, Some("12:30"), &[]), None, "only points from the future");
        assert_eq!(advance(None, Some("09:30"), &[("09:00", "12:00")]), next("09:00"));
        assert_eq!(advance(None, Some("09:30"), &[]), next("12:00"));
        assert_eq!(advance(Some("09:00"), Some("09:30"), &[("10:00", "11:00")]), next("10:00"));
        let late = [("08:00", "09:00")];
        assert_eq!(advance(Some("10:00"), Some("08:30"), &late), next("12:00"), "late points");
        assert_eq!(advance(Some("13:00"), Some("08:30"), &[]), next("13:00"));
        assert_eq!(advance(Some("10:00"), Some("09:30"), &[("12:00", "13:00")]), next("12:00"));
    }

    #[test]
    fn a_day_of_a_month_holds_back_the_whole_month() {
        let month: Bucket = "1mo".parse().unwrap();
        let day = |text: &str| Timestamp::parse(text).unwrap();
        let pending = TimeRange::new(day("2024-02-10"), day("2024-02-11")).into();
        let next = advance(month, None, Some(day("2024-01-15")), &pending, day("2024-03-01"));
        assert_eq!(next, Some(day("2024-02-01")));
    }

    #[test]
    fn it_is_set_to_closed_boundaries_ahead_only() {
        let check = |to| check_move(hourly(), Some(at("10:00")), at(to), at("12:00"));
        assert_eq!(check("10:00"), Ok(()));
        assert_eq!(check("12:00"), Ok(()));
        assert_eq!(check("10:30").map_err(|e| e.kind()), Err(ErrorKind::Invalid));
        assert_eq!(check("09:00").map_err(|e| e.kind()), Err(ErrorKind::Conflict));
        assert_eq!(check("13:00").map_err(|e| e.kind()), Err(ErrorKind::Invalid));
    }
}
