//! The oracle: random histories, and after every step the question whether each aggregate equals
//! the same query over deduplicated points, bit for bit.
//!
//! `HIGHWATER_SEED` (a number, or `random`) chooses the history, `HIGHWATER_ORACLE_STEPS` its
//! length, `HIGHWATER_ORACLE_RUNS` how many histories of consecutive seeds there are.

mod database;
mod model;
mod steps;
mod watched;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use highwater_core::time::NANOS_PER_HOUR;
use highwater_core::{Clock, Timestamp};
use highwater_query::Freshness;

use self::database::Database;
use self::model::Model;
use self::steps::{BASE, Step, any_step, first_point};
use self::watched::{RULES, WATCHED};
use crate::random::Random;

/// A history as it unfolds.
struct History {
    database: Option<Database>,
    model: Model,
    enabled: BTreeMap<&'static str, bool>,
    watermarks: BTreeMap<&'static str, Timestamp>,
}

impl History {
    async fn begin() -> Self {
        let noon_of_the_third = BASE + 60 * NANOS_PER_HOUR;
        History {
            database: Some(Database::create(RULES, noon_of_the_third).await),
            model: Model::default(),
            enabled: WATCHED.iter().map(|one| (one.name, true)).collect(),
            watermarks: BTreeMap::new(),
        }
    }

    fn database(&self) -> &Database {
        self.database.as_ref().unwrap()
    }

    async fn apply(&mut self, step: &Step) {
        let database = self.database();
        match step {
            Step::Write(points) => {
                database.write(points).await;
                self.model.write(points);
            }
            Step::Delete(deletion) => {
                database.rows(Freshness::Default, &deletion.sql()).await;
                self.model.delete(deletion);
            }
            Step::Flush => database.flush().await,
            Step::Compact => database.compact().await,
            Step::Advance(nanos) => {
                let to = database.clock.now().saturating_add(*nanos);
                database.clock.advance_to(to).unwrap();
                database.drain().await;
            }
            Step::Refresh(name, window) => database.refresh(name, *window).await,
            Step::Enable(name, enabled) => {
                database.enable(name, *enabled).await;
                self.enabled.insert(name, *enabled);
            }
            Step::Reopen => {
                let database = self.database.take().unwrap();
                self.database = Some(database.reopen().await);
            }
            Step::Crash => {
                let database = self.database.take().unwrap();
                self.database = Some(database.crash().await);
            }
        }
    }

    /// Points are those of the model, aggregates those of the points, watermarks in order.
    async fn check(&mut self, step: &Step) {
        let columns: Vec<&'static str> = self.model.columns().collect();
        let points = format!("SELECT time, {} FROM m", columns.join(", "));
        let stored = self.database().rows(Freshness::Default, &points).await;
        assert_rows(&points, &stored, &self.model.rows());
        for one in &WATCHED {
            let (read, direct) = (one.read(&columns), one.direct(&columns));
            let exact = self.database().rows(Freshness::Exact, &read).await;
            let expected = self.database().rows(Freshness::Default, &direct).await;
            assert_rows(&read, &exact, &expected);
            self.check_watermark(one);
        }
        if matches!(step, Step::Advance(nanos) if *nanos >= NANOS_PER_HOUR) {
            self.check_materialized(&columns).await;
        }
    }

    fn check_watermark(&mut self, one: &watched::Watched) {
        let (name, now) = (one.name, self.database().clock.now());
        let Some(at) = self.database().last_processed(name) else {
            assert!(!self.watermarks.contains_key(name), "the watermark of {name} went away");
            return;
        };
        let before = self.watermarks.insert(name, at).unwrap_or(at);
        assert!(before <= at, "the watermark of {name} went back from {before} to {at}");
        assert!(one.is_boundary(at), "the watermark of {name} is no boundary: {at}");
        assert!(at <= now, "the watermark of {name} is in the future: {at}");
    }

    /// What the schedule keeps is materialized in closed buckets, once the background rests.
    async fn check_materialized(&self, columns: &[&'static str]) {
        let scheduled = WATCHED.iter().filter(|one| one.is_scheduled && self.enabled[one.name]);
        for one in scheduled {
            let read = format!("{}{}", one.read(columns), one.closed(self.database().clock.now()));
            let stored = self.database().rows(Freshness::Materialized, &read).await;
            let exact = self.database().rows(Freshness::Exact, &read).await;
            assert_rows(&format!("materialized: {read}"), &stored, &exact);
        }
    }
}

/// Two answers are the same; if not, only the rows that differ are shown.
#[track_caller]
fn assert_rows(what: &str, found: &[Vec<String>], expected: &[Vec<String>]) {
    if found == expected {
        return;
    }
    let only = |these: &[Vec<String>], those: &[Vec<String>]| {
        let rows = these.iter().filter(|row| !those.contains(row)).map(|row| row.join(","));
        rows.take(10).collect::<Vec<_>>().join("\n  ")
    };
    panic!(
        "{what}\n{} rows instead of {}; found only:\n  {}\nexpected only:\n  {}",
        found.len(),
        expected.len(),
        only(found, expected),
        only(expected, found)
    );
}

async fn run(seed: u64, length: u64) {
    let mut random = Random::seeded(seed);
    let names: Vec<&'static str> = WATCHED.iter().map(|one| one.name).collect();
    let mut history = History::begin().await;
    let mut taken: Vec<Step> = Vec::new();
    for number in 0..length {
        let step = match number {
            0 => Step::Write(vec![first_point()]),
            _ => any_step(&mut random, &names, number * 100 / length),
        };
        taken.push(step.clone());
        let outcome = AssertUnwindSafe(async {
            history.apply(&step).await;
            history.check(&step).await;
        });
        if let Err(panic) = outcome.catch_unwind().await {
            let steps = taken.iter().enumerate().map(|(at, step)| format!("{at}. {step}"));
            eprintln!(
                "HIGHWATER_SEED={seed} HIGHWATER_ORACLE_STEPS={length} fails after\n{}",
                steps.collect::<Vec<_>>().join("\n")
            );
            std::panic::resume_unwind(panic);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    if text == "random" {
        return Some(RandomState::new().build_hasher().finish());
    }
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_02_exact_is_direct_after_every_step_of_a_random_history() {
    let seed = number("HIGHWATER_SEED").unwrap_or(1);
    let length = number("HIGHWATER_ORACLE_STEPS").unwrap_or(40);
    let runs = number("HIGHWATER_ORACLE_RUNS").unwrap_or(1);
    for seed in (0..runs).map(|run| seed.wrapping_add(run)) {
        eprintln!("HIGHWATER_SEED={seed}");
        run(seed, length).await;
    }
}
