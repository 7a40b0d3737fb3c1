//! The history of the demo: two days of a fleet of hosts that end now.

use std::sync::Mutex;

use anyhow::anyhow;
use highwater_core::bucket::Bucket;
use highwater_core::time::{NANOS_PER_HOUR, NANOS_PER_MINUTE, NANOS_PER_SEC};
use highwater_core::{Stopwatch, TimeRange, Timestamp};
use indicatif::ProgressBar;

use super::compare::Question;
use super::database::Database;
use super::grouped;
use super::progress;
use super::report::Report;
use super::tsbs::{Fleet, Point, Shape, Values, Walk};

/// Two days always reach back beyond yesterday's midnight, so that a retention of one day has
/// whole days to drop.
const SPAN_SECS: u64 = 2 * 86_400;
/// Seconds between two points of a host in the suite.
const SUITE_SECS: u64 = 10;
const FEWEST_HOSTS: u64 = 4;
const LINES_PER_REQUEST: usize = 10_000;
const CLIENTS: usize = 2;
const SEED: u64 = 42;
const HOUR: Bucket = Bucket::Fixed { width: NANOS_PER_HOUR, offset: 0 };

/// Which points there are.
#[derive(Clone, Debug)]
pub(super) struct History {
    fleet: Fleet,
    hosts: u64,
    ticks: u64,
    interval_secs: u64,
    /// First second of the suite's own time, which [`Fleet`] counts in.
    suite_start_secs: i64,
    start_secs: i64,
}

impl History {
    /// About so many points, the last of them before the minute of `now`.
    pub(super) fn ending_at(now: Timestamp, points: u64) -> Self {
        let hosts = (points / (SPAN_SECS / SUITE_SECS)).max(FEWEST_HOSTS);
        let interval_secs = (SPAN_SECS * hosts).div_ceil(points).max(SUITE_SECS);
        let ticks = SPAN_SECS / interval_secs;
        let hours = (ticks * SUITE_SECS).div_ceil(3600);
        let shape = Shape { hosts: hosts as usize, hours, seed: SEED, values: Values::Floats };
        let minute = now.as_nanos().div_euclid(NANOS_PER_MINUTE) * 60;
        History {
            fleet: Fleet::new(shape),
            hosts,
            ticks,
            interval_secs,
            suite_start_secs: shape.base_times().start.as_nanos() / NANOS_PER_SEC,
            start_secs: minute - (ticks * interval_secs) as i64,
        }
    }

    /// How many points.
    pub(super) fn points(&self) -> u64 {
        self.hosts * self.ticks
    }

    /// From the first point to the minute after the last one.
    pub(super) fn times(&self) -> TimeRange {
        let end_secs = self.start_secs + (self.ticks * self.interval_secs) as i64;
        TimeRange::new(Timestamp::from_secs(self.start_secs), Timestamp::from_secs(end_secs))
    }

    /// Points of the first host inside a bucket of an hour that is ten hours old: one for a time
    /// that has none yet, and one with another value for a time that has one.
    pub(super) fn late(&self) -> Late {
        let hour = HOUR.end_of(self.times().start.saturating_add(10 * NANOS_PER_HOUR));
        let hour_secs = hour.as_nanos() / NANOS_PER_SEC;
        let interval = self.interval_secs as i64;
        let into_interval = (hour_secs - self.start_secs).rem_euclid(interval);
        let at_secs = hour_secs + (interval - into_interval) % interval;
        let point = |at_secs: i64, value: f64| Point { host: 0, at_secs, values: [value; 10] };
        let line = |point: &Point| {
            let mut line = Vec::new();
            self.fleet.write_line(point, &mut line);
            line
        };
        Late {
            hour: Timestamp::from_secs(hour_secs),
            new: line(&point(at_secs + interval / 2, 100.0)),
            correction: line(&point(at_secs, 0.0)),
        }
    }

    /// Writes everything and says how long it took.
    pub(super) fn show(&self, report: &Report, database: &Database) -> anyhow::Result<()> {
        let points = grouped(self.points());
        report.heading(&format!("History: {points} points written over HTTP"))?;
        report.line(&format!(
            "{} hosts, 10 tags, 10 fields, a point every {} s for two days, from {CLIENTS} clients",
            grouped(self.hosts),
            self.interval_secs
        ))?;
        let bar = progress::bar(self.points(), "points", true);
        let stopwatch = Stopwatch::start();
        self.write(database, &bar)?;
        let seconds = stopwatch.elapsed().as_secs_f64();
        bar.finish_and_clear();
        let rate = grouped((self.points() as f64 / seconds) as u64);
        report.line(&format!(
            "{seconds:.1} s, {rate} points/s, each request on disk before its answer"
        ))
    }

    fn write(&self, database: &Database, bar: &ProgressBar) -> anyhow::Result<()> {
        let walk = Mutex::new(self.fleet.base().take(self.points() as usize));
        std::thread::scope(|threads| {
            let client = || self.write_requests(&walk, database, bar);
            let running: Vec<_> = (0..CLIENTS).map(|_| threads.spawn(client)).collect();
            running.into_iter().try_for_each(|thread| {
                thread.join().map_err(|_| anyhow!("a client of the demo panicked"))?
            })
        })
    }

    /// What one client does: take points, write them as lines, send them, until there are none.
    fn write_requests(
        &self,
        walk: &Mutex<std::iter::Take<Walk>>,
        database: &Database,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        loop {
            let points: Vec<Point> = match walk.lock() {
                Ok(mut walk) => walk.by_ref().take(LINES_PER_REQUEST).collect(),
                Err(_) => return Err(anyhow!("the other client of the demo panicked")),
            };
            if points.is_empty() {
                return Ok(());
            }
            let mut lines = Vec::new();
            for point in &points {
                self.fleet.write_line(&self.moved(point), &mut lines);
            }
            database.write(&lines)?;
            bar.inc(points.len() as u64);
        }
    }

    /// A point of the suite at its time in this history.
    fn moved(&self, point: &Point) -> Point {
        let tick = (point.at_secs - self.suite_start_secs) / SUITE_SECS as i64;
        Point { at_secs: self.start_secs + tick * self.interval_secs as i64, ..*point }
    }

    /// What is asked of the points and of the aggregates over them.
    pub(super) fn questions(&self) -> Vec<Question> {
        let recent = self.times().end.saturating_sub(6 * NANOS_PER_HOUR);
        let last_hours = format!("hostname = 'host_1' AND time >= '{recent}'");
        let question = |label: &str, raw: &str, aggregate: &str| Question {
            label: label.to_owned(),
            raw: raw.to_owned(),
            aggregate: aggregate.to_owned(),
        };
        vec![
            question(
                "hourly mean and maximum of every host",
                "SELECT time_bucket('1h', time) AS time, hostname, avg(usage_user) AS mean, \
                 max(usage_user) AS highest FROM cpu GROUP BY 1, 2 ORDER BY 1, 2",
                "SELECT time, hostname, usage_user_mean AS mean, usage_user_max AS highest \
                 FROM cpu_1h ORDER BY 1, 2",
            ),
            question(
                "daily mean, minimum and number of points of every host",
                "SELECT time_bucket('1d', time) AS time, hostname, avg(usage_user) AS mean, \
                 min(usage_user) AS lowest, count(*) AS points FROM cpu GROUP BY 1, 2 ORDER BY 1, 2",
                "SELECT time, hostname, usage_user_mean AS mean, usage_user_min AS lowest, points \
                 FROM cpu_1d ORDER BY 1, 2",
            ),
            question(
                "ten hosts with the busiest hours",
                "SELECT hostname, max(mean) AS busiest FROM (SELECT hostname, avg(usage_user) AS \
                 mean FROM cpu GROUP BY hostname, time_bucket('1h', time)) AS hours \
                 GROUP BY hostname ORDER BY busiest DESC, hostname LIMIT 10",
                "SELECT hostname, max(usage_user_mean) AS busiest FROM cpu_1h GROUP BY hostname \
                 ORDER BY busiest DESC, hostname LIMIT 10",
            ),
            question(
                "every minute of one host, last six hours",
                &format!(
                    "SELECT time_bucket('1m', time) AS time, avg(usage_user) AS mean, \
                     avg(usage_system) AS system FROM cpu WHERE {last_hours} GROUP BY 1 ORDER BY 1"
                ),
                &format!(
                    "SELECT time, usage_user_mean AS mean, usage_system_mean AS system \
                     FROM cpu_1m WHERE {last_hours} ORDER BY 1"
                ),
            ),
        ]
    }
}

/// Points that come late, as lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Late {
    /// Start of the hour that both are in.
    pub(super) hour: Timestamp,
    /// For a time that has no point yet.
    pub(super) new: Vec<u8>,
    /// For a time that has one.
    pub(super) correction: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(points: u64) -> History {
        History::ending_at(Timestamp::parse("2026-03-04T05:06:07Z").unwrap(), points)
    }

    fn times_of(history: &History) -> Vec<i64> {
        let points = history.fleet.base().take(history.points() as usize);
        points.map(|point| history.moved(&point).at_secs).collect()
    }

    #[test]
    fn about_as_many_points_as_asked_for_end_now() {
        for asked in [1_000, 20_000, 69_120, 100_000] {
            let history = history(asked);
            let share = history.points() as f64 / asked as f64;
            assert!((0.8..=1.0).contains(&share), "{asked}: {}", history.points());
            let times = history.times();
            assert_eq!(times.end, Timestamp::parse("2026-03-04T05:06:00Z").unwrap());
            let secs = times_of(&history);
            assert_eq!(secs.len() as u64, history.points());
            assert_eq!(secs[0], history.start_secs);
            let end_secs = times.end.as_nanos() / NANOS_PER_SEC;
            assert_eq!(secs[secs.len() - 1], end_secs - history.interval_secs as i64);
        }
    }

    #[test]
    fn late_points_share_a_full_hour_and_one_is_a_correction() {
        for asked in [1_000, 20_000, 2_000_000] {
            let history = history(asked);
            let late = history.late();
            let hour = HOUR.range_of(late.hour);
            assert!(history.times().covers(hour));
            let at = |line: &[u8]| {
                let line = String::from_utf8(line.to_vec()).unwrap();
                line.trim().rsplit(' ').next().unwrap().parse::<i64>().unwrap()
            };
            let (new, corrected) = (at(&late.new), at(&late.correction));
            assert!(hour.contains(Timestamp::from_nanos(new)));
            assert!(hour.contains(Timestamp::from_nanos(corrected)));
            let into = |nanos: i64| {
                (nanos / NANOS_PER_SEC - history.start_secs) % history.interval_secs as i64
            };
            assert_eq!(into(corrected), 0);
            assert_ne!(into(new), 0);
        }
    }
}
