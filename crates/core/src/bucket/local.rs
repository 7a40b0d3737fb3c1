//! Buckets by the clocks on the walls of a time zone.
//!
//! ```text
//! Europe/Berlin, 2024-10-27    00:00   01:00   02:00   02:00   03:00
//! 1h                           ├───────┼───────┼───────┼───────┼──
//! 2h                           ├───────────────┼───────┼──────────   both 02:00 are boundaries
//! 1d                           ├────────────── 25 hours ──────────
//! ```
//!
//! Widths below a day divide it. Every instant at which a clock shows a multiple of the width is a
//! boundary, and so is the instant at which clocks jump over one. Days, weeks, months, quarters and
//! years start at the first instant of their first civil date, so days may have 23 or 25 hours.
//!
//! Offsets from UTC are rounded to whole minutes, which matters before the standard times of the
//! 19th and early 20th century only: every boundary is one between two minutes.

use chrono::{DateTime, Datelike, Offset, TimeZone, Utc};
use chrono_tz::Tz;

use crate::time::{NANOS_PER_DAY, NANOS_PER_MINUTE, NANOS_PER_SEC, Timestamp};

use super::{saturate, start_of_month_nanos};

/// How the civil time of a zone is cut into buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalBucket {
    pub(super) width: LocalWidth,
    /// Civil time at which a day begins, or, below a day, of one boundary: `[0, 24 h)` or
    /// `[0, width)`, in nanoseconds.
    pub(super) offset: i64,
    pub(super) zone: Tz,
}

/// Length of a bucket in civil time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LocalWidth {
    /// Nanoseconds that divide a day, and shorter than it.
    Time(i64),
    /// Civil days, counted from `anchor` days after 1970-01-01.
    Days { count: u32, anchor: u32 },
    /// Civil months, counted from January 1970.
    Months(u32),
}

impl LocalBucket {
    /// The zone whose clocks count.
    pub fn zone(self) -> Tz {
        self.zone
    }

    /// The last boundary up to `at`; saturates at the ends of representable time.
    pub(super) fn start_of(self, at: Timestamp) -> Timestamp {
        match self.width {
            LocalWidth::Time(width) => self.time_start(at, width),
            _ => self.period_boundary(self.period_at(at)),
        }
    }

    /// The first boundary after `at`; saturates.
    pub(super) fn end_of(self, at: Timestamp) -> Timestamp {
        match self.width {
            LocalWidth::Time(width) => self.time_end(at, width),
            _ => self.period_boundary(self.period_at(at) + 1),
        }
    }

    /// Whether every boundary of `coarser` is one of these too.
    pub(super) fn refines(self, coarser: LocalBucket) -> bool {
        if self.zone != coarser.zone {
            return false;
        }
        let apart = (coarser.offset - self.offset).abs();
        match (self.width, coarser.width) {
            (LocalWidth::Time(width), LocalWidth::Time(outer)) => {
                outer % width == 0 && apart % width == 0
            }
            (LocalWidth::Time(width), _) => apart % width == 0,
            (_, LocalWidth::Time(_)) | (LocalWidth::Months(_), LocalWidth::Days { .. }) => false,
            (
                LocalWidth::Days { count, anchor },
                LocalWidth::Days { count: outer, anchor: outer_anchor },
            ) => apart == 0 && outer % count == 0 && anchor.abs_diff(outer_anchor) % count == 0,
            (LocalWidth::Days { count, .. }, LocalWidth::Months(_)) => apart == 0 && count == 1,
            (LocalWidth::Months(months), LocalWidth::Months(outer)) => {
                apart == 0 && outer % months == 0
            }
        }
    }

    /// Whether every boundary lies on a multiple of `width` nanoseconds of UTC plus `offset`.
    pub(super) fn lies_on(self, width: i64, offset: i64) -> bool {
        let step = match self.width {
            LocalWidth::Time(own) => own,
            LocalWidth::Days { .. } | LocalWidth::Months(_) => NANOS_PER_DAY,
        };
        let fits = |shift: i64| (self.offset - shift - offset).rem_euclid(width) == 0;
        step % width == 0 && offsets_of(self.zone).all(fits)
    }

    fn time_start(self, at: Timestamp, width: i64) -> Timestamp {
        let shift = shift_at(self.zone, at);
        let start = self.multiple_before(at, shift, width);
        let before = shift_at(self.zone, start);
        if before == shift {
            return start;
        }
        let change = self.change_between(start, at);
        if self.is_boundary_of_change(change, before, shift, width) {
            return change;
        }
        self.time_start(change.saturating_sub(1), width)
    }

    fn time_end(self, at: Timestamp, width: i64) -> Timestamp {
        let shift = shift_at(self.zone, at);
        let end = self.multiple_before(at, shift, width).saturating_add(width);
        let after = shift_at(self.zone, end);
        if after == shift {
            return end;
        }
        let change = self.change_between(at, end);
        if self.is_boundary_of_change(change, shift, after, width) {
            return change;
        }
        self.time_end(change, width)
    }

    /// The last instant up to `at` at which a clock that is `shift` ahead of UTC shows a boundary.
    fn multiple_before(self, at: Timestamp, shift: i64, width: i64) -> Timestamp {
        let civil = i128::from(at.as_nanos()) + i128::from(shift - self.offset);
        saturate(i128::from(at.as_nanos()) - civil.rem_euclid(i128::from(width)))
    }

    /// Whether clocks show a boundary at `change`, or jump over one there.
    fn is_boundary_of_change(self, change: Timestamp, before: i64, after: i64, width: i64) -> bool {
        let civil = |shift: i64| i128::from(change.as_nanos()) + i128::from(shift - self.offset);
        let to_next = (-civil(before)).rem_euclid(i128::from(width));
        civil(after) % i128::from(width) == 0 || civil(before) + to_next < civil(after)
    }

    /// The first instant after `from`, up to `to`, at which clocks have changed; they do so once.
    fn change_between(self, from: Timestamp, to: Timestamp) -> Timestamp {
        let shift = shift_at(self.zone, from);
        let (mut low, mut high) = (from.as_nanos(), to.as_nanos());
        while high - low > 1 {
            let middle = low.midpoint(high);
            match shift_at(self.zone, Timestamp::from_nanos(middle)) == shift {
                true => low = middle,
                false => high = middle,
            }
        }
        Timestamp::from_nanos(high)
    }

    /// Number of the period that holds `at`.
    fn period_at(self, at: Timestamp) -> i64 {
        let civil = i128::from(at.as_nanos()) + i128::from(shift_at(self.zone, at) - self.offset);
        let day = civil.div_euclid(i128::from(NANOS_PER_DAY)) as i64;
        let mut period = match self.width {
            LocalWidth::Days { count, anchor } => {
                (day - i64::from(anchor)).div_euclid(i64::from(count))
            }
            LocalWidth::Months(months) => month_of_day(day).div_euclid(i64::from(months)),
            LocalWidth::Time(_) => unreachable!("widths below a day have no periods"),
        };
        // Clocks that were turned back may show the date before once more, and skipped dates have
        // no length.
        while self.period_boundary(period) < self.period_boundary(period + 2)
            && self.period_boundary(period + 1) <= at
        {
            period += 1;
        }
        period
    }

    fn period_boundary(self, period: i64) -> Timestamp {
        let civil = match self.width {
            LocalWidth::Days { count, anchor } => {
                let day = i128::from(period) * i128::from(count) + i128::from(anchor);
                day * i128::from(NANOS_PER_DAY)
            }
            LocalWidth::Months(months) => start_of_month_nanos(period * i64::from(months)),
            LocalWidth::Time(_) => unreachable!("widths below a day have no periods"),
        };
        self.first_instant(civil + i128::from(self.offset))
    }

    /// The first instant at which clocks show this civil time, or jump over it.
    fn first_instant(self, civil: i128) -> Timestamp {
        let day = i128::from(NANOS_PER_DAY);
        let before = shift_at(self.zone, saturate(civil - day));
        let after = shift_at(self.zone, saturate(civil + day));
        let with = |shift: i64| saturate(civil - i128::from(shift));
        let shows = |shift: i64| shift_at(self.zone, with(shift)) == shift;
        if before == after || shows(before) {
            with(before)
        } else if shows(after) {
            with(after)
        } else {
            self.change_between(with(after), with(before))
        }
    }
}

/// How far clocks are ahead of UTC, in nanoseconds, whole minutes.
fn shift_at(zone: Tz, at: Timestamp) -> i64 {
    let utc = DateTime::<Utc>::from_timestamp_nanos(at.as_nanos()).naive_utc();
    let secs = i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc());
    (secs * NANOS_PER_SEC + NANOS_PER_MINUTE / 2).div_euclid(NANOS_PER_MINUTE) * NANOS_PER_MINUTE
}

/// Every offset that the zone ever has, some many times.
fn offsets_of(zone: Tz) -> impl Iterator<Item = i64> {
    let days = i64::MIN / NANOS_PER_DAY..=i64::MAX / NANOS_PER_DAY;
    days.map(move |day| shift_at(zone, Timestamp::from_nanos(day * NANOS_PER_DAY)))
}

/// Months from January 1970 to the day that is so many days after 1970-01-01.
fn month_of_day(day: i64) -> i64 {
    let date = DateTime::<Utc>::from_timestamp(day * 86_400, 0).unwrap_or_default();
    (i64::from(date.year()) - 1970) * 12 + i64::from(date.month0())
}

#[cfg(test)]
mod tests;
