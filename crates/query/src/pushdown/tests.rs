use datafusion::logical_expr::{cast, col, lit, not};
use highwater_core::Column;

use super::*;

fn schema() -> Schema {
    Schema::of([Column::tag("host"), Column::tag("dc")])
}

fn at(nanos: i64) -> Expr {
    lit(ScalarValue::TimestampNanosecond(Some(nanos), None))
}

fn ranges(ranges: &[(i64, i64)]) -> TimeRanges {
    let range =
        |&(a, b): &(i64, i64)| TimeRange::new(Timestamp::from_nanos(a), Timestamp::from_nanos(b));
    ranges.iter().map(range).collect()
}

#[test]
fn comparisons_of_time_are_exact() {
    let (first, end) = (i64::MIN, i64::MAX);
    let time = || col("time");
    for (filter, expected) in [
        (time().gt_eq(at(5)), vec![(5, end)]),
        (time().gt(at(5)), vec![(6, end)]),
        (time().lt(at(5)), vec![(first, 5)]),
        (time().lt_eq(at(5)), vec![(first, 6)]),
        (time().eq(at(5)), vec![(5, 6)]),
        (time().not_eq(at(5)), vec![(first, 5), (6, end)]),
        (at(5).gt(time()), vec![(first, 5)]),
        (time().between(at(5), at(9)), vec![(5, 10)]),
        (time().not_between(at(5), at(9)), vec![(first, 5), (10, end)]),
        (time().in_list(vec![at(3), at(7)], false), vec![(3, 4), (7, 8)]),
        (time().lt(at(2)).or(time().gt_eq(at(8)).and(time().lt(at(9)))), vec![(first, 2), (8, 9)]),
        (not(time().lt(at(2))), vec![(2, end)]),
        (time().lt(lit(ScalarValue::TimestampSecond(Some(2), None))), vec![(first, 2_000_000_000)]),
        (lit(false), vec![]),
    ] {
        let pruning = prune(&filter, &schema());
        assert!(pruning.exact, "{filter}");
        assert_eq!(pruning.times, ranges(&expected), "{filter}");
        assert_eq!(pruning.pushdown(), TableProviderFilterPushDown::Exact);
    }
}

#[test]
fn tags_prune_and_are_filtered_again() {
    let value = |text: &str| {
        let inner = Box::new(ScalarValue::Utf8(Some(text.into())));
        lit(ScalarValue::Dictionary(Box::new(DataType::Int32), inner))
    };
    let one_or_two = col("host").eq(value("1")).or(cast(col("host"), DataType::Utf8).eq(lit("2")));
    let filter = one_or_two.clone().and(col("time").lt(at(9))).and(col("usage").gt(lit(1.0)));
    let pruning = prune(&filter, &schema());
    assert_eq!(pruning.times, ranges(&[(i64::MIN, 9)]));
    assert_eq!(pruning.tags["host"], BTreeSet::from(["1".to_owned(), "2".to_owned()]));
    assert_eq!(pruning.pushdown(), TableProviderFilterPushDown::Inexact);
    let mixed = one_or_two.or(col("dc").eq(lit("x")));
    assert_eq!(prune(&mixed, &schema()).pushdown(), TableProviderFilterPushDown::Unsupported);
}

#[test]
fn what_is_not_understood_prunes_nothing() {
    let null = lit(ScalarValue::TimestampNanosecond(None, None));
    for filter in [
        col("time").gt(null.clone()),
        not(col("time").gt(null.clone())),
        not(lit(ScalarValue::Boolean(None))),
        col("time").in_list(vec![at(1), null], false),
        not(col("host").eq(lit("a"))),
        col("host").not_eq(lit("a")),
        col("host").in_list(vec![lit("a")], true),
        col("usage").eq(lit("a")),
    ] {
        let pruning = prune(&filter, &schema());
        assert_eq!(pruning.pushdown(), TableProviderFilterPushDown::Unsupported, "{filter}");
    }
}

#[test]
fn dates_of_time_prune_to_days_around_them() {
    let date = cast(col("time"), DataType::Date32).eq(lit(ScalarValue::Date32(Some(10))));
    let pruning = prune(&date, &schema());
    assert!(!pruning.exact);
    let day = |day: i64| Timestamp::from_nanos(day * NANOS_PER_DAY);
    assert!(pruning.times.covers(TimeRange::new(day(10), day(11))));
    assert!(!pruning.times.contains(day(12)));
    assert!(!pruning.times.contains(day(8)));
}
