//! Random questions about points, which have the same answer whether aggregates give it or not.

use highwater_core::Timestamp;
use highwater_core::time::{NANOS_PER_DAY, NANOS_PER_HOUR};

use super::{POINTS, TAGS};
use crate::random::Random;

const BUCKETS: [&str; 14] = [
    "time_bucket('1m', time)",
    "time_bucket('5m', time)",
    "time_bucket('1h', time)",
    "time_bucket('1h', time)",
    "time_bucket('6h', time)",
    "time_bucket('1d', time)",
    "time_bucket('1mo', time)",
    "time_bucket('1h', time, 'Asia/Kolkata')",
    "time_bucket('1d', time, 'Europe/Berlin')",
    "date_trunc('hour', time)",
    "date_trunc('week', time)",
    "date_bin(INTERVAL '2 hours', time, TIMESTAMP '2024-01-01T01:00:00')",
    "date_part('hour', time)",
    "CAST(time AS DATE)",
];

const CALLS: [&str; 22] = [
    "count(*)",
    "count(v)",
    "count(time)",
    "sum(v)",
    "avg(v)",
    "mean(v)",
    "min(v)",
    "max(v)",
    "first(v)",
    "last(v)",
    "stddev(v)",
    "var_pop(v)",
    "approx_percentile(v, 0.5)",
    "\"distinct\"(v)",
    "last_time(v)",
    "histogram(v, 0, 0.25, 0.75)",
    "sum(n)",
    "mean(n)",
    "min(n)",
    "first(n)",
    "last(n)",
    "max(n)",
];

const CONDITIONS: [&str; 10] = [
    "host = 'a'",
    "host IS NULL",
    "host <> 'b'",
    "upper(host) IN ('A', 'C')",
    "host IS NOT NULL AND date_part('hour', time) < 8",
    "s = 'paid'",
    "dc = 'x'",
    "v > 0.5",
    "v > 0.25 AND (dc = 'x' OR dc IS NULL)",
    "host = 'a' OR host = 'c'",
];

/// A query over the points, with times around the days from `base`.
pub(crate) fn any_question(random: &mut Random, columns: &[&'static str], base: i64) -> String {
    let (keys, calls) = match random.below(10) {
        0 => {
            // One series per group, and functions that need that.
            let tags = columns.iter().filter(|c| TAGS.contains(c) || **c == "rack");
            let calls = ["increase(n)", "time_weighted_average(v)", "mean(v)", "max(s)"];
            (tags.map(ToString::to_string).collect(), any_of(random, &calls, 3))
        }
        1 => (vec!["s".to_owned()], any_of(random, &["count(*)", "sum(v)", "last(v)"], 2)),
        2 => {
            (vec!["dc".to_owned()], any_of(random, &["count(v)", "sum(v)", "avg(v)", "max(n)"], 2))
        }
        _ => {
            let keys = if random.chance(50) { vec!["host".to_owned()] } else { Vec::new() };
            (keys, any_of(random, &CALLS, 4))
        }
    };
    let bucket = random.chance(60).then(|| random.pick(&BUCKETS).to_owned());
    let keys: Vec<String> = bucket.into_iter().chain(keys).collect();
    let condition = any_condition(random, base);
    let named = |prefix: &str, of: &[String]| -> Vec<String> {
        of.iter().zip(1..).map(|(one, at)| format!("{one} AS {prefix}{at}")).collect()
    };
    let selected = [named("k", &keys), named("c", &calls)].concat().join(", ");
    let grouped = match keys.is_empty() {
        true => String::new(),
        false => format!(" GROUP BY {}", keys.join(", ")),
    };
    let plain = format!("SELECT {selected} FROM {POINTS} WHERE {condition}{grouped}");
    match random.below(6) {
        0 => format!("SELECT * FROM ({plain}) AS q WHERE c1 IS NOT NULL"),
        1 => format!("WITH q AS ({plain}) SELECT count(*), max(c1) FROM q"),
        2 => format!("{plain} UNION ALL {plain}"),
        3 if !keys.is_empty() => {
            format!("SELECT a.*, b.c1 FROM ({plain}) a JOIN ({plain}) b ON a.k1 = b.k1")
        }
        _ => plain,
    }
}

fn any_of(random: &mut Random, calls: &[&str], most: u64) -> Vec<String> {
    (0..=random.below(most)).map(|_| random.pick(calls).to_owned()).collect()
}

fn any_condition(random: &mut Random, base: i64) -> String {
    let mut conditions = vec!["true".to_owned()];
    if random.chance(35) {
        conditions.push(random.pick(&CONDITIONS).to_owned());
    }
    let mut any_time = || {
        let hours = random.below(72).cast_signed() * NANOS_PER_HOUR;
        let more = random.pick(&[0, 0, 1, 90 * 1_000_000_000, 1_800 * 1_000_000_000]);
        Timestamp::from_nanos(base + hours + more)
    };
    let (from, to) = (any_time(), any_time());
    let day_after = to.saturating_add(NANOS_PER_DAY);
    match random.below(6) {
        0 => conditions.push(format!("time >= '{from}'")),
        1 => conditions.push(format!("time >= '{from}' AND time < '{day_after}'")),
        2 => conditions.push(format!("time <= '{to}'")),
        3 => conditions.push(format!("(time < '{from}' OR time >= '{day_after}')")),
        _ => {}
    }
    conditions.join(" AND ")
}
