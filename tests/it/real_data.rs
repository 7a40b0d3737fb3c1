//! Real data sets, loaded whole: day, week and month aggregates beside an independent computation.
//!
//! Nothing here is shared with the code under test: lines are read, points deduplicated, dates
//! computed and numbers added in plain Rust. Sums and means are computed in integers and rounded
//! once, so floats are compared bit for bit, without tolerance.
//!
//! The files are looked for in `shared/data` beside the repository, or in the folder `data` of
//! `HIGHWATER_SHARED`. Without them the tests say so and end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use highwater_tests::TestServer;

use crate::with_rules;

/// Nanoseconds of a day.
const DAY: i64 = 86_400_000_000_000;
/// Floats are added in units of 2^-62.
const SCALE: i32 = 62;

/// Where the file is, if the data sets are there.
pub(crate) fn data_path(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("HIGHWATER_SHARED").map_or(beside, PathBuf::from);
    shared.join("data").join(name)
}

/// The file, if the data sets are there.
fn data_file(name: &str) -> Option<Vec<u8>> {
    let file = data_path(name);
    match std::fs::read(&file) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            eprintln!("skipped, as the data set is not there: {}: {error}", file.display());
            None
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Float(f64),
    Integer(i64),
    Text,
}

/// Points by group and time, each with its fields; other tags are part of the identity.
type Points = BTreeMap<(String, i64, String), BTreeMap<String, Value>>;

/// Reads line protocol: later lines win per field. The group is the value of `tag`.
fn read_points(text: &str, tag: &str, nanos_per_unit: i64) -> Points {
    let mut points = Points::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [series, fields, time] = split(line, ' ')[..] else { panic!("three parts: {line}") };
        let tags = &split(series, ',')[1..];
        let own = tags.iter().find_map(|pair| pair.strip_prefix(tag)?.strip_prefix('='));
        let group = own.unwrap_or_default().replace('\\', "");
        let mut tags = tags.to_vec();
        tags.sort_unstable();
        let time = time.parse::<i64>().unwrap() * nanos_per_unit;
        let point = points.entry((group, time, tags.join(","))).or_default();
        for field in split(fields, ',') {
            let (name, value) = field.split_once('=').unwrap();
            point.insert(name.to_owned(), read_value(value));
        }
    }
    points
}

fn read_value(text: &str) -> Value {
    match text.strip_suffix('i') {
        _ if text.starts_with('"') => Value::Text,
        Some(integer) => Value::Integer(integer.parse().unwrap()),
        None => Value::Float(text.parse().unwrap()),
    }
}

/// The parts between separators that are neither escaped nor quoted.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, symbol) in text.char_indices() {
        match symbol {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if symbol == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Calendar widths.
#[derive(Clone, Copy)]
enum Width {
    Day,
    Week,
    Month,
}

impl Width {
    /// The first day of the bucket, in days since the epoch.
    fn first_day(self, time: i64) -> i64 {
        let day = time.div_euclid(DAY);
        match self {
            Width::Day => day,
            // 1970-01-01 was a Thursday, three days after a Monday.
            Width::Week => (day + 3).div_euclid(7) * 7 - 3,
            Width::Month => day - (civil(day).2 - 1),
        }
    }
}

/// Year, month and day of a day since the epoch. Source: Howard Hinnant, chrono-Compatible
/// Low-Level Date Algorithms, 2021.
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let calendar_month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(calendar_month <= 2), calendar_month, of_month)
}

/// A float as a whole number of units of 2^-62.
fn in_units(value: f64) -> i128 {
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    if value == 0.0 {
        return 0;
    }
    assert!(exponent > 0, "{value} is subnormal");
    let mantissa = i128::from((bits & ((1 << 52) - 1)) | (1 << 52));
    let shift = exponent - 1075 + SCALE;
    let units = if shift >= 0 {
        mantissa << shift
    } else {
        assert_eq!(mantissa & ((1 << -shift) - 1), 0, "{value} is finer than a unit");
        mantissa >> -shift
    };
    if value < 0.0 { -units } else { units }
}

/// The float nearest to `units / count`.
fn rounded(units: i128, count: i128) -> f64 {
    if units == 0 {
        return 0.0;
    }
    assert!(units.unsigned_abs().leading_zeros() > 20, "no room for the bits that decide");
    let raised = units.abs() << 18;
    // A rest makes the last bit odd, so that a tie is a tie only if it is one.
    let quotient = (raised / count) | i128::from(raised % count != 0);
    assert!(quotient > 1 << 56, "too few bits to round once");
    units.signum() as f64 * quotient as f64 * 2f64.powi(-SCALE - 18)
}

/// What is asked for, of one field in one bucket and group.
#[derive(Default)]
struct Summary {
    points: i64,
    values: Vec<(i64, Value)>,
}

impl Summary {
    /// `count(*)`, then count, sum, mean, min, max, first and last of the field; all but the
    /// counts are null if no point has the field.
    fn cells(&self) -> String {
        let Some((_, one)) = self.values.first() else {
            return format!("{},0,,,,,,", self.points);
        };
        let floats = self.values.iter().map(|(_, value)| match value {
            Value::Float(float) => *float,
            Value::Integer(integer) => *integer as f64,
            Value::Text => panic!("text is not summed"),
        });
        let floats: Vec<f64> = floats.collect();
        let count = floats.len() as i128;
        let is_whole = matches!(one, Value::Integer(_));
        let units: i128 = floats.iter().map(|float| in_units(*float)).sum();
        let cell = |float: f64| if is_whole { format!("{float}") } else { format!("{float:?}") };
        let least = floats.iter().copied().fold(f64::INFINITY, f64::min);
        let most = floats.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let at = |earliest: bool| {
            let times = self.values.iter().map(|(time, _)| *time);
            let time = if earliest { times.min() } else { times.max() };
            let here = self.values.iter().zip(&floats).filter(|((own, _), _)| Some(*own) == time);
            here.map(|(_, float)| *float).fold(f64::NEG_INFINITY, f64::max)
        };
        let mean = rounded(units, count);
        let (sum, first, last) = (rounded(units, 1), at(true), at(false));
        format!(
            "{},{count},{},{mean:?},{},{},{},{}",
            self.points,
            cell(sum),
            cell(least),
            cell(most),
            cell(first),
            cell(last)
        )
    }
}

/// The rows of an aggregate of `field`, by group and time.
fn expected(points: &Points, width: Width, field: &str) -> String {
    let mut buckets: BTreeMap<(&str, i64), Summary> = BTreeMap::new();
    for ((group, time, _), fields) in points {
        let summary = buckets.entry((group, width.first_day(*time))).or_default();
        summary.points += 1;
        summary.values.extend(fields.get(field).map(|value| (*time, value.clone())));
    }
    let mut csv = String::new();
    for ((group, day), summary) in buckets {
        let (year, month, day) = civil(day);
        let cells = summary.cells();
        writeln!(csv, "{year:04}-{month:02}-{day:02}T00:00:00Z,{group},{cells}").unwrap();
    }
    csv
}

/// A data set and what is asked of it.
struct DataSet {
    file: &'static str,
    precision: &'static str,
    nanos_per_unit: i64,
    measurement: &'static str,
    group: &'static str,
    fields: &'static [&'static str],
    points: usize,
}

impl DataSet {
    fn rules(&self) -> String {
        let DataSet { measurement, group, .. } = self;
        let mut rules = "databases:\n  t:\n    aggregates:\n".to_owned();
        let functions = "[count, sum, mean, min, max, first, last]";
        let mut outputs = "{function: count}".to_owned();
        for field in self.fields {
            write!(outputs, ", {{field: {field}, function: {functions}}}").unwrap();
        }
        writeln!(
            rules,
            "      - {{name: by_day, source: {measurement}, interval: 1d, group_by: [{group}], \
             aggregations: [{outputs}]}}\n      \
             - {{name: by_week, source: by_day, interval: 1w}}\n      \
             - {{name: by_month, source: by_day, interval: 1mo}}"
        )
        .unwrap();
        rules
    }

    fn load(&self, server: &TestServer, gzipped: &[u8]) {
        let path = format!("/api/v3/write_lp?db=t&precision={}", self.precision);
        server.send("POST", &path, &[("content-encoding", "gzip")], gzipped).expect(204);
    }

    fn check(&self) {
        let Some(gzipped) = data_file(self.file) else { return };
        let mut text = String::new();
        GzDecoder::new(&gzipped[..]).read_to_string(&mut text).unwrap();
        let points = read_points(&text, self.group, self.nanos_per_unit);
        assert_eq!(points.len(), self.points);
        let server = with_rules(&self.rules());
        self.load(&server, &gzipped);
        let count = format!("SELECT count(*) FROM {}", self.measurement);
        assert_eq!(server.q(&count), self.points.to_string());
        self.compare(&points, |sql| server.csv(sql));
        server.clock("2024-01-01T00:00:00Z");
        server.drain();
        self.compare(&points, |sql| {
            let stored = serde_json::json!({ "freshness": "materialized" });
            server.query(sql, stored).expect(200).body
        });
        self.load(&server, &gzipped);
        assert_eq!(server.q(&count), self.points.to_string());
        self.compare(&points, |sql| server.csv(sql));
    }

    fn compare(&self, points: &Points, answer: impl Fn(&str) -> String) {
        let widths = [("day", Width::Day), ("week", Width::Week), ("month", Width::Month)];
        for (name, width) in widths {
            for field in self.fields {
                let group = self.group;
                let outputs = ["count", "sum", "mean", "min", "max", "first", "last"];
                let outputs = outputs.map(|output| format!("{field}_{output}")).join(",");
                let sql = format!(
                    "SELECT time,{group},count,{outputs} FROM by_{name} ORDER BY {group},time"
                );
                let found = answer(&sql);
                let found = found.split_once('\n').unwrap().1;
                let expected = expected(points, width, field);
                let differing = found.lines().zip(expected.lines()).find(|(a, b)| a != b);
                assert_eq!(differing, None, "{sql}");
                assert_eq!(found.lines().count(), expected.lines().count(), "{sql}");
            }
        }
    }
}

#[test]
fn x_02_daily_weather() {
    let weather = DataSet {
        file: "bay_area_weather.lp.gz",
        precision: "ns",
        nanos_per_unit: 1,
        measurement: "weather",
        group: "location",
        fields: &["precip", "temp_avg", "temp_max", "temp_min", "wind_avg"],
        points: 3288,
    };
    weather.check();
}

#[test]
fn x_02_taxi_trips_with_missing_tags() {
    let taxis = DataSet {
        file: "nyc_taxis.lp.gz",
        precision: "s",
        nanos_per_unit: 1_000_000_000,
        measurement: "taxi",
        group: "color",
        fields: &["fare", "tip", "distance", "passengers", "duration_s"],
        points: 6428,
    };
    taxis.check();
}

#[test]
fn x_02_hourly_load_in_no_order_with_duplicates() {
    let load = DataSet {
        file: "pjm_load_3zones.lp.gz",
        precision: "s",
        nanos_per_unit: 1_000_000_000,
        measurement: "load",
        group: "zone",
        fields: &["mw"],
        points: 237_456,
    };
    load.check();
}

#[test]
fn floats_are_rounded_once() {
    let sum = |values: &[f64]| rounded(values.iter().map(|v| in_units(*v)).sum(), 1);
    assert_eq!(sum(&[0.1, 0.2, 0.3]).to_bits(), 0.6f64.to_bits());
    assert_eq!(sum(&[0.1, -0.1]), 0.0);
    let third = rounded(in_units(1.0), 3);
    assert_eq!(third.to_bits(), (1.0f64 / 3.0).to_bits());
    assert_eq!(civil(0), (1970, 1, 1));
    assert_eq!(civil(19_782), (2024, 2, 29));
    assert_eq!(Width::Week.first_day(0), -3);
}
