use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    Timestamp::parse(&format!("2024-01-01T{text}:00Z")).unwrap()
}

fn range((start, end): (&str, &str)) -> TimeRange {
    TimeRange::new(at(start), at(end))
}

/// Nothing is to be done.
fn idle(none: &TimeRanges) -> Standing<'_> {
    Standing {
        pieces: Pieces::of(None),
        stale: none,
        critical: none,
        rebuilding: none,
        in_memory: none,
        watermark: None,
        closing: None,
        extent: None,
        sealed_before: Timestamp::EARLIEST,
    }
}

/// An hourly aggregate whose watermark is 10:00 and whose buckets are closed up to 11:00.
fn plan_with(stale: &[(&str, &str)], occasion: Occasion) -> String {
    let stale = stale.iter().copied().map(range).collect();
    let none = TimeRanges::none();
    let standing = Standing {
        pieces: Pieces::of(Some("1h".parse().unwrap())),
        stale: &stale,
        watermark: Some(at("10:00")),
        closing: Some(at("11:00")),
        extent: Some(range(("07:10", "11:40"))),
        sealed_before: at("07:00"),
        ..idle(&none)
    };
    plan(&standing, occasion).to_string().replace("2024-01-01T", "").replace(":00:00Z", "h")
}

#[test]
fn a_schedule_takes_stale_closed_buckets() {
    let scheduled = |stale: &[(&str, &str)]| plan_with(stale, Occasion::Scheduled);
    assert_snapshot!(scheduled(&[]), @"up to date");
    assert_snapshot!(scheduled(&[("11:00", "12:00")]), @"up to date");
    assert_snapshot!(scheduled(&[("10:00", "12:00")]), @"recompute [10h, 11h) because of closed buckets");
    assert_snapshot!(scheduled(&[("09:00", "10:00")]), @"recompute [09h, 10h) because of late points");
    assert_snapshot!(scheduled(&[("08:00", "09:00"), ("10:00", "11:00")]), @"recompute [08h, 09h) [10h, 11h) because of late points");
}

#[test]
fn a_request_takes_what_is_closed_or_every_bucket_of_its_window() {
    let stale = [("09:00", "10:00"), ("11:00", "12:00")];
    assert_snapshot!(plan_with(&stale, Occasion::Requested), @"recompute [09h, 10h) because of a request");
    let window = |from, to| plan_with(&stale, Occasion::RequestedWindow(range((from, to))));
    assert_snapshot!(window("08:30", "08:31"), @"recompute [08h, 09h) because of a request");
    assert_snapshot!(window("10:30", "23:00"), @"recompute [10h, 12h) because of a request");
    assert_snapshot!(window("00:00", "08:00"), @"recompute [07h, 08h) because of a request");
    assert_snapshot!(window("00:00", "06:30"), @"up to date");
}

#[test]
fn changes_that_count_at_once_are_taken_in_open_buckets_too() {
    let stale = [range(("08:00", "09:00")), range(("11:00", "12:00"))].into_iter().collect();
    let critical = TimeRanges::from(range(("11:00", "12:00")));
    let none = TimeRanges::none();
    let standing = Standing {
        pieces: Pieces::of(Some("1h".parse().unwrap())),
        stale: &stale,
        critical: &critical,
        closing: Some(at("08:00")),
        extent: stale.hull(),
        sealed_before: at("07:00"),
        ..idle(&none)
    };
    assert_eq!(plan(&standing, Occasion::Changed).ranges(), stale);
    assert_eq!(plan(&standing, Occasion::Critical).ranges(), critical);
    assert_eq!(plan(&standing, Occasion::Scheduled).ranges(), critical, "closed ones are not");
    let reason = plan(&standing, Occasion::Critical).reason();
    assert_eq!(reason, Some(Reason::CriticalChange));
}

#[test]
fn sealing_takes_open_buckets_too() {
    let stale = [("08:00", "09:00"), ("11:00", "12:00")];
    assert_snapshot!(plan_with(&stale, Occasion::Sealing(at("09:00"))), @"recompute [08h, 09h) because of expiring source data");
    assert_snapshot!(plan_with(&stale, Occasion::Sealing(at("12:00"))), @"recompute [08h, 09h) [11h, 12h) because of expiring source data");
}

#[test]
fn what_is_in_memory_is_stored_again_and_sealed_though_it_is_fresh() {
    let none = TimeRanges::none();
    let rebuilding = TimeRanges::from(range(("08:00", "09:00")));
    let in_memory = TimeRanges::from(range(("06:00", "11:00")));
    let standing = Standing {
        pieces: Pieces::of(Some("1h".parse().unwrap())),
        rebuilding: &rebuilding,
        in_memory: &in_memory,
        sealed_before: at("07:00"),
        ..idle(&none)
    };
    assert_eq!(plan(&standing, Occasion::Rebuilding).ranges(), rebuilding);
    assert_eq!(plan(&standing, Occasion::Changed), RefreshPlan::UpToDate);
    let sealing = plan(&standing, Occasion::Sealing(at("10:00")));
    assert_eq!(sealing.ranges(), range(("07:00", "10:00")).into());
}

#[test]
fn days_of_a_keyed_aggregate_need_not_close() {
    let stale = TimeRange::new(at("00:00"), at("00:00").saturating_add(1)).into();
    let pieces = Pieces::of(None);
    let stale = pieces.round_out_all(&stale);
    let none = TimeRanges::none();
    let standing = Standing { pieces, stale: &stale, extent: stale.hull(), ..idle(&none) };
    assert_snapshot!(plan(&standing, Occasion::Scheduled), @"recompute [2024-01-01T00:00:00Z, 2024-01-02T00:00:00Z) because of changed points");
}

#[test]
fn a_torn_sealed_piece_is_left_alone() {
    let none = TimeRanges::none();
    let standing = Standing {
        pieces: Pieces::of(Some("1h".parse().unwrap())),
        closing: Some(at("12:00")),
        extent: Some(range(("00:00", "12:00"))),
        sealed_before: at("09:30"),
        ..idle(&none)
    };
    let window = Occasion::RequestedWindow(range(("08:00", "12:00")));
    assert_eq!(plan(&standing, window).ranges(), range(("10:00", "12:00")).into());
}

fn batches(ranges: &[(&str, &str)], most_hours: i64, order: BatchOrder) -> Vec<String> {
    let ranges = ranges.iter().copied().map(range).collect();
    let plan = RefreshPlan::recompute(ranges, Reason::Request);
    let most = most_hours * highwater_core::time::NANOS_PER_HOUR;
    let hourly = Pieces::of(Some("1h".parse().unwrap()));
    let text =
        |batch: TimeRanges| batch.to_string().replace("2024-01-01T", "").replace(":00:00Z", "h");
    plan.batches(hourly, most, order).map(text).collect()
}

#[test]
fn a_large_plan_is_cut_into_batches() {
    let ranges = [("00:00", "01:00"), ("02:00", "03:00"), ("04:00", "09:00")];
    assert_snapshot!(batches(&ranges, 3, BatchOrder::OldestFirst).join("\n"), @r"
    [00h, 01h) [02h, 03h) [04h, 05h)
    [05h, 08h)
    [08h, 09h)
    ");
    assert_snapshot!(batches(&ranges, 3, BatchOrder::NewestFirst).join("\n"), @r"
    [06h, 09h)
    [02h, 03h) [04h, 06h)
    [00h, 01h)
    ");
    assert_eq!(batches(&ranges, 0, BatchOrder::NewestFirst).len(), 7, "a piece at least");
    assert_eq!(batches(&[], 3, BatchOrder::NewestFirst).len(), 0);
}

proptest! {
    #[test]
    fn batches_are_the_plan_in_order(
        spans in prop::collection::vec((0..40i64, 1..10i64), 0..6),
        most in 0..20i64,
        newest in any::<bool>(),
        bucket in 0..3usize,
    ) {
        let hour = |hours: i64| Timestamp::from_secs(hours * 3600);
        let pieces = Pieces::of([Some("1h"), Some("7h"), None][bucket].map(|b| b.parse().unwrap()));
        let ranges: TimeRanges = spans.iter().map(|(from, length)| {
            TimeRange::new(hour(*from), hour(from + length))
        }).collect();
        let ranges = pieces.round_out_all(&ranges);
        let plan = RefreshPlan::recompute(ranges.clone(), Reason::Request);
        let order = if newest { BatchOrder::NewestFirst } else { BatchOrder::OldestFirst };
        let mut batches: Vec<_> = plan.batches(pieces, most * 3_600_000_000_000, order).collect();
        if newest {
            batches.reverse();
        }
        let hulls: Vec<_> = batches.iter().filter_map(TimeRanges::hull).collect();
        prop_assert!(hulls.windows(2).all(|pair| pair[0].end <= pair[1].start));
        prop_assert_eq!(batches.iter().flat_map(TimeRanges::iter).collect::<TimeRanges>(), ranges);
        for batch in &batches {
            let nanos: i64 = batch.iter().map(|r| r.end.as_nanos() - r.start.as_nanos()).sum();
            let hull = batch.hull().unwrap();
            let is_one_piece = pieces.piece_of(hull.start) == hull;
            prop_assert!(nanos <= most * 3_600_000_000_000 || is_one_piece);
            prop_assert!(batch.iter().all(|r| pieces.is_boundary(r.start) && pieces.is_boundary(r.end)));
        }
    }
}
