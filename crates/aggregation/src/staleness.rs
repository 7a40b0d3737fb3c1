//! Which pieces the change map has overtaken.
//!
//! Staleness is derived, never recorded: a piece is stale exactly when a granule it covers was
//! touched after the commit its stored partials reflect.

use highwater_core::{TimeRange, TimeRanges, Timestamp};
use highwater_storage::ChangeMap;

use crate::applied::Applied;
use crate::pieces::Pieces;

/// The whole pieces around `within` whose source was touched after they were applied (or touched
/// at all, where nothing is applied), except those that end at or before `sealed_before`: their
/// raw points have expired and their stored partials are all there is.
///
/// `changes` are those of the measurement at the bottom of the hierarchy, for an aggregate over
/// an aggregate as well. They are asked once per run of `applied` and per gap between runs, so the
/// cost grows with the number of runs and of touched ranges, never with the length of the history.
pub fn stale(
    changes: &ChangeMap,
    applied: &Applied,
    pieces: Pieces,
    within: TimeRange,
    sealed_before: Timestamp,
) -> TimeRanges {
    let live = pieces.round_out(within.intersect(TimeRange::since(sealed_before)));
    applied
        .parts(live)
        .into_iter()
        .flat_map(|(part, seq)| {
            let touched = changes.touched_after(seq, part).intersect(&part.into());
            pieces.round_out_all(&touched).iter().collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use highwater_core::SequenceNumber;
    use highwater_core::time::{NANOS_PER_HOUR, NANOS_PER_MINUTE};
    use proptest::prelude::*;

    use super::*;

    /// Touches of minutes since the epoch, each by a commit.
    fn changes(touches: impl IntoIterator<Item = (i64, u64)>) -> ChangeMap {
        let mut changes = ChangeMap::default();
        for (minute, number) in touches {
            changes.touch(minutes(minute, minute + 1), seq(number));
        }
        changes
    }

    fn minutes(start: i64, end: i64) -> TimeRange {
        let at = |minute: i64| Timestamp::from_nanos(minute * NANOS_PER_MINUTE);
        TimeRange::new(at(start), at(end))
    }

    fn hours(start: i64, end: i64) -> TimeRange {
        minutes(start * 60, end * 60)
    }

    fn seq(number: u64) -> SequenceNumber {
        SequenceNumber::new(number)
    }

    fn pieces(bucket: &str) -> Pieces {
        Pieces::of(Some(bucket.parse().unwrap()))
    }

    const NOTHING_SEALED: Timestamp = Timestamp::from_nanos(i64::MIN);

    #[test]
    fn only_pieces_touched_after_they_were_applied_are_stale() {
        let changes = changes([(10, 3), (70, 5), (130, 7), (200, 1)]);
        let mut applied = Applied::nothing();
        applied.set(hours(0, 3), seq(5));
        let found = |within, sealed| stale(&changes, &applied, pieces("1h"), within, sealed);
        let all = [hours(2, 3), hours(3, 4)].into_iter().collect::<TimeRanges>();
        assert_eq!(found(TimeRange::ALL, NOTHING_SEALED), all, "touched later, or never applied");
        assert_eq!(found(minutes(130, 131), NOTHING_SEALED), hours(2, 3).into());
        assert_eq!(found(TimeRange::ALL, hours(3, 4).start), hours(3, 4).into());
    }

    #[test]
    fn pieces_shorter_than_a_granule_are_stale_together() {
        let changes = changes([(0, 3)]);
        let mut applied = Applied::nothing();
        let at = Timestamp::from_secs;
        applied.set(TimeRange::new(at(0), at(20)), seq(3));
        let found = stale(&changes, &applied, pieces("10s"), TimeRange::ALL, NOTHING_SEALED);
        assert_eq!(found, TimeRange::new(at(20), at(60)).into());
    }

    proptest! {
        #[test]
        fn it_equals_asking_every_piece(
            touches in prop::collection::btree_map(0..600i64, 1..9u64, 0..8),
            runs in prop::collection::vec((0..10i64, 1..4i64, 1..9u64), 0..4),
            (from, length) in (0..600i64, 0..600i64),
            sealed in 0..10i64,
        ) {
            let (map, hourly) = (changes(touches.clone()), pieces("1h"));
            let mut applied = Applied::nothing();
            for (start, hours_long, number) in runs {
                applied.set(hours(start, start + hours_long), seq(number));
            }
            let within = minutes(from, from + length);
            let sealed_before = Timestamp::from_nanos(sealed * NANOS_PER_HOUR);
            let found = stale(&map, &applied, hourly, within, sealed_before);

            let is_stale = |piece: &TimeRange| {
                let own = applied.get(*piece);
                let overtakes = |(minute, number): (&i64, &u64)| {
                    *number > own.get() && minutes(*minute, minute + 1).overlaps(*piece)
                };
                piece.overlaps(within) && piece.end > sealed_before && touches.iter().any(overtakes)
            };
            let expected: TimeRanges = (0..12).map(|h| hours(h, h + 1)).filter(is_stale).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
