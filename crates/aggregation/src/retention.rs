//! The gate before expiry: how far the floor of a source may rise now, and who holds it back.
//!
//! Raw data of a range goes only after every dependant has applied it and keeps the partials as
//! sealed ones. It goes by whole UTC days, and never through the middle of a dependant's piece.

use std::fmt;
use std::sync::Arc;

use highwater_core::bucket::Span;
use highwater_core::{TimeRange, TimeRanges, Timestamp};

use crate::pieces::Pieces;

/// A source whose data expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// Everything before this instant is gone already.
    pub floor: Timestamp,
    /// Everything before this instant is past its age.
    pub horizon: Timestamp,
    /// How its own partials are cut, if the source is an aggregate: its buckets go as a whole.
    pub pieces: Option<Pieces>,
}

/// An aggregate that reads the source, enabled or not; a detached one holds nothing back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependant {
    /// Its name.
    pub name: Arc<str>,
    /// How its partials are cut.
    pub pieces: Pieces,
    /// What it has not applied yet, or has in memory alone.
    pub stale: TimeRanges,
}

/// What may expire now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Where the floor may be raised to; the present floor if nowhere.
    pub floor: Timestamp,
    /// Where it would be without dependants.
    pub wanted: Timestamp,
    /// Dependants that hold it back, in the order given.
    pub held_back: Vec<HeldBack>,
}

/// Why one dependant keeps data from expiring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// Name of the dependant.
    pub by: Arc<str>,
    /// It keeps everything from this instant on.
    pub from: Timestamp,
    /// What it has to apply first; empty if only a piece of it would be torn.
    pub waits_for: TimeRanges,
}

impl Gate {
    /// Whether something may expire now.
    pub fn is_open(&self, source: &Expiring) -> bool {
        self.floor > source.floor
    }
}

impl HeldBack {
    /// For how long, in nanoseconds, the earliest that the dependant has not applied is past its
    /// age; 0 if nothing waits but a piece that would be torn.
    pub fn held_nanos(&self, source: &Expiring) -> i64 {
        let waits = self.waits_for.hull();
        waits.map_or(0, |hull| {
            source.horizon.as_nanos().saturating_sub(hull.start.max(source.floor).as_nanos())
        })
    }

    /// Whether that is longer than `max_hold`.
    pub fn is_overdue(&self, source: &Expiring, max_hold: Span) -> bool {
        let earliest_kept = max_hold.before(source.horizon);
        self.waits_for.hull().is_some_and(|hull| hull.start < earliest_kept)
    }
}

/// What goes although dependants hold it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// Where the floor is raised to; the present floor if nothing can go.
    pub floor: Timestamp,
    /// What each dependant, in the order given, had not applied of it.
    pub lost: Vec<TimeRanges>,
}

/// What goes if nobody is waited for. Pieces are not torn all the same: one that went by half
/// could never be right again.
pub fn force(source: &Expiring, dependants: &[Dependant]) -> Forced {
    let idle = |one: &Dependant| Dependant { stale: TimeRanges::none(), ..one.clone() };
    let floor = gate(source, &dependants.iter().map(idle).collect::<Vec<_>>()).floor;
    let gone = TimeRanges::from(TimeRange::new(source.floor, floor));
    let lost = dependants.iter().map(|one| one.stale.intersect(&gone)).collect();
    Forced { floor, lost }
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keeps everything from {}", self.by, self.from)?;
        match self.waits_for.is_empty() {
            true => f.write_str(", where a piece of it would be torn"),
            false => write!(f, " until it has applied {}", self.waits_for),
        }
    }
}

/// How far the floor of `source` may rise now.
pub fn gate(source: &Expiring, dependants: &[Dependant]) -> Gate {
    let wanted = source.aligned(source.horizon);
    let mut gate = Gate { floor: wanted, wanted, held_back: Vec::new() };
    for dependant in dependants {
        gate.wait_for(source, dependant);
    }
    while let Some(torn) = dependants.iter().find(|d| d.boundary(source, gate.floor) < gate.floor) {
        gate.keep_whole(source, torn);
    }
    gate
}

impl Gate {
    /// Lowers the floor to where a dependant has applied everything.
    fn wait_for(&mut self, source: &Expiring, dependant: &Dependant) {
        let expiring = TimeRange::new(source.floor, self.wanted);
        let waits_for = dependant.stale.intersect(&expiring.into());
        if let Some(hull) = waits_for.hull() {
            let from = dependant.boundary(source, hull.start);
            self.floor = self.floor.min(source.aligned(from));
            self.held_back.push(HeldBack { by: Arc::clone(&dependant.name), from, waits_for });
        }
    }

    /// Lowers the floor to where it does not go through a piece of a dependant.
    fn keep_whole(&mut self, source: &Expiring, dependant: &Dependant) {
        let from = dependant.boundary(source, self.floor);
        self.floor = source.aligned(from);
        match self.held_back.iter_mut().find(|held| held.by == dependant.name) {
            Some(held) => held.from = from,
            None => self.held_back.push(HeldBack {
                by: Arc::clone(&dependant.name),
                from,
                waits_for: TimeRanges::none(),
            }),
        }
    }
}

impl Expiring {
    /// The last UTC midnight not after `at` that is a bucket boundary of the source.
    fn aligned(&self, at: Timestamp) -> Timestamp {
        let Some(pieces) = self.pieces else { return at.start_of_day().max(self.floor) };
        let mut at = at;
        loop {
            let boundary = pieces.midnight_boundary_before(at, self.floor);
            let bucket = pieces.bucket().map_or(boundary, |bucket| bucket.start_of(boundary));
            match bucket {
                _ if boundary <= self.floor || bucket <= self.floor => return self.floor,
                bucket if bucket == boundary => return boundary,
                bucket => at = bucket,
            }
        }
    }
}

impl Dependant {
    /// The last midnight not after `at` that tears no piece.
    fn boundary(&self, source: &Expiring, at: Timestamp) -> Timestamp {
        self.pieces.midnight_boundary_before(at, source.floor)
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;

    fn day(text: &str) -> Timestamp {
        Timestamp::parse(&format!("2024-01-{text}")).unwrap()
    }

    fn raw(floor: &str, horizon: &str) -> Expiring {
        Expiring { floor: day(floor), horizon: day(horizon), pieces: None }
    }

    fn dependant(name: &str, bucket: &str, stale: &[(&str, &str)]) -> Dependant {
        let pieces = Pieces::of((bucket != "none").then(|| bucket.parse().unwrap()));
        let stale = stale.iter().map(|(a, b)| TimeRange::new(day(a), day(b))).collect();
        Dependant { name: name.into(), pieces, stale }
    }

    fn describe(gate: &Gate) -> String {
        let held = gate.held_back.iter().map(|held| format!("\n{held}"));
        format!("up to {} of {}", gate.floor, gate.wanted) + &held.collect::<String>()
    }

    #[test]
    fn whole_days_below_the_horizon_expire() {
        let gate = gate(&raw("01", "10T13:00:00Z"), &[]);
        assert_snapshot!(describe(&gate), @"up to 2024-01-10T00:00:00Z of 2024-01-10T00:00:00Z");
        assert!(gate.is_open(&raw("01", "10")));
    }

    #[test]
    fn a_dependant_holds_back_what_it_has_not_applied() {
        let dependants = [
            dependant("hourly", "1h", &[("05T03:00:00Z", "05T04:00:00Z"), ("09", "20")]),
            dependant("monthly", "1mo", &[("11", "12")]),
            dependant("total", "none", &[("07", "08")]),
        ];
        assert_snapshot!(describe(&gate(&raw("01", "10T13:00:00Z"), &dependants)), @r"
        up to 2024-01-05T00:00:00Z of 2024-01-10T00:00:00Z
        hourly keeps everything from 2024-01-05T00:00:00Z until it has applied [2024-01-05T03:00:00Z, 2024-01-05T04:00:00Z) [2024-01-09T00:00:00Z, 2024-01-10T00:00:00Z)
        total keeps everything from 2024-01-07T00:00:00Z until it has applied [2024-01-07T00:00:00Z, 2024-01-08T00:00:00Z)
        ");
    }

    #[test]
    fn a_piece_is_not_torn() {
        let dependants = [dependant("seven", "7h", &[])];
        assert_snapshot!(describe(&gate(&raw("01", "15T13:00:00Z"), &dependants)), @r"
        up to 2024-01-11T00:00:00Z of 2024-01-15T00:00:00Z
        seven keeps everything from 2024-01-11T00:00:00Z, where a piece of it would be torn
        ");
        let gate = gate(&raw("12", "15T13:00:00Z"), &dependants);
        assert_snapshot!(describe(&gate), @r"
        up to 2024-01-12T00:00:00Z of 2024-01-15T00:00:00Z
        seven keeps everything from 2024-01-12T00:00:00Z, where a piece of it would be torn
        ");
        assert!(!gate.is_open(&raw("12", "15")));
    }

    #[test]
    fn what_is_held_for_too_long_is_overdue() {
        let source = raw("01", "10T12:00:00Z");
        let dependants = [
            dependant("hourly", "1h", &[("05T03:00:00Z", "05T04:00:00Z"), ("09", "20")]),
            dependant("seven", "7h", &[]),
        ];
        let gate = gate(&source, &dependants);
        let held: Vec<(&str, i64)> = gate
            .held_back
            .iter()
            .map(|held| (&*held.by, held.held_nanos(&source) / 3_600_000_000_000))
            .collect();
        assert_eq!(held, [("hourly", 5 * 24 + 9), ("seven", 0)]);
        let overdue = |most: &str| {
            let all = gate.held_back.iter();
            let overdue = all.filter(|held| held.is_overdue(&source, most.parse().unwrap()));
            overdue.map(|held| &*held.by).collect::<Vec<_>>()
        };
        assert_eq!(overdue("0s"), ["hourly"]);
        assert_eq!(overdue("128h"), ["hourly"]);
        assert_eq!(overdue("129h"), [""; 0], "longer than that, not just as long");
    }

    #[test]
    fn force_waits_for_nobody_and_tears_nothing() {
        let source = raw("01", "13T12:00:00Z");
        let dependants = [
            dependant("hourly", "1h", &[("05T03:00:00Z", "05T04:00:00Z"), ("09", "20")]),
            dependant("daily", "1d", &[]),
        ];
        let forced = force(&source, &dependants);
        assert_eq!(forced.floor, day("13"));
        let lost: Vec<String> = forced.lost.iter().map(ToString::to_string).collect();
        assert_eq!(
            lost,
            [
                "[2024-01-05T03:00:00Z, 2024-01-05T04:00:00Z) \
                 [2024-01-09T00:00:00Z, 2024-01-13T00:00:00Z)",
                &TimeRanges::none().to_string()
            ]
        );
        let with_seven = [&dependants[..], &[dependant("seven", "7h", &[])]].concat();
        assert_eq!(force(&source, &with_seven).floor, day("11"));
        let done = force(&raw("13", "13T12:00:00Z"), &dependants);
        assert_eq!((done.floor, done.lost[0].is_empty()), (day("13"), true));
    }

    #[test]
    fn the_floor_never_falls() {
        let gate = gate(&raw("10", "08"), &[dependant("hourly", "1h", &[("01", "20")])]);
        assert_eq!((gate.floor, gate.wanted), (day("10"), day("10")));
        assert_eq!(gate.held_back, []);
    }

    #[test]
    fn buckets_of_an_aggregate_expire_as_a_whole() {
        let expiring = |bucket: &str| {
            let pieces = Some(Pieces::of(Some(bucket.parse().unwrap())));
            let source = Expiring { pieces, ..raw("01", "20T13:00:00Z") };
            gate(&source, &[]).floor
        };
        assert_eq!(expiring("1h"), day("20"));
        assert_eq!(expiring("1w"), day("15"));
        assert_eq!(expiring("1mo"), day("01"));
    }

    proptest! {
        #[test]
        fn nothing_unapplied_expires(
            floor in 0i64..30, horizon in 0i64..1000, picks in prop::collection::vec(
                (0usize..5, 0i64..900, 1i64..50), 0..4),
        ) {
            let hour = |hours: i64| Timestamp::from_secs(hours * 3600);
            let source = Expiring { floor: hour(floor * 24), horizon: hour(horizon), pieces: None };
            let dependants: Vec<_> = picks.iter().map(|&(pick, from, length)| {
                let names = ["1h", "7h", "36h", "1w", "none"];
                let empty = dependant(names[pick], names[pick], &[]);
                let stale = empty.pieces.round_out(TimeRange::new(hour(from), hour(from + length)));
                let live = stale.intersect(TimeRange::since(source.floor));
                Dependant { stale: live.into(), ..empty }
            }).collect();
            let gate = gate(&source, &dependants);
            prop_assert!(gate.floor >= source.floor && gate.floor <= gate.wanted);
            prop_assert!(gate.floor <= source.horizon.max(source.floor));
            let expiring = TimeRange::new(source.floor, gate.floor);
            for dependant in &dependants {
                prop_assert!(!dependant.stale.overlaps(expiring));
                let is_whole = dependant.pieces.is_boundary(gate.floor);
                prop_assert!(gate.floor == source.floor || is_whole);
            }
            prop_assert_eq!(gate.held_back.is_empty(), gate.floor == gate.wanted);
        }
    }
}
