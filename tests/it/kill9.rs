//! `kill -9` at random moments of writes, refreshes, flushes and compactions: nothing that was
//! acknowledged is lost, and aggregates are right.
//!
//! `HIGHWATER_KILL_ROUNDS` is the number of rounds, `HIGHWATER_SEED` chooses their lengths.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use highwater_tests::{Client, TestServer};

use crate::random::Random;
use crate::{aggregate, with_rules};

const RULES: &str = "
databases:
  t:
    aggregates:
      - {name: cpu_1m, source: cpu, interval: 1m, group_by: [host], aggregations: [{function: count}, {field: usage, function: [sum, mean, last]}]}
      - {name: cpu_1h, source: cpu_1m, interval: 1h}
      - {name: totals, source: cpu, group_by: [host], aggregations: [{function: count}, {field: n, function: sum}]}
";
/// Aggregates and the same queries over points.
const PAIRS: [(&str, &str); 3] = [
    (
        "SELECT time,host,count,usage_sum,usage_mean,usage_last FROM cpu_1m ORDER BY host,time",
        "SELECT time_bucket('1m',time) AS t,host,count(*),sum(usage),mean(usage),last(usage) \
         FROM cpu GROUP BY 1,host ORDER BY host,t",
    ),
    (
        "SELECT time,host,count,usage_sum,usage_mean,usage_last FROM cpu_1h ORDER BY host,time",
        "SELECT time_bucket('1h',time) AS t,host,count(*),sum(usage),mean(usage),last(usage) \
         FROM cpu GROUP BY 1,host ORDER BY host,t",
    ),
    (
        "SELECT host,count,n_sum FROM totals ORDER BY host",
        "SELECT host,count(*),sum(n) FROM cpu GROUP BY host ORDER BY host",
    ),
];
const WRITERS: [&str; 3] = ["a", "b", "c"];
/// Points of one request.
const BATCH: u64 = 20;
/// All buckets of the test are closed by then.
const NOW: &str = "2024-02-01T00:00:00Z";

/// Lines of the `number`th request of a host: every point has a time of its own.
fn batch(host: &str, number: u64) -> String {
    let line = |at: u64| {
        let time = 1_704_067_200 + at * 7;
        format!("cpu,host={host} usage={at}.1,n={at}i {time}\n")
    };
    (number * BATCH..(number + 1) * BATCH).map(line).collect()
}

/// Writes batches until the server is gone; returns the number of those acknowledged in all.
fn write_on(client: Client, host: &'static str, from: u64, acks: Sender<()>) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        for number in from.. {
            let path = "/api/v3/write_lp?db=t&precision=s";
            match client.send("POST", path, &[], batch(host, number).as_bytes()) {
                Ok(reply) => assert_eq!(reply.status, 204, "{}", reply.body),
                Err(_) => return number,
            }
            // Nobody listens any more once the kill is under way.
            let _ = acks.send(());
        }
        unreachable!("the server is killed")
    })
}

/// Sends these requests in turn until the server is gone.
fn repeat(client: Client, paths: &'static [&'static str]) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for path in paths.iter().cycle() {
            match client.send("POST", path, &[], &[]) {
                Ok(reply) => assert!(reply.status < 300, "{path}: {}", reply.body),
                Err(_) => return,
            }
        }
    })
}

/// One life of the server; `written` counts the acknowledged requests of each host.
fn live_and_die(server: &mut TestServer, written: &mut BTreeMap<&'static str, u64>, acks: u64) {
    let (sender, acknowledged) = mpsc::channel();
    let writers: Vec<_> = WRITERS
        .iter()
        .map(|host| (*host, write_on(server.client(), host, written[host], sender.clone())))
        .collect();
    let others = [
        repeat(server.client(), &["/api/v1/aggregates/refresh"]),
        repeat(server.client(), &["/api/v1/flush", "/debug/tick", "/api/v1/compact"]),
    ];
    let seen = acknowledged.iter().take(acks as usize).count();
    assert_eq!(seen as u64, acks, "the writers ended early");
    drop(acknowledged);
    server.kill9();
    for (host, writer) in writers {
        written.insert(host, writer.join().expect("a writer"));
    }
    for other in others {
        other.join().expect("a thread");
    }
}

/// Every host has what was acknowledged, and the request under way when the server died is there
/// as a whole or not at all; it counts as written from then on if it is.
fn check_points(server: &TestServer, written: &mut BTreeMap<&'static str, u64>) {
    let found = server.q("SELECT host,count(*),sum(n) FROM cpu GROUP BY host ORDER BY host");
    let mut expected = Vec::new();
    for (host, requests) in written {
        let is_there = format!("{host},{},", (*requests + 1) * BATCH);
        *requests += u64::from(found.contains(&is_there));
        let points = *requests * BATCH;
        if points > 0 {
            expected.push(format!("{host},{points},{}", points * (points - 1) / 2));
        }
    }
    assert_eq!(found, expected.join(" / "));
}

fn check_aggregates(server: &TestServer) {
    let doubles = "SELECT time,host FROM cpu_1m GROUP BY time,host HAVING count(*) > 1";
    assert_eq!(server.qm(doubles), "", "a bucket and group is stored twice");
    for (read, direct) in PAIRS {
        assert_eq!(server.q(read), server.q(direct), "{read}");
    }
    for (name, boundary) in [("cpu_1m", ":00Z"), ("cpu_1h", ":00:00Z")] {
        let at = aggregate(server, name)["last_processed"].clone();
        assert!(at.as_str().is_none_or(|at| at.ends_with(boundary)), "{name}: {at}");
    }
}

#[test]
fn s002_22_kill_9_loses_nothing_that_was_acknowledged() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("HIGHWATER_KILL_ROUNDS").unwrap_or(6);
    let mut random = Random::seeded(number("HIGHWATER_SEED").unwrap_or(1));
    let mut server = with_rules(RULES);
    server.clock(NOW);
    let mut written = WRITERS.iter().map(|host| (*host, 0)).collect();
    for round in 0..rounds {
        let acks = 1 + random.below(60);
        eprintln!("round {round}: killed after {acks} more acknowledgements");
        live_and_die(&mut server, &mut written, acks);
        server.clock(NOW);
        check_points(&server, &mut written);
        check_aggregates(&server);
        server.drain();
        check_aggregates(&server);
        for (read, direct) in PAIRS {
            assert_eq!(server.qm(read), server.q(direct), "stored: {read}");
        }
    }
}
