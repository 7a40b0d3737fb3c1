//! Points of the shape "devops cpu-only" of the Time Series Benchmark Suite, the same for the
//! same numbers on every machine.
//!
//! Measurement `cpu`, ten tags, ten fields that walk between 0 and 100, a point per host every
//! ten seconds from 2026-01-01T00:00:00Z on. All hosts of a tick come before the next tick.
//! Source: github.com/timescale/tsbs, use case `cpu-only`; the walks are our own.

use std::io::Write;

use highwater_core::{TimeRange, Timestamp};

/// Names of the tags; the first one tells the hosts apart.
pub const TAGS: [&str; 10] = [
    "hostname",
    "region",
    "datacenter",
    "rack",
    "os",
    "arch",
    "team",
    "service",
    "service_version",
    "service_environment",
];

/// Names of the fields.
pub const FIELDS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];

/// First second: 2026-01-01T00:00:00Z.
const START_SECS: i64 = 1_767_225_600;
const SECS_PER_TICK: i64 = 10;
const TICKS_PER_HOUR: u64 = 360;
/// Ticks of the part that comes after the base part: ten minutes.
const APPENDED_TICKS: u64 = 60;

const DATACENTERS: [(&str, &[&str]); 9] = [
    ("us-east-1", &["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1e"]),
    ("us-west-1", &["us-west-1a", "us-west-1b"]),
    ("us-west-2", &["us-west-2a", "us-west-2b", "us-west-2c"]),
    ("eu-west-1", &["eu-west-1a", "eu-west-1b", "eu-west-1c"]),
    ("eu-central-1", &["eu-central-1a", "eu-central-1b"]),
    ("ap-southeast-1", &["ap-southeast-1a", "ap-southeast-1b"]),
    ("ap-southeast-2", &["ap-southeast-2a", "ap-southeast-2b"]),
    ("ap-northeast-1", &["ap-northeast-1a", "ap-northeast-1c"]),
    ("sa-east-1", &["sa-east-1a", "sa-east-1b", "sa-east-1c"]),
];
const SYSTEMS: [&str; 3] = ["Ubuntu16.10", "Ubuntu16.04LTS", "Ubuntu15.10"];
const ARCHITECTURES: [&str; 2] = ["x64", "x86"];
const TEAMS: [&str; 4] = ["SF", "NYC", "LON", "CHI"];
const ENVIRONMENTS: [&str; 3] = ["production", "staging", "test"];

/// How many points to make, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of hosts, that is of series.
    pub hosts: usize,
    /// Hours of the base part; at least one.
    pub hours: u64,
    /// Start of the pseudo-random numbers.
    pub seed: u64,
    /// Integers as in the original, or floats with two decimals.
    pub values: Values,
}

/// How field values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// `58i`
    Integers,
    /// `58.23`
    Floats,
}

impl Shape {
    /// Integers, and the seed of the published figures.
    pub fn new(hosts: usize, hours: u64) -> Self {
        Shape { hosts, hours, seed: 42, values: Values::Integers }
    }

    fn base_ticks(&self) -> u64 {
        self.hours * TICKS_PER_HOUR
    }

    /// Number of points of the base part.
    pub fn base_points(&self) -> u64 {
        self.base_ticks() * self.hosts as u64
    }

    /// Times of the base part.
    pub fn base_times(&self) -> TimeRange {
        let seconds = self.base_ticks() as i64 * SECS_PER_TICK;
        let start = Timestamp::from_secs(START_SECS);
        TimeRange::new(start, Timestamp::from_secs(START_SECS + seconds))
    }
}

/// The hosts of a shape at its first instant.
#[derive(Clone, Debug)]
pub struct Fleet {
    shape: Shape,
    hosts: Vec<Host>,
}

#[derive(Clone, Debug)]
struct Host {
    tags: [String; 10],
    /// `cpu,hostname=…`
    head: String,
    walk: [f64; 10],
    numbers: Numbers,
}

/// One point; [`Fleet`] knows how to write it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Which host it is of.
    pub host: usize,
    /// Seconds since the epoch.
    pub at_secs: i64,
    /// Values of [`FIELDS`].
    pub values: [f64; 10],
}

impl Fleet {
    /// The hosts of `shape`.
    pub fn new(shape: Shape) -> Self {
        let mut numbers = Numbers(shape.seed);
        let hosts = (0..shape.hosts).map(|i| Host::new(i, &mut numbers)).collect();
        Fleet { shape, hosts }
    }

    /// The tag values of each host, in the order of [`TAGS`].
    pub fn tags(&self) -> impl Iterator<Item = &[String; 10]> {
        self.hosts.iter().map(|host| &host.tags)
    }

    /// All points of the given hours.
    pub fn base(&self) -> Walk {
        Walk::new(self, 0, self.shape.base_ticks())
    }

    /// Ten more minutes after the base part.
    pub fn appended(&self) -> Walk {
        let base = self.shape.base_ticks();
        Walk::new(self, base, base + APPENDED_TICKS)
    }

    /// Half a percent more points between the ticks of the base part, at least an hour before
    /// its end.
    pub fn late_new(&self) -> Late {
        Late::new(&self.shape, 5, 7)
    }

    /// New values for half a percent of the points of the base part, at least an hour before its
    /// end.
    pub fn late_again(&self) -> Late {
        Late::new(&self.shape, 0, 11)
    }

    /// Appends a point as line protocol with nanoseconds, with its newline.
    pub fn write_line(&self, point: &Point, to: &mut Vec<u8>) {
        to.extend_from_slice(self.hosts[point.host].head.as_bytes());
        for (i, (name, value)) in FIELDS.iter().zip(point.values).enumerate() {
            to.push(if i == 0 { b' ' } else { b',' });
            to.extend_from_slice(name.as_bytes());
            to.push(b'=');
            self.write_value(value, to);
            if self.shape.values == Values::Integers {
                to.push(b'i');
            }
        }
        write_text(to, format_args!(" {}\n", point.at_secs * 1_000_000_000));
    }

    /// Appends a point as CSV: time, tags, fields.
    pub fn write_csv(&self, point: &Point, to: &mut Vec<u8>) {
        write_text(to, format_args!("{}", Timestamp::from_secs(point.at_secs)));
        for tag in &self.hosts[point.host].tags {
            to.push(b',');
            to.extend_from_slice(tag.as_bytes());
        }
        for value in point.values {
            to.push(b',');
            self.write_value(value, to);
        }
        to.push(b'\n');
    }

    fn write_value(&self, value: f64, to: &mut Vec<u8>) {
        match self.shape.values {
            Values::Integers => write_text(to, format_args!("{}", value as i64)),
            Values::Floats => write_text(to, format_args!("{value:.2}")),
        }
    }
}

fn write_text(to: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = to.write_fmt(text);
}

impl Host {
    fn new(i: usize, numbers: &mut Numbers) -> Self {
        let (region, datacenters) = numbers.pick(&DATACENTERS);
        let tags = [
            format!("host_{i}"),
            (*region).to_owned(),
            (*numbers.pick(datacenters)).to_owned(),
            numbers.below(100).to_string(),
            (*numbers.pick(&SYSTEMS)).to_owned(),
            (*numbers.pick(&ARCHITECTURES)).to_owned(),
            (*numbers.pick(&TEAMS)).to_owned(),
            numbers.below(20).to_string(),
            numbers.below(2).to_string(),
            (*numbers.pick(&ENVIRONMENTS)).to_owned(),
        ];
        let pairs = TAGS.iter().zip(&tags).map(|(key, value)| format!(",{key}={value}"));
        let head = std::iter::once("cpu".to_owned()).chain(pairs).collect();
        let mut numbers = Numbers(numbers.next());
        let walk = std::array::from_fn(|_| numbers.unit() * 100.0);
        Host { tags, head, walk, numbers }
    }

    fn step(&mut self) -> [f64; 10] {
        for value in &mut self.walk {
            *value = (*value + self.numbers.step()).clamp(0.0, 100.0);
        }
        self.walk
    }
}

/// Points tick by tick.
#[derive(Clone, Debug)]
pub struct Walk {
    hosts: Vec<Host>,
    host: usize,
    tick: u64,
    end: u64,
}

impl Walk {
    fn new(fleet: &Fleet, first: u64, end: u64) -> Self {
        let mut hosts = fleet.hosts.clone();
        for host in &mut hosts {
            for _ in 0..first {
                host.step();
            }
        }
        Walk { hosts, host: 0, tick: first, end }
    }
}

impl Iterator for Walk {
    type Item = Point;

    fn next(&mut self) -> Option<Point> {
        if self.host == self.hosts.len() {
            (self.host, self.tick) = (0, self.tick + 1);
        }
        if self.tick >= self.end {
            return None;
        }
        let values = self.hosts.get_mut(self.host)?.step();
        let at_secs = START_SECS + self.tick as i64 * SECS_PER_TICK;
        let point = Point { host: self.host, at_secs, values };
        self.host += 1;
        Some(point)
    }
}

/// Points at different (tick, host) slots, spread evenly over the base part but its last hour.
#[derive(Clone, Debug)]
pub struct Late {
    hosts: u64,
    slots: u64,
    slot: u64,
    step: u64,
    left: u64,
    offset_secs: i64,
    numbers: Numbers,
}

impl Late {
    fn new(shape: &Shape, offset_secs: i64, salt: u64) -> Self {
        let hosts = shape.hosts as u64;
        let ticks = shape.base_ticks();
        let slots = ticks.saturating_sub(TICKS_PER_HOUR).max(1) * hosts;
        let mut numbers = Numbers(shape.seed ^ (salt << 32));
        let golden = (slots as f64 * 0.618_033_988_9) as u64 | 1;
        // Steps coprime to the number of slots visit each slot once before the first one again.
        let step = (golden..).step_by(2).find(|step| gcd(*step, slots) == 1).unwrap_or(1);
        let slot = numbers.below(slots);
        Late { hosts, slots, slot, step, left: ticks * hosts / 200, offset_secs, numbers }
    }
}

impl Iterator for Late {
    type Item = Point;

    fn next(&mut self) -> Option<Point> {
        self.left = self.left.checked_sub(1)?;
        self.slot = (self.slot + self.step) % self.slots;
        let tick = (self.slot / self.hosts) as i64;
        Some(Point {
            host: (self.slot % self.hosts) as usize,
            at_secs: START_SECS + tick * SECS_PER_TICK + self.offset_secs,
            values: std::array::from_fn(|_| self.numbers.unit() * 100.0),
        })
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Pseudo-random numbers. Source: SplitMix64, Steele, Lea and Flood, OOPSLA 2014.
#[derive(Clone, Debug)]
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// In `[0, 1)`.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// Mean 0, variance 1: a sum of four uniform numbers, which needs no library function that
    /// may round differently elsewhere.
    fn step(&mut self) -> f64 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xFFFF).sum();
        (sum as f64 / 65_536.0 - 2.0) * 1.732_050_807_568_877_2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as one text, and FNV-1a of it.
    fn lines(fleet: &Fleet, points: impl Iterator<Item = Point>) -> (usize, u64) {
        let mut text = Vec::new();
        points.for_each(|point| fleet.write_line(&point, &mut text));
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3);
        (text.len(), text.iter().fold(0xCBF2_9CE4_8422_2325, step))
    }

    #[test]
    fn the_same_bytes_come_out_everywhere() {
        let fleet = Fleet::new(Shape::new(4, 1));
        assert_eq!(lines(&fleet, fleet.base()), (499_906, 0xFDED_36BC_CF8F_BA81));
        assert_eq!(lines(&fleet, fleet.appended()), (83_247, 0xF8D7_ECA3_63EF_DD16));
        assert_eq!(lines(&fleet, fleet.late_new()), (2_425, 0x6F77_93BD_C7B8_7BD8));
        assert_eq!(lines(&fleet, fleet.late_again()), (2_427, 0x3ADD_5C12_2F9E_5E2C));
        let floats = Fleet::new(Shape { values: Values::Floats, seed: 7, ..Shape::new(2, 1) });
        assert_eq!(lines(&floats, floats.base()), (257_670, 0x566C_1412_1CC3_2711));
    }

    #[test]
    fn late_points_are_late_and_different() {
        let shape = Shape::new(10, 2);
        let fleet = Fleet::new(shape);
        let hour_before_end = shape.base_times().end.as_nanos() / 1_000_000_000 - 3600;
        let mut late: Vec<_> = fleet.late_again().map(|p| (p.at_secs, p.host)).collect();
        assert_eq!(late.len() as u64, shape.base_points() / 200);
        assert!(late.iter().all(|(at, _)| *at < hour_before_end && at % 10 == 0));
        late.sort_unstable();
        late.dedup();
        assert_eq!(late.len() as u64, shape.base_points() / 200);
        assert!(fleet.late_new().all(|point| point.at_secs % 10 == 5));
    }

    #[test]
    fn csv_has_the_same_points() {
        let fleet = Fleet::new(Shape::new(1, 1));
        let mut csv = Vec::new();
        let first = fleet.base().next().unwrap();
        fleet.write_csv(&first, &mut csv);
        let csv = String::from_utf8(csv).unwrap();
        assert!(csv.starts_with("2026-01-01T00:00:00Z,host_0,"), "{csv}");
        assert_eq!(csv.split(',').count(), 1 + TAGS.len() + FIELDS.len());
    }
}
