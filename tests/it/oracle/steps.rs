//! What may happen to a database, drawn at random.

use std::collections::BTreeMap;
use std::fmt;

use highwater_core::Timestamp;
use highwater_core::time::{NANOS_PER_DAY, NANOS_PER_HOUR, NANOS_PER_MINUTE, NANOS_PER_SEC};

use super::POINTS;
use super::model::{Deletion, Point, Value};
use crate::random::Random;

/// 2024-03-29T00:00:00Z: before clocks change in Europe, and a month ends.
pub(crate) const BASE: i64 = 1_711_670_400 * NANOS_PER_SEC;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write(Vec<Point>),
    Delete(Deletion),
    Flush,
    Compact,
    /// The clock moves on by so many nanoseconds, and the background works until nothing is due.
    Advance(i64),
    Refresh(&'static str, Option<(i64, i64)>),
    Enable(&'static str, bool),
    /// A segment of stored partials is given up, the one with this number modulo theirs.
    GiveUp(u64),
    /// The definition becomes the other one it may have, or its first one again.
    Change(&'static str),
    /// The storage of the definition becomes another one.
    Store(&'static str, &'static str),
    /// The last change of the definition is taken back.
    Undo(&'static str),
    /// The background does one step of everything.
    Tick,
    /// Something is done with the job of an aggregate, if its state allows it.
    Job(&'static str, JobStep),
    /// Closed and opened again.
    Reopen,
    /// Opened from the files as they lie there, without being closed.
    Crash,
}

/// Where stored buckets may live.
pub(crate) const STORAGES: [&str; 3] = ["durable", "hybrid", "memory"];

/// What is done with a job.
#[derive(Clone, Copy, Debug)]
pub(crate) enum JobStep {
    /// The aggregate is built again from zero.
    Rebuild,
    Pause,
    /// It goes on, whatever stopped it.
    Start,
    Cancel,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |nanos: i64| Timestamp::from_nanos(nanos);
        match self {
            Step::Write(points) => {
                let lines: Vec<String> = points.iter().map(|point| point.line(POINTS)).collect();
                write!(f, "write\n    {}", lines.join("\n    "))
            }
            Step::Delete(deletion) => f.write_str(&deletion.sql(POINTS)),
            Step::Flush => f.write_str("flush"),
            Step::Compact => f.write_str("compact"),
            Step::Advance(nanos) => write!(f, "clock +{}s and drain", nanos / NANOS_PER_SEC),
            Step::Refresh(name, None) => write!(f, "refresh {name}"),
            Step::Refresh(name, Some((start, end))) => {
                write!(f, "refresh {name} from {} to {}", at(*start), at(*end))
            }
            Step::Enable(name, true) => write!(f, "enable {name}"),
            Step::Enable(name, false) => write!(f, "disable {name}"),
            Step::GiveUp(number) => write!(f, "give up segment {number} of stored partials"),
            Step::Change(name) => write!(f, "change {name}"),
            Step::Store(name, storage) => write!(f, "storage of {name} becomes {storage}"),
            Step::Undo(name) => write!(f, "undo the change of {name}"),
            Step::Tick => f.write_str("tick"),
            Step::Job(name, what) => write!(f, "{what:?} the job of {name}"),
            Step::Reopen => f.write_str("close and open"),
            Step::Crash => f.write_str("crash and open"),
        }
    }
}

/// Draws a step; most times lie in the three days from `base`, and `progress` (0 to 100) lets new
/// tags and fields come late.
pub(crate) fn any_step(
    random: &mut Random,
    names: &[&'static str],
    changing: &[&'static str],
    base: i64,
    progress: u64,
) -> Step {
    match random.below(100) {
        0..=40 => {
            let count = random.pick(&[1, 1, 2, 3, 8, 40]);
            Step::Write((0..count).map(|_| any_point(random, base, progress)).collect())
        }
        41..=47 => Step::Delete(any_deletion(random, base)),
        48..=49 => Step::Job(random.pick(names), JobStep::Rebuild),
        50..=53 => Step::Flush,
        54..=56 => Step::Tick,
        57..=59 => Step::Compact,
        60..=61 => {
            let what = random.pick(&[JobStep::Pause, JobStep::Start, JobStep::Cancel]);
            Step::Job(random.pick(names), what)
        }
        62..=74 => Step::Advance(random.pick(&[
            NANOS_PER_SEC,
            10 * NANOS_PER_SEC,
            NANOS_PER_MINUTE,
            NANOS_PER_HOUR,
            7 * NANOS_PER_HOUR,
            NANOS_PER_DAY,
        ])),
        75..=80 => match random.below(10) {
            0..=5 => Step::Change(random.pick(changing)),
            6..=7 => Step::Undo(random.pick(changing)),
            _ => Step::Store(random.pick(names), random.pick(&STORAGES)),
        },
        81..=88 => {
            let window = random.chance(60).then(|| any_window(random, base));
            Step::Refresh(random.pick(names), window)
        }
        89..=90 => Step::GiveUp(random.next() >> 32),
        91..=93 => Step::Enable(random.pick(names), random.chance(60)),
        94..=96 => Step::Reopen,
        _ => Step::Crash,
    }
}

/// A point with every column that the definitions name, so that raw SQL knows them.
pub(crate) fn first_point(time: i64) -> Point {
    let fields = [
        ("at", Value::Time(BASE)),
        ("b", Value::Boolean(true)),
        ("n", Value::Integer(1)),
        ("s", Value::Text("new")),
        ("v", Value::Float(0.5)),
    ];
    let tags = BTreeMap::from([("host", "a"), ("dc", "x")]);
    Point { tags, time, fields: BTreeMap::from(fields) }
}

fn any_point(random: &mut Random, base: i64, progress: u64) -> Point {
    let mut tags = BTreeMap::new();
    let mut tag = |random: &mut Random, key, values: &[&'static str], percent| {
        if random.chance(percent) {
            tags.insert(key, random.pick(values));
        }
    };
    tag(random, "host", &["a", "a", "b", "c"], 85);
    tag(random, "dc", &["x", "y"], 60);
    if progress > 50 {
        tag(random, "rack", &["r1", "r2"], 30);
    }
    let mut fields = BTreeMap::new();
    let mut field = |random: &mut Random, key, percent, value: fn(&mut Random) -> Value| {
        if random.chance(percent) {
            let value = value(random);
            fields.insert(key, value);
        }
    };
    field(random, "v", 80, |random| Value::Float(any_float(random)));
    field(random, "n", 60, |random| Value::Integer(any_integer(random)));
    field(random, "s", 50, |random| Value::Text(random.pick(&["new", "paid", "sent", ""])));
    field(random, "b", 30, |random| Value::Boolean(random.chance(50)));
    field(random, "at", 40, |random| Value::Time(any_time(random, BASE)));
    if progress > 60 {
        field(random, "w", 40, |random| Value::Float(any_float(random)));
    }
    if fields.is_empty() {
        fields.insert("v", Value::Float(1.0));
    }
    Point { tags, time: any_time(random, base), fields }
}

fn any_float(random: &mut Random) -> f64 {
    match random.below(3) {
        0 => random.pick(&[1e16, -1e16, 0.1, 0.2, 0.3, -0.0, 0.0, 1.0, 1e308, -1e308, 5e-324]),
        1 => random.below(1000) as f64 / 8.0,
        _ => f64::from_bits((random.next() & !(0x7ff << 52)) | ((1000 + random.below(60)) << 52)),
    }
}

fn any_integer(random: &mut Random) -> i64 {
    match random.below(3) {
        0 => random.pick(&[0, 1, -1, 1 << 53, -(1 << 53) - 1]),
        _ => random.below(1000).cast_signed() - 500,
    }
}

/// A time that others share: a few minutes of a few hours of three days; seldom far off.
fn any_time(random: &mut Random, base: i64) -> i64 {
    if random.chance(4) {
        return random.pick(&[
            9_183_110_400 * NANOS_PER_SEC,
            1_893_456_000 * NANOS_PER_SEC,
            base + 9 * NANOS_PER_DAY,
            base + 40 * NANOS_PER_DAY,
            base - 1,
            0,
            -1,
        ]);
    }
    let day = random.below(3).cast_signed() * NANOS_PER_DAY;
    let hour = random.pick(&[0, 1, 7, 12, 23]) * NANOS_PER_HOUR;
    let minute = random.pick(&[0, 1, 4, 5, 30, 59]) * NANOS_PER_MINUTE;
    let second = random.pick(&[0, 0, 1, 59]) * NANOS_PER_SEC;
    base + day + hour + minute + second + random.pick(&[0, 0, 0, 1, NANOS_PER_SEC - 1])
}

fn any_window(random: &mut Random, base: i64) -> (i64, i64) {
    let (one, other) = (any_time(random, base), any_time(random, base));
    (one.min(other), one.max(other) + 1)
}

fn any_deletion(random: &mut Random, base: i64) -> Deletion {
    let host = random.chance(60).then(|| random.pick(&[Some("a"), Some("b"), Some("c"), None]));
    if random.chance(8) {
        // Everything that may be sealed, of all groups: some aggregates have but one bucket.
        let end = any_time(random, base);
        return Deletion { host: None, start: -NANOS_PER_DAY, end, text: None };
    }
    let (start, end) = match random.below(4) {
        0 => any_window(random, base),
        1 => {
            let start = any_time(random, base);
            (start, start + 1)
        }
        _ => {
            let start = any_time(random, base);
            (start, start + random.pick(&[NANOS_PER_MINUTE, NANOS_PER_HOUR, 7 * NANOS_PER_HOUR]))
        }
    };
    let text = random.chance(30).then(|| random.pick(&["new", "paid", ""]));
    Deletion { host, start, end, text }
}
