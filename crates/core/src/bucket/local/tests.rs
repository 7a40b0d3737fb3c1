use chrono::Timelike;
use proptest::prelude::*;

use crate::bucket::Bucket;
use crate::time::{NANOS_PER_HOUR, TimeRange};

use super::*;

fn bucket(text: &str) -> Bucket {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// The boundaries from `from` up to `to`, both of which are boundaries.
fn boundaries(text: &str, from: &str, to: &str) -> Vec<String> {
    let range = TimeRange::new(at(from), at(to));
    let starts = bucket(text).iter(range).map(|bucket| bucket.start.to_string());
    starts.chain([to.to_owned()]).collect()
}

#[test]
fn days_follow_the_clocks() {
    let berlin = |from, to| boundaries("1d Europe/Berlin", from, to);
    assert_eq!(
        berlin("2024-03-29T23:00:00Z", "2024-04-01T22:00:00Z"),
        [
            "2024-03-29T23:00:00Z",
            "2024-03-30T23:00:00Z",
            "2024-03-31T22:00:00Z",
            "2024-04-01T22:00:00Z"
        ],
        "a day of 23 hours"
    );
    assert_eq!(
        berlin("2024-10-25T22:00:00Z", "2024-10-28T23:00:00Z"),
        [
            "2024-10-25T22:00:00Z",
            "2024-10-26T22:00:00Z",
            "2024-10-27T23:00:00Z",
            "2024-10-28T23:00:00Z"
        ],
        "a day of 25 hours"
    );
    assert_eq!(
        boundaries("1d Asia/Kathmandu", "2024-02-27T18:15:00Z", "2024-02-29T18:15:00Z"),
        ["2024-02-27T18:15:00Z", "2024-02-28T18:15:00Z", "2024-02-29T18:15:00Z"],
        "an offset of 5:45, a leap day"
    );
    assert_eq!(
        boundaries("1d Europe/Berlin", "1947-05-10T22:00:00Z", "1947-05-12T21:00:00Z"),
        ["1947-05-10T22:00:00Z", "1947-05-11T21:00:00Z", "1947-05-12T21:00:00Z"],
        "double summer time, long before 1970"
    );
}

#[test]
fn a_day_whose_midnight_is_skipped_starts_when_the_clocks_jump() {
    assert_eq!(
        boundaries("1d America/Sao_Paulo", "2018-11-03T03:00:00Z", "2018-11-05T02:00:00Z"),
        ["2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"]
    );
    // Back at midnight: 23:00 comes twice, and belongs to the day before both times.
    assert_eq!(
        boundaries("1d America/Sao_Paulo", "2018-02-17T02:00:00Z", "2018-02-19T03:00:00Z"),
        ["2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z", "2018-02-19T03:00:00Z"]
    );
    // Back at one minute past midnight: the first instant of the date counts.
    assert_eq!(
        boundaries("1d America/St_Johns", "2010-11-06T02:30:00Z", "2010-11-08T03:30:00Z"),
        ["2010-11-06T02:30:00Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"]
    );
}

#[test]
fn a_date_that_never_was_has_no_bucket() {
    let apia = |width: &str, from, to| boundaries(&format!("{width} Pacific/Apia"), from, to);
    assert_eq!(
        apia("1d", "2011-12-29T10:00:00Z", "2011-12-31T10:00:00Z"),
        ["2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"],
        "2011-12-30 was skipped"
    );
    assert_eq!(
        apia("1mo", "2011-12-01T10:00:00Z", "2012-01-31T10:00:00Z"),
        ["2011-12-01T10:00:00Z", "2011-12-31T10:00:00Z", "2012-01-31T10:00:00Z"]
    );
}

#[test]
fn hours_come_twice_or_not_at_all() {
    let berlin = |width: &str, from, to| boundaries(&format!("{width} Europe/Berlin"), from, to);
    assert_eq!(
        berlin("1h", "2024-10-26T23:00:00Z", "2024-10-27T02:00:00Z"),
        [
            "2024-10-26T23:00:00Z",
            "2024-10-27T00:00:00Z",
            "2024-10-27T01:00:00Z",
            "2024-10-27T02:00:00Z"
        ]
    );
    assert_eq!(
        berlin("2h", "2024-10-26T22:00:00Z", "2024-10-27T03:00:00Z"),
        [
            "2024-10-26T22:00:00Z",
            "2024-10-27T00:00:00Z",
            "2024-10-27T01:00:00Z",
            "2024-10-27T03:00:00Z"
        ],
        "both 02:00 are boundaries"
    );
    assert_eq!(
        berlin("2h", "2024-03-30T23:00:00Z", "2024-03-31T02:00:00Z"),
        ["2024-03-30T23:00:00Z", "2024-03-31T01:00:00Z", "2024-03-31T02:00:00Z"],
        "02:00 is skipped, so it is the instant of the jump"
    );
    assert_eq!(
        boundaries("1h Australia/Lord_Howe", "2024-04-06T14:00:00Z", "2024-04-06T16:30:00Z"),
        ["2024-04-06T14:00:00Z", "2024-04-06T15:30:00Z", "2024-04-06T16:30:00Z"],
        "half an hour back: an hour and a half from 01:00 to 02:00"
    );
    assert_eq!(
        boundaries("1h Asia/Kolkata", "2024-01-01T00:30:00Z", "2024-01-01T02:30:00Z"),
        ["2024-01-01T00:30:00Z", "2024-01-01T01:30:00Z", "2024-01-01T02:30:00Z"]
    );
}

#[test]
fn weeks_months_and_offsets_are_civil() {
    let start = |text: &str, time: &str| bucket(text).start_of(at(time)).to_string();
    assert_eq!(start("1w Europe/Berlin", "2024-04-03T12:00:00Z"), "2024-03-31T22:00:00Z");
    assert_eq!(start("1w sunday Europe/Berlin", "2024-04-03T12:00:00Z"), "2024-03-30T23:00:00Z");
    assert_eq!(start("1w sunday", "2024-04-03T12:00:00Z"), "2024-03-31T00:00:00Z");
    assert_eq!(start("1mo Europe/Berlin", "2024-03-31T22:30:00Z"), "2024-03-31T22:00:00Z");
    assert_eq!(start("1y America/New_York", "1970-01-01T04:59:59Z"), "1969-01-01T05:00:00Z");
    assert_eq!(start("1d +6h Europe/Berlin", "2024-03-31T03:59:59Z"), "2024-03-30T05:00:00Z");
    assert_eq!(start("1d +6h Europe/Berlin", "2024-03-31T04:00:00Z"), "2024-03-31T04:00:00Z");
    assert_eq!(start("1mo +6h", "2024-04-01T05:00:00Z"), "2024-03-01T06:00:00Z");
    assert_eq!(start("1h +15m Asia/Kolkata", "2024-01-01T00:50:00Z"), "2024-01-01T00:45:00Z");
}

#[test]
fn texts_read_and_print_alike() {
    for text in [
        "1h Europe/Berlin",
        "1w sunday Asia/Kolkata",
        "2w America/New_York",
        "10d Europe/Berlin",
        "1d +6h Europe/Berlin",
        "1w +6h",
        "1mo +6h",
        "1q Europe/Berlin",
        "1w sunday +30m",
        "1h +15m",
        "7d",
    ] {
        assert_eq!(bucket(text).to_string(), text);
        assert_eq!(bucket(&bucket(text).to_string()), bucket(text));
    }
    assert_eq!(bucket("1d UTC"), Bucket::DAY);
    for wrong in [
        "7h Europe/Berlin",
        "36h Europe/Berlin",
        "1d Europe/Bärlin",
        "1d sunday",
        "1d +24h",
        "1h +1h",
        "1h +60m Europe/Berlin",
        "1d +1mo",
        "1d Europe/Berlin UTC",
        "1d  UTC",
        "1w UTC sunday",
    ] {
        assert!(wrong.parse::<Bucket>().is_err(), "{wrong}");
    }
}

#[test]
fn a_finer_bucket_has_all_boundaries_of_a_coarser_one() {
    let refines = |a: &str, b: &str| bucket(a).refines(bucket(b));
    for (fine, coarse) in [
        ("1h Europe/Berlin", "1d Europe/Berlin"),
        ("1d Europe/Berlin", "1mo Europe/Berlin"),
        ("1d Europe/Berlin", "1w sunday Europe/Berlin"),
        ("1h Europe/Berlin", "1d +6h Europe/Berlin"),
        ("1mo Asia/Tokyo", "1y Asia/Tokyo"),
        ("1m", "1d Europe/Berlin"),
        ("30m", "1d Etc/GMT+5"),
        ("1h", "1mo Etc/GMT-3"),
    ] {
        assert!(refines(fine, coarse), "{fine} -> {coarse}");
    }
    for (fine, coarse) in [
        ("1h", "1d Asia/Kolkata"),
        ("1h Europe/Berlin", "1d Europe/Paris"),
        ("1h Europe/Berlin", "1d"),
        ("1d Europe/Berlin", "1d +6h Europe/Berlin"),
        ("2d Europe/Berlin", "1mo Europe/Berlin"),
        ("1w Europe/Berlin", "1w sunday Europe/Berlin"),
        ("1mo", "1mo Europe/Berlin"),
        ("7m", "1h Europe/Berlin"),
    ] {
        assert!(!refines(fine, coarse), "{fine} -> {coarse}");
    }
}

const ZONES: [&str; 12] = [
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "America/Havana",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
];

const WIDTHS: [&str; 12] =
    ["15m", "30m", "1h", "2h", "6h", "8h", "1d", "1d +6h", "1w", "1w sunday", "1mo", "1y"];

/// What the documentation says, looked up minute by minute: whether a boundary is between this
/// minute and the one before.
fn is_boundary_by_the_clocks(text: &str, zone: Tz, time: Timestamp) -> bool {
    let civil = |time: Timestamp| {
        let utc = DateTime::<Utc>::from_timestamp_nanos(time.as_nanos());
        utc.with_timezone(&zone).naive_local()
    };
    let (before, now) = (civil(time.saturating_sub(NANOS_PER_MINUTE)), civil(time));
    let minute = |width: u32| now.num_seconds_from_midnight() / 60 % width == 0;
    // Whole multiples of the width between the two minutes, if clocks jumped forward.
    let jumped = |width: i64| {
        let minutes = |at: chrono::NaiveDateTime| at.and_utc().timestamp().div_euclid(60);
        minutes(now).div_euclid(width) > minutes(before).div_euclid(width)
    };
    match text {
        "15m" => minute(15) || jumped(15),
        "30m" => minute(30) || jumped(30),
        "1h" => minute(60) || jumped(60),
        "2h" => minute(120) || jumped(120),
        "6h" => minute(360) || jumped(360),
        other => panic!("{other} is not a width below a day"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn buckets_follow_one_another_without_gaps(
        zone in prop::sample::select(&ZONES[..]),
        width in prop::sample::select(&WIDTHS[..]),
        secs in -3_000_000_000_i64..7_000_000_000,
    ) {
        let bucket = bucket(&format!("{width} {zone}"));
        let at = Timestamp::from_nanos(secs * NANOS_PER_SEC);
        let range = bucket.range_of(at);
        prop_assert!(range.contains(at), "{range} does not hold {at}");
        prop_assert!(bucket.is_boundary(range.start) && bucket.is_boundary(range.end));
        prop_assert_eq!(bucket.range_of(range.start), range);
        let last = range.end.saturating_sub(1);
        prop_assert_eq!(bucket.range_of(last), range);
        prop_assert_eq!(bucket.range_of(range.end).start, range.end);
        prop_assert_eq!(range.start.as_nanos() % NANOS_PER_MINUTE, 0);
    }

    #[test]
    fn below_a_day_boundaries_are_where_clocks_show_or_skip_a_multiple(
        zone in prop::sample::select(&ZONES[..]),
        width in prop::sample::select(&WIDTHS[..5]),
        day in 365_i64..22_000,
        change in any::<bool>(),
    ) {
        let zone: Tz = zone.parse().unwrap();
        let bucket = bucket(&format!("{width} {zone}"));
        let mut start = day * NANOS_PER_DAY;
        if change {
            // A day on which clocks change is more of a test.
            let shift = |nanos| shift_at(zone, Timestamp::from_nanos(nanos));
            let days = (0..370).map(|later| start + later * NANOS_PER_DAY);
            let changing = days.clone().find(|day| shift(*day) != shift(day + NANOS_PER_DAY));
            start = changing.unwrap_or(start);
        }
        for minute in 0..30 * 60 {
            let time = Timestamp::from_nanos(start + minute * NANOS_PER_MINUTE);
            let expected = is_boundary_by_the_clocks(width, zone, time);
            prop_assert_eq!(bucket.is_boundary(time), expected, "{} at {}", bucket, time);
        }
    }

    #[test]
    fn what_refines_has_every_boundary(
        zone in prop::sample::select(&ZONES[..]),
        (fine, coarse) in (prop::sample::select(&WIDTHS[..]), prop::sample::select(&WIDTHS[..])),
        is_utc in any::<bool>(),
        secs in -3_000_000_000_i64..7_000_000_000,
    ) {
        let fine = if is_utc { bucket(fine) } else { bucket(&format!("{fine} {zone}")) };
        let coarse = bucket(&format!("{coarse} {zone}"));
        if fine.refines(coarse) {
            let boundary = coarse.start_of(Timestamp::from_nanos(secs * NANOS_PER_SEC));
            prop_assert!(fine.is_boundary(boundary), "{} under {} at {}", fine, coarse, boundary);
        }
    }
}

#[test]
fn the_ends_of_time_do_no_harm() {
    for text in ["1h Europe/Berlin", "1d Pacific/Apia", "1y America/New_York"] {
        for nanos in [i64::MIN, i64::MIN + NANOS_PER_HOUR, i64::MAX - NANOS_PER_HOUR, i64::MAX] {
            let range = bucket(text).range_of(Timestamp::from_nanos(nanos));
            assert!(range.start <= range.end);
        }
    }
}
