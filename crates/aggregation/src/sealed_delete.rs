//! What a delete means for sealed buckets: which rows of partials go, or why it is refused. Only
//! thinks; `deleting` carries it out.
//!
//! A sealed partial can be dropped, but nothing can be taken out of it. So a delete has to take all
//! that is sealed of a bucket, of all groups or of those that its conditions on tags choose.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use highwater_core::schema::TIME_COLUMN;
use highwater_core::{Bucket, Condition, FieldValue, TimeRange, TimeRanges, Timestamp};

use crate::pieces::Pieces;

/// Buckets that a refusal names of each aggregate.
const NAMED_BUCKETS: usize = 3;

/// Which points a delete reaches, as far as their times and tags say it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reach {
    /// It reaches no point outside of these.
    pub(crate) times: TimeRanges,
    /// What the tags of its points meet.
    pub(crate) tags: Condition,
    /// The tags that this names.
    columns: BTreeSet<Arc<str>>,
    /// Whether it reaches every point at these times with such tags.
    is_exact: bool,
}

impl Reach {
    /// What a condition reaches; unless `is_all`, points have to meet more than that.
    pub(crate) fn of(condition: &Condition, is_all: bool) -> Self {
        let mut reach = Reach {
            times: TimeRanges::all(),
            tags: Condition::All,
            columns: BTreeSet::new(),
            is_exact: is_all,
        };
        let mut tags = Vec::new();
        for part in parts(condition.clone().flattened()) {
            let mut columns = BTreeSet::new();
            collect_columns(&part, &mut columns);
            match exact_times(&part) {
                Some(times) => reach.times = reach.times.intersect(&times),
                None if columns.contains(TIME_COLUMN) => {
                    reach.times = reach.times.intersect(&part.times());
                    reach.is_exact = false;
                }
                None => {
                    reach.columns.extend(columns);
                    tags.push(part);
                }
            }
        }
        if !tags.is_empty() {
            reach.tags = Condition::And(tags);
        }
        reach
    }
}

/// What has to hold together.
fn parts(condition: Condition) -> Vec<Condition> {
    match condition {
        Condition::And(parts) => parts,
        other => vec![other],
    }
}

/// The times at which a condition on nothing else holds; `None` if it looks at tags.
fn exact_times(condition: &Condition) -> Option<TimeRanges> {
    match condition {
        Condition::Compare { column, value: FieldValue::Timestamp(_), .. } => {
            (**column == *TIME_COLUMN).then(|| condition.times())
        }
        Condition::All => Some(TimeRanges::all()),
        Condition::IsNull(column) => (**column == *TIME_COLUMN).then(TimeRanges::none),
        Condition::Not(inner) => Some(TimeRanges::all().subtract(&exact_times(inner)?)),
        Condition::And(parts) => parts
            .iter()
            .try_fold(TimeRanges::all(), |times, part| Some(times.intersect(&exact_times(part)?))),
        Condition::Or(parts) => parts
            .iter()
            .try_fold(TimeRanges::none(), |times, part| Some(times.union(&exact_times(part)?))),
        Condition::Compare { .. } | Condition::Points(_) => None,
    }
}

fn collect_columns(condition: &Condition, columns: &mut BTreeSet<Arc<str>>) {
    match condition {
        Condition::All => {}
        Condition::Compare { column, .. } | Condition::IsNull(column) => {
            columns.insert(Arc::clone(column));
        }
        Condition::Not(inner) => collect_columns(inner, columns),
        Condition::And(parts) | Condition::Or(parts) => {
            parts.iter().for_each(|part| collect_columns(part, columns));
        }
        Condition::Points(_) => {
            columns.insert(Arc::from(TIME_COLUMN));
        }
    }
}

/// What an aggregate holds that cannot be computed again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sealed {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its buckets; `None` if all it holds is one bucket of all time, or if buckets of another
    /// column spread over all time.
    pub(crate) bucket: Option<Bucket>,
    /// The times that sealed partials cover.
    pub(crate) times: TimeRanges,
    /// The columns that it is grouped by.
    pub(crate) groups: BTreeSet<Arc<str>>,
}

/// Why sealed buckets of one aggregate cannot follow a delete.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refused {
    name: Arc<str>,
    reason: Reason,
    /// Starts of the first of these buckets; empty if there is but one, of all time.
    first: Vec<Timestamp>,
    count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    /// The delete looks at fields, or mixes times with tags.
    OtherConditions,
    /// It chooses by tags that the rows do not tell apart.
    NotGroupedBy(Vec<Arc<str>>),
    /// It takes only a part of them.
    PartOfBucket,
}

impl Sealed {
    /// The times at which its rows, those with the tags in question, go with the delete.
    ///
    /// # Errors
    /// If rows would have to be reduced instead.
    pub(crate) fn taken(&self, reach: &Reach) -> Result<TimeRanges, Refused> {
        let taken = reach.times.intersect(&self.times);
        if taken.is_empty() {
            return Ok(taken);
        }
        if !reach.is_exact {
            return Err(self.refuse(Reason::OtherConditions, &taken));
        }
        let missing: Vec<Arc<str>> = reach.columns.difference(&self.groups).cloned().collect();
        if !missing.is_empty() {
            return Err(self.refuse(Reason::NotGroupedBy(missing), &taken));
        }
        let whole = |range: TimeRange| self.bucket.map_or(TimeRange::ALL, |b| b.round_out(range));
        let whole: TimeRanges = taken.iter().map(whole).collect();
        let left = whole.intersect(&self.times).subtract(&taken);
        match left.is_empty() {
            true => Ok(taken),
            false => Err(self.refuse(Reason::PartOfBucket, &left)),
        }
    }

    fn refuse(&self, reason: Reason, times: &TimeRanges) -> Refused {
        let (first, count) = match self.bucket {
            None => (Vec::new(), 1),
            Some(bucket) => {
                let mut first: Vec<Timestamp> = Vec::new();
                let starts = times.iter().flat_map(|range| bucket.iter(range));
                for start in starts.map(|bucket| bucket.start) {
                    if first.len() == NAMED_BUCKETS {
                        break;
                    }
                    if first.last() != Some(&start) {
                        first.push(start);
                    }
                }
                (first, Pieces::of(Some(bucket)).count_buckets(times))
            }
        };
        Refused { name: Arc::clone(&self.name), reason, first, count }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.name)?;
        match &self.reason {
            Reason::OtherConditions => f.write_str("more than times and tags is asked for")?,
            Reason::NotGroupedBy(tags) => write!(f, "not grouped by {}", tags.join(", "))?,
            Reason::PartOfBucket => f.write_str("only a part of the bucket")?,
        }
        if self.first.is_empty() {
            return f.write_str("; one bucket of all time)");
        }
        let first: Vec<String> = self.first.iter().map(ToString::to_string).collect();
        write!(f, "; bucket {}", first.join(", "))?;
        match self.count - first.len() as u64 {
            0 => f.write_str(")"),
            more => write!(f, " and {more} more)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use highwater_core::Comparison;
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn time(comparison: Comparison, text: &str) -> Condition {
        let value = FieldValue::Timestamp(at(text));
        Condition::Compare { column: TIME_COLUMN.into(), comparison, value }
    }

    fn tag(column: &str, value: &str) -> Condition {
        let value = FieldValue::String(value.to_owned());
        Condition::Compare { column: column.into(), comparison: Comparison::Equal, value }
    }

    fn between(start: &str, end: &str) -> Condition {
        let start = time(Comparison::GreaterOrEqual, start);
        Condition::And(vec![start, time(Comparison::Less, end)])
    }

    /// Sealed from the second of January to noon of the fifth.
    fn sealed(name: &str, bucket: &str, groups: &[&str]) -> Sealed {
        let bucket = (bucket != "none").then(|| bucket.parse().unwrap());
        let times = TimeRange::new(at("2024-01-02"), at("2024-01-05T12:00:00Z")).into();
        let groups = groups.iter().map(|group| Arc::from(*group)).collect();
        Sealed { name: name.into(), bucket, times, groups }
    }

    fn decide(sealed: &Sealed, condition: &Condition) -> String {
        match sealed.taken(&Reach::of(condition, true)) {
            Ok(taken) => taken.to_string(),
            Err(refused) => format!("refused: {refused}"),
        }
    }

    #[test]
    fn whole_buckets_go() {
        let hourly = sealed("hourly", "1h", &["host"]);
        let two_hours = between("2024-01-03T01:00:00Z", "2024-01-03T03:00:00Z");
        assert_snapshot!(decide(&hourly, &two_hours), @"[2024-01-03T01:00:00Z, 2024-01-03T03:00:00Z)");
        let until = time(Comparison::LessOrEqual, "2024-01-02T23:59:59.999999999Z");
        assert_snapshot!(decide(&hourly, &until), @"[2024-01-02T00:00:00Z, 2024-01-03T00:00:00Z)");
        let later = time(Comparison::Greater, "2024-02-01");
        assert_eq!(hourly.taken(&Reach::of(&later, true)), Ok(TimeRanges::none()));
        let not_old = Condition::Not(Box::new(time(Comparison::Less, "2024-01-05T11:00:00Z")));
        assert_snapshot!(decide(&hourly, &not_old), @"[2024-01-05T11:00:00Z, 2024-01-05T12:00:00Z)");
    }

    #[test]
    fn a_bucket_is_as_long_as_what_is_sealed_of_it() {
        let monthly = sealed("monthly", "1mo", &[]);
        let first_days = between("2024-01-02", "2024-01-05T12:00:00Z");
        assert_snapshot!(decide(&monthly, &first_days), @"[2024-01-02T00:00:00Z, 2024-01-05T12:00:00Z)");
        let a_day = between("2024-01-02", "2024-01-03");
        assert_snapshot!(decide(&monthly, &a_day), @"refused: monthly (only a part of the bucket; bucket 2024-01-01T00:00:00Z)");
        let total = sealed("total", "none", &["host"]);
        assert_snapshot!(decide(&total, &a_day), @"refused: total (only a part of the bucket; one bucket of all time)");
        let all = Condition::And(vec![tag("host", "a"), Condition::All]);
        assert_snapshot!(decide(&total, &all), @"[2024-01-02T00:00:00Z, 2024-01-05T12:00:00Z)");
    }

    #[test]
    fn parts_of_buckets_are_named() {
        let hourly = sealed("hourly", "1h", &[]);
        let part = between("2024-01-03T01:10:00Z", "2024-01-03T03:00:00Z");
        assert_snapshot!(decide(&hourly, &part), @"refused: hourly (only a part of the bucket; bucket 2024-01-03T01:00:00Z)");
        let holes = Condition::And(vec![
            between("2024-01-03", "2024-01-04"),
            time(Comparison::NotEqual, "2024-01-03T05:30:00Z"),
            time(Comparison::NotEqual, "2024-01-03T07:30:00Z"),
        ]);
        assert_snapshot!(decide(&hourly, &holes), @"refused: hourly (only a part of the bucket; bucket 2024-01-03T05:00:00Z, 2024-01-03T07:00:00Z)");
    }

    #[test]
    fn rows_are_chosen_by_tags_that_tell_them_apart() {
        let hourly = sealed("hourly", "1h", &["dc", "host"]);
        let hosts = Condition::Or(vec![tag("host", "a"), tag("host", "b")]);
        let of = |tags| Condition::And(vec![between("2024-01-03", "2024-01-04"), tags]);
        assert_snapshot!(decide(&hourly, &of(hosts.clone())), @"[2024-01-03T00:00:00Z, 2024-01-04T00:00:00Z)");
        assert_eq!(Reach::of(&of(hosts.clone()), true).tags, Condition::And(vec![hosts.clone()]));
        let by_dc = sealed("by_dc", "1h", &["dc"]);
        assert_snapshot!(decide(&by_dc, &of(hosts.clone())), @"refused: by_dc (not grouped by host; bucket 2024-01-03T00:00:00Z, 2024-01-03T01:00:00Z, 2024-01-03T02:00:00Z and 21 more)");
        let fields = hourly.taken(&Reach::of(&of(hosts), false)).unwrap_err();
        assert_snapshot!(fields.to_string(), @"hourly (more than times and tags is asked for; bucket 2024-01-03T00:00:00Z, 2024-01-03T01:00:00Z, 2024-01-03T02:00:00Z and 21 more)");
    }

    #[test]
    fn times_and_tags_are_not_mixed() {
        let hourly = sealed("hourly", "1h", &["host"]);
        let one = |host, start, end| Condition::And(vec![tag("host", host), between(start, end)]);
        let mixed = Condition::Or(vec![
            one("a", "2024-01-03", "2024-01-03T01:00:00Z"),
            one("b", "2024-01-04", "2024-01-04T01:00:00Z"),
        ]);
        assert_snapshot!(decide(&hourly, &mixed), @"refused: hourly (more than times and tags is asked for; bucket 2024-01-03T00:00:00Z, 2024-01-04T00:00:00Z)");
        let live = one("a", "2024-01-06", "2024-01-07");
        assert_eq!(
            hourly.taken(&Reach::of(&Condition::Or(vec![live]), true)),
            Ok(TimeRanges::none())
        );
    }

    /// Whether a point of a host, at so many minutes of the second of January, is deleted.
    fn holds(condition: &Condition, host: &str, minute: i64) -> bool {
        let compared = |comparison, order: std::cmp::Ordering| match comparison {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        };
        match condition {
            Condition::All => true,
            Condition::Compare { comparison, value: FieldValue::Timestamp(at), .. } => {
                compared(*comparison, minute_of_january(minute).cmp(at))
            }
            Condition::Compare { comparison, value: FieldValue::String(text), .. } => {
                compared(*comparison, host.cmp(text))
            }
            Condition::Not(inner) => !holds(inner, host, minute),
            Condition::And(parts) => parts.iter().all(|part| holds(part, host, minute)),
            Condition::Or(parts) => parts.iter().any(|part| holds(part, host, minute)),
            other => panic!("{other:?} is not drawn"),
        }
    }

    fn minute_of_january(minute: i64) -> Timestamp {
        at("2024-01-02").saturating_add(minute * highwater_core::time::NANOS_PER_MINUTE)
    }

    fn any_condition() -> impl Strategy<Value = Condition> {
        let comparison = prop::sample::select(vec![
            Comparison::Equal,
            Comparison::NotEqual,
            Comparison::Less,
            Comparison::LessOrEqual,
            Comparison::Greater,
            Comparison::GreaterOrEqual,
        ]);
        let time = (comparison, 0i64..12, prop::sample::select(vec![0i64, 0, 0, 7]));
        let leaf = prop_oneof![
            4 => time.prop_map(|(comparison, quarter, odd)| Condition::Compare {
                column: TIME_COLUMN.into(),
                comparison,
                value: FieldValue::Timestamp(minute_of_january(quarter * 15 + odd)),
            }),
            2 => prop::sample::select(vec!["a", "b"]).prop_map(|host| tag("host", host)),
            1 => Just(Condition::All),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|inner| Condition::Not(Box::new(inner))),
                prop::collection::vec(inner.clone(), 1..4).prop_map(Condition::And),
                prop::collection::vec(inner, 1..3).prop_map(Condition::Or),
            ]
        })
    }

    proptest! {
        /// What goes is what the delete says, and no row loses just some of its points.
        #[test]
        fn rows_go_as_a_whole_and_no_others(
            condition in any_condition(), bucket in 0usize..4, by_host: bool,
        ) {
            let bucket = ["15m", "30m", "1h", "none"][bucket];
            let groups: &[&str] = if by_host { &["host"] } else { &[] };
            let end = minute_of_january(120);
            let times = TimeRange::new(minute_of_january(0), end).into();
            let sealed = Sealed { times, ..sealed("a", bucket, groups) };
            let reach = Reach::of(&condition, true);
            let taken = sealed.taken(&reach);
            let mut rows: BTreeMap<(Timestamp, &str), BTreeSet<bool>> = BTreeMap::new();
            for (minute, host) in (0..180).flat_map(|m| [(m, "a"), (m, "b")]) {
                let (time, is_deleted) = (minute_of_january(minute), holds(&condition, host, minute));
                prop_assert!(!is_deleted || reach.times.contains(time), "outside of its reach");
                if time >= end {
                    continue;
                }
                let start = sealed.bucket.map_or(at("2024-01-02"), |b| b.start_of(time));
                let row = (start, if by_host { host } else { "" });
                rows.entry(row).or_default().insert(is_deleted);
                if let Ok(taken) = &taken {
                    let goes = taken.contains(time) && holds(&reach.tags, host, minute);
                    prop_assert_eq!(goes, is_deleted, "{} of {}", host, time);
                }
            }
            if taken.is_ok() {
                prop_assert!(rows.values().all(|fates| fates.len() == 1), "{:?}", rows);
            }
        }
    }
}
