//! The sets of points, as requests and as CSV, and the aggregates over them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use clap::ValueEnum;
use highwater_server::demo::tsbs::{FIELDS, Fleet, Point, Shape, TAGS};

/// Lines in a write request.
pub const LINES_PER_REQUEST: usize = 10_000;

/// How much data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Set {
    /// 400 hosts for 6 hours: 864,000 points, 299 MB of line protocol
    #[value(name = "S")]
    S,
    /// 4,000 hosts for 2 hours: 2,880,000 points, 999 MB of line protocol
    #[value(name = "L")]
    L,
    /// 20 hosts for 2 hours: 14,400 points, to see that everything works
    #[value(name = "tiny")]
    Tiny,
}

impl Set {
    /// Hosts and hours.
    pub fn shape(self) -> Shape {
        match self {
            Set::S => Shape::new(400, 6),
            Set::L => Shape::new(4000, 2),
            Set::Tiny => Shape::new(20, 2),
        }
    }

    /// Short name, also in file names.
    pub fn name(self) -> &'static str {
        match self {
            Set::S => "S",
            Set::L => "L",
            Set::Tiny => "tiny",
        }
    }
}

/// Bodies of write requests, and how many points are in all of them.
#[derive(Debug)]
pub struct Requests {
    /// One body each, [`LINES_PER_REQUEST`] lines but for the last.
    pub bodies: Vec<Vec<u8>>,
    /// Number of points.
    pub points: usize,
}

impl Requests {
    /// The given points as line protocol.
    pub fn of(fleet: &Fleet, points: impl Iterator<Item = Point>) -> Self {
        let (mut bodies, mut body, mut written) = (Vec::new(), Vec::new(), 0);
        for point in points {
            fleet.write_line(&point, &mut body);
            written += 1;
            if written % LINES_PER_REQUEST == 0 {
                let room = body.len() + body.len() / 50;
                bodies.push(std::mem::replace(&mut body, Vec::with_capacity(room)));
            }
        }
        if !body.is_empty() {
            bodies.push(body);
        }
        Requests { bodies, points: written }
    }

    /// Bytes of all bodies.
    pub fn bytes(&self) -> usize {
        self.bodies.iter().map(Vec::len).sum()
    }
}

/// Writes points as CSV with a header.
pub fn write_csv(
    path: &Path,
    fleet: &Fleet,
    points: impl Iterator<Item = Point>,
) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "time,{},{}", TAGS.join(","), FIELDS.join(","))?;
    let mut row = Vec::new();
    for point in points {
        row.clear();
        fleet.write_csv(&point, &mut row);
        file.write_all(&row)?;
    }
    Ok(file.flush()?)
}

/// The aggregates: per hostname, by minute and by hour, refreshed when asked only.
///
/// Mean, minimum, maximum, sum and count of two fields, means of the other eight: 18 columns.
pub fn rules() -> String {
    let all = "[mean, min, max, sum, count]";
    let outputs: String = FIELDS
        .iter()
        .enumerate()
        .map(|(i, field)| {
            let function = if i < 2 { all } else { "mean" };
            format!("          - {{field: {field}, function: {function}}}\n")
        })
        .collect();
    let aggregate = |(name, interval)| {
        format!(
            "      - name: {name}\n        source: cpu\n        interval: {interval}\n        \
             group_by: [hostname]\n        refresh: {{strategy: on_demand}}\n        \
             aggregations:\n{outputs}"
        )
    };
    let aggregates: String = AGGREGATES.map(aggregate).concat();
    format!("databases:\n  {}:\n    aggregates:\n{aggregates}", crate::DATABASE)
}

/// Names and intervals of the aggregates.
pub const AGGREGATES: [(&str, &str); 2] = [("cpu_1m", "1m"), ("cpu_1h", "1h")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_hold_every_point_once() {
        let fleet = Fleet::new(Set::Tiny.shape());
        let requests = Requests::of(&fleet, fleet.base());
        assert_eq!(requests.points, 14_400);
        let lines = requests.bodies.iter().map(|body| memchr::memchr_iter(b'\n', body).count());
        assert_eq!(lines.collect::<Vec<_>>(), [10_000, 4_400]);
    }

    #[test]
    fn the_rules_have_eighteen_columns_each() {
        let rules = rules();
        let functions =
            rules.matches("function: mean").count() + 5 * rules.matches("count]").count();
        assert_eq!(functions, 2 * 18, "{rules}");
    }
}
