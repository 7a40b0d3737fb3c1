//! Everything at once for a while: writes with late, repeated and corrected points, deletes,
//! refreshes, queries, ends by SIGTERM and by `kill -9`. Aggregates stay exact, memory and disk
//! bounded, nothing acknowledged is lost, and the log has no error.
//!
//! `HIGHWATER_SOAK_SECONDS` says how long, `HIGHWATER_SOAK_BINARY` which program (one that is
//! optimized, say), `HIGHWATER_SEED` what happens.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use highwater_core::Stopwatch;
use highwater_tests::{Client, Launch, TestServer};
use serde_json::{Value, json};

use crate::random::Random;

const RULES: &str = "
databases:
  t:
    aggregates:
      - {name: m_1m, source: m, interval: 1m, group_by: [host], aggregations: [{field: v, function: [sum, mean, last]}, {function: count, as: n}], refresh: {every: 1s}}
      - {name: m_1h, source: m_1m, interval: 1h, refresh: {every: 2s}}
      - {name: m_1d, source: m_1h, interval: 1d, refresh: {every: 3s}}
";
const START: u64 = 1_767_225_600;
/// Identities: hosts, and seconds of two days in steps of ten.
const HOSTS: u64 = 40;
const STEPS: u64 = 2 * 8640;
const WRITERS: u64 = 2;
/// What all queries may use together, in bytes, and the whole server, in MB: three refreshes of
/// all buckets and their answers come on top of the queries.
const QUERY_BYTES: &str = "300000000";
const MEMORY_MB: u64 = 1200;

/// What all threads of a phase know.
struct Phase<'a> {
    client: Client,
    stopwatch: Stopwatch,
    length: Duration,
    /// Acknowledged batches; each has a point that nobody deletes.
    acknowledged: &'a AtomicU64,
    checks: &'a AtomicU64,
}

impl Phase<'_> {
    fn is_over(&self) -> bool {
        self.stopwatch.elapsed() > self.length
    }

    /// The rows of a statement as JSON, what is asked of points computed from points; `None` once the
    /// server is gone.
    fn ask(&self, sql: &str) -> Option<Value> {
        let body = json!({"db": "t", "q": sql, "format": "json", "rewrite": "off"}).to_string();
        let reply = self.client.send("POST", "/api/v3/query_sql", &[], body.as_bytes()).ok()?;
        // Points near those to delete changed again and again, or the server is about to end.
        let is_busy = [409, 503].contains(&reply.status);
        assert!(is_busy || reply.status == 200, "{sql}: {} {}", reply.status, reply.body);
        (!is_busy).then(|| reply.json())
    }

    fn write(&self, mut random: Random) {
        let mut step = random.below(STEPS);
        while !self.is_over() {
            step += 1;
            let number = self.acknowledged.load(SeqCst) * 1000 + random.below(1000);
            let mut lines = format!("acks,id={}-{number} v=1i {START}\n", random.next());
            for _ in 0..30 {
                let late = if random.chance(30) { random.below(STEPS) } else { 0 };
                let time = START + (step + STEPS - late) % STEPS * 10;
                let (host, value) = (random.below(HOSTS), random.below(1_000_000));
                lines += &format!("m,host=h{host} v={value}.{} {time}\n", random.below(100));
            }
            let path = "/api/v3/write_lp?db=t&precision=s";
            match self.client.send("POST", path, &[], lines.as_bytes()) {
                Ok(reply) if reply.status == 204 => drop(self.acknowledged.fetch_add(1, SeqCst)),
                Ok(reply) => assert_eq!(reply.status, 503, "{}", reply.body),
                Err(_) => return,
            }
        }
    }

    fn delete(&self, mut random: Random) {
        while !self.is_over() {
            let from = START + random.below(STEPS) * 10;
            let window = format!("time >= {} AND time < {}", instant(from), instant(from + 600));
            let condition = match random.below(3) {
                0 => format!("host = 'h{}' AND {window}", random.below(HOSTS)),
                1 => format!("v > 900000 AND {window}"),
                _ => format!("host LIKE 'h1%' AND v < 10000 AND {window}"),
            };
            self.ask(&format!("DELETE FROM m WHERE {condition}"));
            for _ in 0..20 {
                self.ask("SELECT count(*) FROM m_1d");
            }
        }
    }

    fn check(&self) {
        while !self.is_over() {
            for (aggregate, interval) in [("m_1m", "1m"), ("m_1h", "1h"), ("m_1d", "1d")] {
                if let Some(rows) = self.ask(&differences(aggregate, interval)) {
                    assert_eq!(rows[0]["n"], 0, "{aggregate} differs from its points");
                    self.checks.fetch_add(1, SeqCst);
                }
            }
        }
    }
}

fn instant(secs: u64) -> String {
    format!("to_timestamp_seconds({secs})")
}

/// Counts rows that only the aggregate or only its points have, at one version.
fn differences(aggregate: &str, interval: &str) -> String {
    let stored = format!("SELECT time, host, v_sum, v_mean, v_last, n FROM {aggregate}");
    let direct = format!(
        "SELECT time_bucket('{interval}', time) AS time, host, sum(v) AS v_sum, mean(v) AS v_mean, \
         last(v) AS v_last, count(*) AS n FROM m GROUP BY 1, 2"
    );
    format!(
        "SELECT count(*) AS n FROM (({stored} EXCEPT {direct}) UNION ALL ({direct} EXCEPT {stored}))"
    )
}

fn run_phase(server: &TestServer, length: Duration, seed: u64, counters: [&AtomicU64; 2]) {
    let [acknowledged, checks] = counters;
    let stopwatch = Stopwatch::start();
    let client = server.client();
    let phase = Phase { client, stopwatch, length, acknowledged, checks };
    let random = |thread: u64| Random::seeded(seed.wrapping_mul(31).wrapping_add(thread));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (phase, random) = (&phase, random(writer));
            scope.spawn(move || phase.write(random));
        }
        scope.spawn(|| phase.delete(random(10)));
        scope.spawn(|| phase.check());
    });
}

fn resident_mb(server: &TestServer) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb / 1000)
}

#[test]
fn x_02_everything_at_once_stays_exact() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("HIGHWATER_SOAK_SECONDS").unwrap_or(6);
    let seed = number("HIGHWATER_SEED").unwrap_or(1);
    let binary = std::env::var("HIGHWATER_SOAK_BINARY");
    let binary = binary.unwrap_or_else(|_| env!("CARGO_BIN_EXE_highwater-under-test").to_owned());
    let phases = (seconds / 60).max(2);
    let launch = Launch::of(binary.clone()).rules(RULES).real_clock();
    let mut server = launch.variable("HIGHWATER_QUERY__MEMORY_BYTES", QUERY_BYTES).start();
    server.w("s", &format!("m,host=h0 v=1 {START}"));
    let (acknowledged, checks) = (AtomicU64::new(0), AtomicU64::new(0));
    for phase in 0..phases {
        let length = Duration::from_secs(seconds / phases);
        run_phase(&server, length, seed + phase, [&acknowledged, &checks]);
        let memory_mb = resident_mb(&server).unwrap_or(0);
        if phase % 2 == 0 {
            server.kill9()
        } else {
            server.restart()
        }
        let acks: u64 = server.q("SELECT count(*) AS n FROM acks").parse().unwrap();
        let points = server.q("SELECT count(*) AS n FROM m");
        println!("phase {phase}: {acks} batches, {points} points, at most {memory_mb} MB");
        assert!(acks >= acknowledged.load(SeqCst), "an acknowledged batch is lost");
        assert!(memory_mb < MEMORY_MB, "{memory_mb} MB");
        for (aggregate, interval) in [("m_1m", "1m"), ("m_1h", "1h"), ("m_1d", "1d")] {
            assert_eq!(server.q(&differences(aggregate, interval)), "0", "{aggregate}");
        }
    }
    assert!(checks.load(SeqCst) > 0 && acknowledged.load(SeqCst) > 0);
    assert!(server.terminate().success());
    let log = server.stderr();
    assert!(!log.contains("ERROR"), "{log}");
    let data = server.data_folder();
    let check = Command::new(binary).args(["check", "--data"]).arg(data).output().unwrap();
    let report = String::from_utf8_lossy(&check.stdout);
    println!("{} checks; {report}", checks.load(SeqCst));
    assert!(check.status.success(), "{report}");
}
