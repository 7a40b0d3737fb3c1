//! Pieces: the ranges of event time that one stored partial covers.
//!
//! A bucket of at most a day is one piece. A longer bucket, one of a time zone or with an offset, and
//! the all-time "bucket" of a keyed aggregate, is cut at UTC midnights too, so its open end never means reading all of it again and
//! raw data can expire by whole days inside it:
//!
//! ```text
//! buckets   |        1mo = January         |       February
//! midnights |  .  .  .  .  .  .  .  .  .  .|  .  .  .
//! pieces    |--|--|--|--|--|--|--|--|--|--|--|--|--|--
//! ```

use highwater_core::time::NANOS_PER_DAY;
use highwater_core::{Bucket, TimeRange, TimeRanges, Timestamp};

/// How the event time of one aggregate is cut into pieces.
///
/// All times saturate at the ends of representable time, as those of [`Bucket`] do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    bucket: Option<Bucket>,
    cut_at_midnights: bool,
}

impl Pieces {
    /// The pieces of an aggregate over raw points; without a bucket they are UTC days.
    pub fn of(bucket: Option<Bucket>) -> Self {
        Pieces { bucket, cut_at_midnights: bucket.is_none_or(needs_cuts) }
    }

    /// The pieces of an aggregate over another one whose pieces are `source`: each is a union of
    /// whole pieces of the source, so midnights cut only where they cut the source.
    ///
    /// `None` if there is no such cut: a keyed aggregate over pieces that straddle midnights.
    pub fn over(bucket: Option<Bucket>, source: Pieces) -> Option<Self> {
        let pieces = Pieces::of(bucket);
        match bucket {
            _ if !pieces.cut_at_midnights || source.end_at_midnights() => Some(pieces),
            Some(_) => Some(Pieces { bucket, cut_at_midnights: false }),
            None => None,
        }
    }

    /// The buckets that are cut; `None` for a keyed aggregate.
    pub fn bucket(self) -> Option<Bucket> {
        self.bucket
    }

    /// Whether every bucket is one piece, so that stored partials need no merge on read.
    pub fn are_buckets(self) -> bool {
        self.bucket.is_some() && !self.cut_at_midnights
    }

    /// Whether no piece straddles a UTC midnight.
    pub fn end_at_midnights(self) -> bool {
        self.cut_at_midnights || self.bucket.is_some_and(|bucket| bucket.refines(Bucket::DAY))
    }

    /// The piece that holds `at`.
    pub fn piece_of(self, at: Timestamp) -> TimeRange {
        match self.bucket {
            Some(bucket) if self.cut_at_midnights => {
                bucket.range_of(at).intersect(Bucket::DAY.range_of(at))
            }
            bucket => bucket.unwrap_or(Bucket::DAY).range_of(at),
        }
    }

    /// The bucket that holds `at`, one piece or many; all time for a keyed aggregate.
    pub fn bucket_of(self, at: Timestamp) -> TimeRange {
        self.bucket.map_or(TimeRange::ALL, |bucket| bucket.range_of(at))
    }

    /// The grid on which watermarks stand: the buckets, or UTC days for a keyed aggregate.
    pub fn grid(self) -> Bucket {
        self.bucket.unwrap_or(Bucket::DAY)
    }

    /// Whether a piece starts at `at`.
    pub fn is_boundary(self, at: Timestamp) -> bool {
        self.piece_of(at).start == at
    }

    /// The smallest range of whole pieces around `range`; empty stays empty. Constant time.
    pub fn round_out(self, range: TimeRange) -> TimeRange {
        if range.is_empty() {
            return range;
        }
        let last = range.end.saturating_sub(1);
        TimeRange::new(self.piece_of(range.start).start, self.piece_of(last).end)
    }

    /// The whole pieces within `range`. Constant time.
    pub fn round_in(self, range: TimeRange) -> TimeRange {
        if range.is_empty() {
            return range;
        }
        let first = self.piece_of(range.start);
        let last = self.piece_of(range.end.saturating_sub(1));
        let start = if first.start == range.start { first.start } else { first.end };
        let end = if last.end == range.end { last.end } else { last.start };
        TimeRange::new(start, end.max(start))
    }

    /// Whether every piece lies within one bucket of `coarser`.
    pub fn refine(self, coarser: Bucket) -> bool {
        self.bucket.is_some_and(|bucket| bucket.refines(coarser))
            || self.cut_at_midnights && Bucket::DAY.refines(coarser)
    }

    /// [`Pieces::round_out`] of every range; the time it takes grows with their number only.
    pub fn round_out_all(self, ranges: &TimeRanges) -> TimeRanges {
        ranges.iter().map(|range| self.round_out(range)).collect()
    }

    /// The pieces that `range` touches, ascending.
    pub fn iter(self, range: TimeRange) -> impl Iterator<Item = TimeRange> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            (at < range.end).then(|| {
                let piece = self.piece_of(at);
                at = if piece.end > at { piece.end } else { range.end };
                piece
            })
        })
    }

    /// How many buckets (for a keyed aggregate: UTC days) `ranges` touch.
    ///
    /// Takes time in the number of ranges, and of buckets for those of a calendar or time zone.
    pub fn count_buckets(self, ranges: &TimeRanges) -> u64 {
        let grid = self.grid();
        let mut counted_to = None;
        let mut buckets = 0;
        for range in ranges.iter() {
            let rounded = grid.round_out(range);
            let from = counted_to.map_or(rounded.start, |to| rounded.start.max(to));
            buckets += count_whole(grid, TimeRange::new(from, rounded.end));
            counted_to = Some(rounded.end);
        }
        buckets
    }

    /// How many pieces `ranges` touch; takes time as [`Pieces::count_buckets`] does. Where midnights
    /// cut buckets, those that a boundary cuts again are counted once.
    pub fn count(self, ranges: &TimeRanges) -> u64 {
        match self.cut_at_midnights {
            true => Pieces::of(None).count_buckets(ranges),
            false => self.count_buckets(ranges),
        }
    }

    /// The last instant not after `at` that is both a piece boundary and a UTC midnight, or
    /// `floor` if there is none after it: raw points may expire up to there without tearing a
    /// piece.
    pub fn midnight_boundary_before(self, at: Timestamp, floor: Timestamp) -> Timestamp {
        let mut candidate = at;
        while candidate > floor {
            let midnight = candidate.start_of_day();
            let boundary = self.piece_of(midnight).start;
            if boundary == midnight {
                return midnight.max(floor);
            }
            candidate = boundary;
        }
        floor
    }
}

/// Whether boundaries are far apart, or never at a UTC midnight, where raw points expire.
fn needs_cuts(bucket: Bucket) -> bool {
    match bucket {
        Bucket::Fixed { width, offset } => {
            width > NANOS_PER_DAY || offset % common_divisor(width, NANOS_PER_DAY) != 0
        }
        Bucket::Months(_) | Bucket::Local(_) => true,
    }
}

/// The greatest, of positive numbers.
fn common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// Number of buckets in a range that starts and ends on boundaries.
fn count_whole(grid: Bucket, range: TimeRange) -> u64 {
    match grid {
        _ if range.is_empty() => 0,
        Bucket::Fixed { width, .. } => {
            let length = i128::from(range.end.as_nanos()) - i128::from(range.start.as_nanos());
            // Rounded up: a bucket that saturated at the end of time is shorter than the others.
            u64::try_from((length + i128::from(width) - 1) / i128::from(width)).unwrap_or(u64::MAX)
        }
        Bucket::Months(_) | Bucket::Local(_) => grid.iter(range).count() as u64,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(bucket: &str) -> Pieces {
        Pieces::of((bucket != "none").then(|| bucket.parse().unwrap()))
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn range(start: &str, end: &str) -> TimeRange {
        TimeRange::new(at(start), at(end))
    }

    #[test]
    fn pieces_are_buckets_or_parts_of_them() {
        let cases = [
            ("1m", "2024-01-15T14:32:45Z", "2024-01-15T14:32:00Z", "2024-01-15T14:33:00Z"),
            ("1d", "2024-01-15T14:32:45Z", "2024-01-15T00:00:00Z", "2024-01-16T00:00:00Z"),
            // Straddles a midnight and stays one piece.
            ("7h", "2024-01-15T01:00:00Z", "2024-01-14T19:00:00Z", "2024-01-15T02:00:00Z"),
            // Buckets are [15th, 16th 12:00), [16th 12:00, 18th).
            ("36h", "2024-01-16T11:00:00Z", "2024-01-16T00:00:00Z", "2024-01-16T12:00:00Z"),
            ("36h", "2024-01-16T14:00:00Z", "2024-01-16T12:00:00Z", "2024-01-17T00:00:00Z"),
            ("1w", "2024-01-17T14:00:00Z", "2024-01-17T00:00:00Z", "2024-01-18T00:00:00Z"),
            ("1mo", "2024-02-29T14:00:00Z", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
            ("none", "1969-12-31T23:59:59Z", "1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z"),
        ];
        for (bucket, instant, start, end) in cases {
            assert_eq!(pieces(bucket).piece_of(at(instant)), range(start, end), "{bucket}");
        }
    }

    #[test]
    fn raw_points_can_expire_under_every_kind_of_bucket() {
        let now = at("2024-07-15T14:32:45Z");
        for bucket in [
            "1m",
            "7m",
            "1h +15m",
            "1d",
            "1d +6h",
            "1w sunday",
            "1mo +6h",
            "none",
            "1h Asia/Kolkata",
            "1d Asia/Kolkata",
            "1d +6h Europe/Berlin",
            "1y America/New_York",
        ] {
            let pieces = pieces(bucket);
            let boundary = pieces.midnight_boundary_before(now, at("2024-01-01T00:00:00Z"));
            assert!(boundary > at("2024-07-07T00:00:00Z"), "{bucket}: {boundary}");
            assert!(Bucket::DAY.is_boundary(boundary) && pieces.is_boundary(boundary), "{bucket}");
        }
    }

    #[test]
    fn ranges_are_rounded_to_whole_pieces() {
        let inside = range("2024-01-15T14:32:00Z", "2024-01-16T00:00:01Z");
        assert_eq!(
            pieces("1mo").round_out(inside),
            range("2024-01-15T00:00:00Z", "2024-01-17T00:00:00Z")
        );
        assert_eq!(pieces("none").round_out(TimeRange::ALL), TimeRange::ALL);
        let nothing = TimeRange::new(at("2024-01-01"), at("2024-01-01"));
        assert_eq!(pieces("1h").round_out(nothing), nothing);
    }

    #[test]
    fn ranges_hold_whole_pieces() {
        let ragged = range("2024-01-15T14:32:00Z", "2024-01-17T00:00:01Z");
        assert_eq!(
            pieces("1h").round_in(ragged),
            range("2024-01-15T15:00:00Z", "2024-01-17T00:00:00Z")
        );
        assert_eq!(pieces("1mo").round_in(ragged), range("2024-01-16", "2024-01-17"));
        assert!(
            pieces("1h").round_in(range("2024-01-15T14:32:00Z", "2024-01-15T14:33:00Z")).is_empty()
        );
        assert!(
            pieces("1h").round_in(range("2024-01-15T14:32:00Z", "2024-01-15T15:33:00Z")).is_empty()
        );
        assert_eq!(pieces("7h").round_in(TimeRange::ALL), TimeRange::ALL);
    }

    #[test]
    fn pieces_lie_within_buckets_that_both_grids_cut() {
        let lies = |own: &str, coarser: &str| pieces(own).refine(coarser.parse().unwrap());
        assert!(lies("1m", "1h") && lies("1h", "1mo") && !lies("1h", "90m"));
        assert!(lies("1mo", "1d") && lies("none", "1w"), "kept by days");
        assert!(!lies("1mo", "1h") && !lies("7h", "1d") && !lies("1d", "1d Europe/Berlin"));
    }

    #[test]
    fn a_long_bucket_knows_its_days_and_its_bounds() {
        let month = pieces("1mo");
        assert_eq!(month.iter(range("2024-02-01", "2024-03-01")).count(), 29);
        assert_eq!(month.bucket_of(at("2024-02-10")), range("2024-02-01", "2024-03-01"));
        assert!(!month.are_buckets() && pieces("1d").are_buckets());
        assert_eq!(pieces("none").bucket_of(at("2024-02-10")), TimeRange::ALL);
    }

    #[test]
    fn pieces_of_a_child_are_whole_pieces_of_its_source() {
        let over = |child: &str, parent: &str| {
            Pieces::over((child != "none").then(|| child.parse().unwrap()), pieces(parent))
        };
        assert_eq!(over("1w", "1h"), Some(pieces("1w")));
        assert_eq!(over("none", "1h"), Some(pieces("none")));
        assert_eq!(over("none", "1mo"), Some(pieces("none")));
        assert!(over("7d", "7h").unwrap().are_buckets(), "7h pieces straddle midnights");
        assert_eq!(over("none", "7h"), None);
    }

    #[test]
    fn buckets_are_counted_once() {
        let ranges = [
            range("2024-01-01T00:10:00Z", "2024-01-01T00:20:00Z"),
            range("2024-01-01T00:30:00Z", "2024-01-01T02:00:01Z"),
            range("2024-02-01T00:00:00Z", "2024-02-01T00:00:01Z"),
        ];
        let ranges: TimeRanges = ranges.into_iter().collect();
        for (bucket, expected) in [("1h", 4), ("1d", 2), ("1mo", 2), ("1y", 1), ("none", 2)] {
            assert_eq!(pieces(bucket).count_buckets(&ranges), expected, "{bucket}");
        }
        assert!(pieces("1ns").count_buckets(&TimeRanges::all()) > 1 << 62);
    }

    #[test]
    fn expiry_stops_where_no_piece_is_torn() {
        let cases = [
            ("1h", "2024-01-15T14:00:00Z", "2024-01-15T00:00:00Z"),
            ("1mo", "2024-01-15T14:00:00Z", "2024-01-15T00:00:00Z"),
            // Multiples of 7h that are midnights are whole multiples of seven days.
            ("7h", "2024-01-15T14:00:00Z", "2024-01-11T00:00:00Z"),
        ];
        for (bucket, instant, expected) in cases {
            let boundary = pieces(bucket).midnight_boundary_before(at(instant), Timestamp::EPOCH);
            assert_eq!(boundary, at(expected), "{bucket}");
        }
        let floor = at("2024-01-13");
        let torn = pieces("7h").midnight_boundary_before(at("2024-01-15T14:00:00Z"), floor);
        assert_eq!(torn, floor);
    }

    proptest! {
        #[test]
        fn pieces_tile_time_within_buckets(nanos: i64, pick in 0usize..9) {
            let names = ["7ns", "10s", "1h", "7h", "36h", "1w", "1mo", "1y", "none"];
            let pieces = pieces(names[pick]);
            let instant = Timestamp::from_nanos(nanos / 2);
            let piece = pieces.piece_of(instant);
            prop_assert!(piece.contains(instant));
            prop_assert!(pieces.bucket_of(instant).covers(piece));
            prop_assert!(pieces.is_boundary(piece.start) && pieces.is_boundary(piece.end));
            let inside = TimeRange::new(instant, piece.end);
            prop_assert_eq!(pieces.round_out(inside), piece);
            prop_assert_eq!(pieces.iter(inside).collect::<Vec<_>>(), vec![piece]);
        }

        #[test]
        fn counting_equals_listing(start in 0i64..4000, length in 1i64..4000, pick in 0usize..4) {
            let names = ["7h", "1d", "1mo", "none"];
            let pieces = pieces(names[pick]);
            let hour = |hours: i64| Timestamp::from_secs(hours * 3600 + 17);
            let range = TimeRange::new(hour(start), hour(start + length));
            let listed = pieces.grid().iter(range).count() as u64;
            prop_assert_eq!(pieces.count_buckets(&range.into()), listed);
        }
    }
}
