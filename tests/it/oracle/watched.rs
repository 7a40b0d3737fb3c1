//! The aggregates under test, each with the query over points that it should equal.

use std::collections::BTreeMap;

use highwater_core::{Bucket, Timestamp};

/// Kinds of aggregates: tags and fields as groups, conditions, calendar months, time zones, all time,
/// a declared time, three levels, and every strategy.
pub(crate) const RULES: &str = "
databases:
  t:
    measurements: [{name: m, columns: {at: timestamp}}, {name: m_all, columns: {at: timestamp}}]
    aggregates:
      - name: m_1m
        source: m
        interval: 1m
        group_by: [host]
        aggregations:
          - {function: count}
          - {field: v, function: [count, sum, mean, min, max, first, last, stddev, p90, distinct, last_time, 'histogram(0, 0.25, 0.75)']}
          - {field: n, function: [sum, mean, min, first, last]}
        refresh: {strategy: periodic, every: 10s}
      - {name: m_1h, source: m_1m, interval: 1h, refresh: {every: 1m}}
      - {name: m_1d, source: m_1h, interval: 1d, refresh: {every: 1m}}
      - {name: berlin_1d, source: m_1m, interval: 1d, offset: 6h, timezone: Europe/Berlin, refresh: {every: 1m}}
      - {name: berlin_1w, source: berlin_1d, interval: 1w, offset: 6h, week_start: sunday, timezone: Europe/Berlin, refresh: {every: 1m}}
      - name: some_1h
        source: m
        interval: 1h
        where: \"v > 0.25 AND (dc = 'x' OR dc IS NULL)\"
        group_by: [dc]
        aggregations: [{field: v, function: [sum, count]}, {field: n, function: max, as: top}]
        refresh: {every: 10s}
      - name: kolkata_1h
        source: m
        interval: 1h
        timezone: Asia/Kolkata
        group_by: [dc]
        aggregations: [{field: v, function: [sum, count]}]
        refresh: {every: 10s}
      - name: m_month
        source: m
        interval: 1mo
        aggregations: [{field: v, function: [sum, mean]}, {field: n, function: sum}]
        refresh: {every: 10s}
      - name: by_state
        source: m
        group_by: [s]
        aggregations: [{function: count}, {field: v, function: [sum, last]}]
        refresh: {every: 10s}
      - name: all_5m
        source: m
        interval: 5m
        group_by: '*'
        aggregations: [{field: v, function: mean}, {field: s, function: [first, max]}, {field: b, function: last}, {field: n, function: increase}, {field: v, function: time_weighted_average}]
        refresh: {strategy: on_demand}
      - name: placed
        source: m
        interval: 1d
        time_column: at
        group_by: [host]
        aggregations: [{function: count}, {field: v, function: [sum, first]}, {field: n, function: sum_fast}]
        refresh: {every: 10s}
      - name: at_once_1h
        source: m
        interval: 1h
        group_by: [host, s]
        aggregations: [{function: count}, {field: v, function: [sum, last]}]
        refresh: {strategy: realtime}
      - {name: at_once_1d, source: at_once_1h, interval: 1d, group_by: [s], refresh: {strategy: realtime, debounce: 1s}}
      - name: some_at_once
        source: m
        group_by: [s]
        aggregations: [{function: count}, {field: v, function: sum}]
        refresh: {strategy: hybrid, critical: [s, dc], every: 1h}
";

/// What makes points expire, to be put behind [`RULES`].
pub(crate) const RETENTION: &str = "    retention: [{measurement: m, keep: 2d}]
";

/// One aggregate.
pub(crate) struct Watched {
    pub(crate) name: &'static str,
    /// Width of the buckets, and what is bucketed.
    bucket: Option<(&'static str, &'static str)>,
    groups: Groups,
    condition: &'static str,
    outputs: &'static [(&'static str, &'static str)],
    /// Whether the schedule refreshes it.
    pub(crate) is_scheduled: bool,
    /// Whether open buckets are refreshed too.
    is_realtime: bool,
}

enum Groups {
    Columns(&'static [&'static str]),
    AllTags,
}

const BY_HOST: &[(&str, &str)] = &[
    ("count", "count(*)"),
    ("v_count", "count(v)"),
    ("v_sum", "sum(v)"),
    ("v_mean", "mean(v)"),
    ("v_min", "min(v)"),
    ("v_max", "max(v)"),
    ("v_first", "first(v)"),
    ("v_last", "last(v)"),
    ("v_stddev", "stddev(v)"),
    ("v_p90", "approx_percentile(v, 0.9)"),
    ("v_distinct", "\"distinct\"(v)"),
    ("v_last_time", "last_time(v)"),
    ("v_histogram", "histogram(v, 0, 0.25, 0.75)"),
    ("n_sum", "sum(n)"),
    ("n_mean", "mean(n)"),
    ("n_min", "min(n)"),
    ("n_first", "first(n)"),
    ("n_last", "last(n)"),
];

const fn by_host(name: &'static str, width: &'static str) -> Watched {
    Watched {
        name,
        bucket: Some((width, "time")),
        groups: Groups::Columns(&["host"]),
        condition: "true",
        outputs: BY_HOST,
        is_scheduled: true,
        is_realtime: false,
    }
}

pub(crate) const WATCHED: [Watched; 14] = [
    by_host("m_1m", "1m"),
    by_host("m_1h", "1h"),
    by_host("m_1d", "1d"),
    by_host("berlin_1d", "1d +6h Europe/Berlin"),
    by_host("berlin_1w", "1w sunday +6h Europe/Berlin"),
    Watched {
        name: "some_1h",
        bucket: Some(("1h", "time")),
        groups: Groups::Columns(&["dc"]),
        condition: "v > 0.25 AND (dc = 'x' OR dc IS NULL)",
        outputs: &[("v_sum", "sum(v)"), ("v_count", "count(v)"), ("top", "max(n)")],
        is_scheduled: true,
        is_realtime: false,
    },
    Watched {
        name: "kolkata_1h",
        bucket: Some(("1h Asia/Kolkata", "time")),
        groups: Groups::Columns(&["dc"]),
        condition: "true",
        outputs: &[("v_sum", "sum(v)"), ("v_count", "count(v)")],
        is_scheduled: true,
        is_realtime: false,
    },
    Watched {
        name: "m_month",
        bucket: Some(("1mo", "time")),
        groups: Groups::Columns(&[]),
        condition: "true",
        outputs: &[("v_sum", "sum(v)"), ("v_mean", "mean(v)"), ("n_sum", "sum(n)")],
        is_scheduled: true,
        is_realtime: false,
    },
    Watched {
        name: "by_state",
        bucket: None,
        groups: Groups::Columns(&["s"]),
        condition: "true",
        outputs: &[("count", "count(*)"), ("v_sum", "sum(v)"), ("v_last", "last(v)")],
        is_scheduled: true,
        is_realtime: false,
    },
    Watched {
        name: "all_5m",
        bucket: Some(("5m", "time")),
        groups: Groups::AllTags,
        condition: "true",
        outputs: &[
            ("v_mean", "mean(v)"),
            ("s_first", "first(s)"),
            ("s_max", "max(s)"),
            ("b_last", "last(b)"),
            ("n_increase", "increase(n)"),
            ("v_time_weighted_average", "time_weighted_average(v)"),
        ],
        is_scheduled: false,
        is_realtime: false,
    },
    Watched {
        name: "placed",
        bucket: Some(("1d", "at")),
        groups: Groups::Columns(&["host"]),
        condition: "at IS NOT NULL",
        outputs: &[
            ("count", "count(*)"),
            ("v_sum", "sum(v)"),
            ("v_first", "first(v)"),
            // Of integers it does not depend on order.
            ("n_sum_fast", "sum_fast(n)"),
        ],
        is_scheduled: true,
        is_realtime: false,
    },
    Watched {
        name: "at_once_1h",
        bucket: Some(("1h", "time")),
        groups: Groups::Columns(&["host", "s"]),
        condition: "true",
        outputs: &[("count", "count(*)"), ("v_sum", "sum(v)"), ("v_last", "last(v)")],
        is_scheduled: true,
        is_realtime: true,
    },
    Watched {
        name: "at_once_1d",
        bucket: Some(("1d", "time")),
        groups: Groups::Columns(&["s"]),
        condition: "true",
        outputs: &[("count", "count(*)"), ("v_sum", "sum(v)"), ("v_last", "last(v)")],
        is_scheduled: true,
        is_realtime: true,
    },
    Watched {
        name: "some_at_once",
        bucket: None,
        groups: Groups::Columns(&["s"]),
        condition: "true",
        outputs: &[("count", "count(*)"), ("v_sum", "sum(v)")],
        is_scheduled: true,
        is_realtime: false,
    },
];

/// Other definitions of some of them, with the change to the rule that makes them: an output that all
/// levels above inherit, other buckets of a time zone, more outputs, and other points.
pub(crate) const CHANGED: [(&str, Watched); 4] = [
    (
        r#"{"aggregations": [{"function": "count"}, {"field": "v", "function": ["count", "sum", "mean", "min", "max", "first", "last", "stddev", "p90", "distinct", "last_time", "histogram(0, 0.25, 0.75)"]}, {"field": "n", "function": ["sum", "mean", "min", "first", "last", "max"]}]}"#,
        by_host("m_1m", "1m"),
    ),
    (
        r#"{"interval": "2h"}"#,
        Watched {
            name: "kolkata_1h",
            bucket: Some(("2h Asia/Kolkata", "time")),
            groups: Groups::Columns(&["dc"]),
            condition: "true",
            outputs: &[("v_sum", "sum(v)"), ("v_count", "count(v)")],
            is_scheduled: true,
            is_realtime: false,
        },
    ),
    (
        r#"{"aggregations": [{"field": "v", "function": ["sum", "mean", "count"]}, {"field": "n", "function": "sum"}, {"function": "count"}]}"#,
        Watched {
            name: "m_month",
            bucket: Some(("1mo", "time")),
            groups: Groups::Columns(&[]),
            condition: "true",
            outputs: &[
                ("v_sum", "sum(v)"),
                ("v_mean", "mean(v)"),
                ("v_count", "count(v)"),
                ("n_sum", "sum(n)"),
                ("count", "count(*)"),
            ],
            is_scheduled: true,
            is_realtime: false,
        },
    ),
    (
        r#"{"where": "v > 0.75"}"#,
        Watched {
            name: "some_1h",
            bucket: Some(("1h", "time")),
            groups: Groups::Columns(&["dc"]),
            condition: "v > 0.75",
            outputs: &[("v_sum", "sum(v)"), ("v_count", "count(v)"), ("top", "max(n)")],
            is_scheduled: true,
            is_realtime: false,
        },
    ),
];

impl Watched {
    fn groups(&self, columns: &[&'static str]) -> Vec<&'static str> {
        match self.groups {
            Groups::Columns(groups) => groups.to_vec(),
            Groups::AllTags => {
                let tags = ["dc", "host", "rack"];
                tags.into_iter().filter(|tag| columns.contains(tag)).collect()
            }
        }
    }

    /// The query over the aggregate; `columns` are those of the measurement.
    pub(crate) fn read(&self, columns: &[&'static str]) -> String {
        let time = self.bucket.map(|_| "time");
        let outputs = self.outputs.iter().map(|(name, _)| *name);
        let selected = time.into_iter().chain(self.groups(columns)).chain(outputs);
        let selected: Vec<String> = selected.map(|column| format!("\"{column}\"")).collect();
        format!("SELECT {} FROM {}", selected.join(", "), self.name)
    }

    /// The same query over points; outputs that are valid from some time on only are NULL before.
    pub(crate) fn direct(
        &self,
        points: &str,
        columns: &[&'static str],
        valid_from: &BTreeMap<String, Timestamp>,
    ) -> String {
        let bucket = self.bucket.map(|(width, time)| format!("time_bucket('{width}', {time})"));
        let start = bucket.clone().unwrap_or_default();
        let groups = self.groups(columns).into_iter().map(str::to_owned);
        let keys: Vec<String> = bucket.into_iter().chain(groups).collect();
        let outputs = self.outputs.iter().map(|(name, expression)| match valid_from.get(*name) {
            None => (*expression).to_owned(),
            Some(from) => format!("CASE WHEN {start} >= '{from}' THEN {expression} END"),
        });
        let selected: Vec<String> = keys.iter().cloned().chain(outputs).collect();
        let grouping = match keys.is_empty() {
            true => String::new(),
            false => format!(" GROUP BY {}", keys.join(", ")),
        };
        let selected = selected.join(", ");
        format!("SELECT {selected} FROM {points} WHERE {}{grouping}", self.condition)
    }

    /// Whether it has buckets of time that close, and columns that stay.
    pub(crate) fn closes(&self) -> bool {
        matches!((self.bucket, &self.groups), (Some((_, "time")), Groups::Columns(_)))
    }

    /// The condition for buckets that the schedule has refreshed at `now`: closed ones, where buckets
    /// have to close.
    pub(crate) fn closed(&self, now: Timestamp) -> String {
        match self.bucket {
            Some((width, "time")) if !self.is_realtime => {
                let bucket: Bucket = width.parse().unwrap();
                format!(" WHERE time < '{}'", bucket.start_of(now))
            }
            _ => String::new(),
        }
    }

    /// Whether a watermark is where one may stand.
    pub(crate) fn is_boundary(&self, at: Timestamp) -> bool {
        match self.bucket {
            Some((width, "time")) => width.parse::<Bucket>().unwrap().is_boundary(at),
            _ => Bucket::DAY.is_boundary(at),
        }
    }
}
