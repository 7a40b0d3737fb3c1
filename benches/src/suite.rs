//! The queries of the suite, as Highwater and DuckDB both understand them.

use highwater_core::Timestamp;
use highwater_core::time::NANOS_PER_HOUR;
use highwater_server::demo::tsbs::{FIELDS, Shape};

const MINUTE: &str = "time_bucket(INTERVAL '1 minute', time) AS minute";
const HOUR: &str = "time_bucket(INTERVAL '1 hour', time) AS hour";

/// A question.
#[derive(Clone, Debug)]
pub struct Query {
    /// Name in the suite.
    pub name: &'static str,
    /// What it reads.
    pub source: Source,
    /// The text.
    pub sql: String,
}

/// What a query reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The measurement.
    Points,
    /// An aggregate by name.
    Aggregate,
}

/// All queries over the base part of a shape.
pub fn queries(shape: &Shape) -> Vec<Query> {
    let times = Times::of(shape);
    let mut all = of_few_hosts(shape, &times);
    all.extend(of_all_hosts(&times));
    all.extend(of_aggregates(shape, &times));
    all
}

/// Conditions on time.
struct Times {
    /// An hour in the middle.
    one_hour: String,
    /// The last hour.
    last_hour: String,
    /// Everything.
    whole: String,
    /// Everything but the last half hour.
    before: String,
}

impl Times {
    fn of(shape: &Shape) -> Self {
        let all = shape.base_times();
        let half = NANOS_PER_HOUR / 2;
        let middle = Timestamp::from_nanos((all.start.as_nanos() + all.end.as_nanos()) / 2);
        Times {
            one_hour: within(middle.saturating_sub(half), middle.saturating_add(half)),
            last_hour: within(all.end.saturating_sub(NANOS_PER_HOUR), all.end),
            whole: within(all.start, all.end),
            before: format!("time < TIMESTAMP '{}'", plain(all.end.saturating_sub(half))),
        }
    }
}

fn within(from: Timestamp, to: Timestamp) -> String {
    format!("time >= TIMESTAMP '{}' AND time < TIMESTAMP '{}'", plain(from), plain(to))
}

/// A time as both dialects write it.
fn plain(at: Timestamp) -> String {
    at.to_string().replace('T', " ").replace('Z', "")
}

fn of_few_hosts(shape: &Shape, times: &Times) -> Vec<Query> {
    let one = format!("hostname = 'host_{}'", 7.min(shape.hosts - 1));
    let eight = eight_hosts(shape);
    let Times { one_hour, whole, .. } = times;
    let by_bucket = |bucket, outputs: String, hosts: &str, times: &str| {
        format!(
            "SELECT {bucket}, {outputs} FROM cpu WHERE {hosts} AND {times} GROUP BY 1 ORDER BY 1"
        )
    };
    vec![
        points("single-groupby-1-1-1", by_bucket(MINUTE, each("max", 1), &one, one_hour)),
        points("single-groupby-5-8-1", by_bucket(MINUTE, each("max", 5), &eight, one_hour)),
        points("cpu-max-all-8", by_bucket(HOUR, each("max", 10), &eight, whole)),
    ]
}

fn of_all_hosts(times: &Times) -> Vec<Query> {
    let Times { whole, before, .. } = times;
    let by_host = |fields| {
        let outputs = each("avg", fields);
        format!("SELECT {HOUR}, hostname, {outputs} FROM cpu WHERE {whole} GROUP BY 1, 2")
    };
    let maximum = each("max", 1);
    vec![
        points("double-groupby-1", by_host(1)),
        points("double-groupby-5", by_host(5)),
        points("high-cpu-all", format!("SELECT * FROM cpu WHERE usage_user > 90 AND {whole}")),
        points(
            "lastpoint",
            "SELECT DISTINCT ON (hostname) * FROM cpu ORDER BY hostname, time DESC".to_owned(),
        ),
        points(
            "groupby-orderby-limit",
            format!(
                "SELECT {MINUTE}, {maximum} FROM cpu WHERE {before} GROUP BY 1 ORDER BY 1 DESC \
                 LIMIT 5"
            ),
        ),
    ]
}

fn of_aggregates(shape: &Shape, times: &Times) -> Vec<Query> {
    let (eight, last_hour) = (eight_hosts(shape), &times.last_hour);
    vec![
        points(
            "agg-hourly-mean",
            format!("SELECT {HOUR}, hostname, avg(usage_idle) AS mean FROM cpu GROUP BY 1, 2"),
        ),
        aggregate(
            "agg-hourly-mean, aggregate",
            "SELECT time, hostname, usage_idle_mean FROM cpu_1h".to_owned(),
        ),
        points(
            "agg-1h-minute-max-8",
            format!(
                "SELECT {MINUTE}, hostname, max(usage_user) AS m FROM cpu \
                 WHERE {eight} AND {last_hour} GROUP BY 1, 2 ORDER BY 1, 2"
            ),
        ),
        aggregate(
            "agg-1h-minute-max-8, aggregate",
            format!(
                "SELECT time, hostname, usage_user_max FROM cpu_1m \
                 WHERE {eight} AND {last_hour} ORDER BY 1, 2"
            ),
        ),
    ]
}

fn points(name: &'static str, sql: String) -> Query {
    Query { name, source: Source::Points, sql }
}

fn aggregate(name: &'static str, sql: String) -> Query {
    Query { name, source: Source::Aggregate, sql }
}

fn eight_hosts(shape: &Shape) -> String {
    let step = (shape.hosts / 8).max(1);
    let names = (0..shape.hosts).step_by(step).take(8).map(|host| format!("'host_{host}'"));
    format!("hostname IN ({})", names.collect::<Vec<_>>().join(", "))
}

/// `max(usage_user) AS max_usage_user, …` for the first fields.
fn each(function: &str, fields: usize) -> String {
    let outputs = FIELDS[..fields].iter();
    outputs.map(|f| format!("{function}({f}) AS {function}_{f}")).collect::<Vec<_>>().join(", ")
}
