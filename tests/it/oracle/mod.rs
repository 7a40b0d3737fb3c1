//! The oracle: random histories, and after every step the question whether each aggregate equals
//! the same query over deduplicated points, bit for bit.
//!
//! Definitions change on the way, and restarts come while they are built.
//!
//! In half of the histories points expire. There the aggregates have to equal the query over all
//! points that were ever taken, which a second measurement without retention keeps.
//!
//! `HIGHWATER_SEED` (a number, or `random`) chooses the history, `HIGHWATER_ORACLE_STEPS` its
//! length, `HIGHWATER_ORACLE_RUNS` how many histories of consecutive seeds there are.

mod database;
mod follower;
mod model;
mod questions;
mod steps;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use highwater_aggregation::AggregateRule;
use highwater_core::time::{NANOS_PER_DAY, NANOS_PER_HOUR};
use highwater_core::{Clock, Timestamp};
use highwater_query::Freshness;

use self::database::Database;
use self::follower::Follower;
use self::model::{Deletion, Model, Point};
use self::questions::any_question;
use self::steps::{BASE, STORAGES, Step, any_step, first_point};
use self::watched::{CHANGED, RETENTION, RULES, WATCHED, Watched};
use crate::random::Random;

/// The measurement under test.
const POINTS: &str = "m";
/// Its tags, as far as points have them.
const TAGS: [&str; 2] = ["host", "dc"];
/// Where points are kept for ever in a history in which they expire.
const ALL_POINTS: &str = "m_all";
/// How long points are kept, see [`RETENTION`].
const KEPT: i64 = 2 * NANOS_PER_DAY;

/// A history as it unfolds.
struct History {
    database: Option<Database>,
    expiring: bool,
    model: Model,
    /// The rules that the history begins with.
    rules: BTreeMap<&'static str, AggregateRule>,
    /// Version of the definition and its watermark.
    watermarks: BTreeMap<&'static str, (u32, Timestamp)>,
    followers: BTreeMap<&'static str, Follower>,
    /// Whether stored partials were given up, so that closed buckets may be missing for a while.
    gave_up: bool,
    /// Aggregates of which a restart, or another storage, may have taken what is stored, while the
    /// background has not rested since.
    unsettled: BTreeSet<&'static str>,
    checks: usize,
    /// Where questions come from.
    curious: Random,
    /// Questions asked, and those of them that aggregates answered.
    questions: (usize, usize),
}

impl History {
    /// A history whose aggregates are stored one way or the other.
    async fn begin(seed: u64, expiring: bool) -> Self {
        let noon_of_the_third = BASE + 60 * NANOS_PER_HOUR;
        let rules = if expiring { format!("{RULES}{RETENTION}") } else { RULES.to_owned() };
        let database = Database::create(&rules, noon_of_the_third).await;
        let mut random = Random::seeded(!seed);
        for one in &WATCHED {
            let storage = random.pick(&STORAGES);
            let rule = database.status(one.name).definition;
            let keys = format!(r#"{{"storage": "{storage}"}}"#);
            assert!(database.change(&rule, &keys).await, "{}", one.name);
        }
        let rules = WATCHED.iter().map(|one| (one.name, database.status(one.name).definition));
        History {
            rules: rules.collect(),
            database: Some(database),
            expiring,
            model: Model::default(),
            watermarks: BTreeMap::new(),
            followers: BTreeMap::new(),
            gave_up: false,
            unsettled: BTreeSet::new(),
            checks: 0,
            curious: Random::seeded(seed.rotate_left(32)),
            questions: (0, 0),
        }
    }

    fn database(&self) -> &Database {
        self.database.as_ref().unwrap()
    }

    async fn apply(&mut self, step: &Step) {
        let database = self.database();
        match step {
            Step::Write(points) => {
                let (kept, expired) = self.sorted_out(points);
                assert_eq!(database.write(POINTS, points).await, expired);
                if self.expiring {
                    assert_eq!(database.write(ALL_POINTS, &kept).await, 0);
                }
                self.model.write(&kept);
            }
            Step::Delete(deletion) => {
                let mut deletion = deletion.clone();
                if !database.delete(&deletion.sql(POINTS)).await {
                    deletion = self.possible(&deletion);
                    assert!(database.delete(&deletion.sql(POINTS)).await, "all of it is live");
                }
                if self.expiring {
                    database.rows(Freshness::Default, &deletion.sql(ALL_POINTS)).await;
                }
                self.model.delete(&deletion);
            }
            Step::Flush => database.flush().await,
            Step::Compact => database.compact().await,
            Step::Advance(nanos) => {
                let to = database.clock.now().saturating_add(*nanos);
                database.clock.advance_to(to).unwrap();
                database.drain().await;
                self.unsettled.clear();
            }
            Step::Refresh(name, window) => database.refresh(name, *window).await,
            Step::Enable(name, enabled) => {
                database.enable(name, *enabled).await;
            }
            Step::GiveUp(number) => {
                database.give_up_partials(*number).await;
                self.gave_up = true;
            }
            Step::Change(name) => {
                let (keys, _) = CHANGED.iter().find(|(_, one)| one.name == *name).unwrap();
                let first = &self.rules[name];
                let keys = if self.is_changed(name) { "{}" } else { keys };
                let taken = database.change(first, keys).await;
                assert!(taken || self.expiring, "{name} has everything it was made of");
            }
            Step::Store(name, storage) => {
                let rule = database.status(name).definition;
                let keys = format!(r#"{{"storage": "{storage}"}}"#);
                let taken = database.change(&rule, &keys).await;
                assert!(taken || self.expiring, "{name} has everything it was made of");
                self.unsettled.insert(name);
            }
            Step::Undo(name) => {
                database.undo(name).await;
                self.unsettled.insert(name);
            }
            Step::Tick => drop(database.aggregates.tick().await.unwrap()),
            Step::Job(name, what) => database.job(name, *what).await,
            Step::Reopen => {
                let database = self.database.take().unwrap();
                self.database = Some(database.reopen().await);
                self.lose_memory();
            }
            Step::Crash => {
                let database = self.database.take().unwrap();
                self.database = Some(database.crash().await);
                self.lose_memory();
            }
        }
    }

    /// What was in memory is not stored any more until the background rests.
    fn lose_memory(&mut self) {
        let database = self.database.as_ref().unwrap();
        let in_memory = WATCHED.iter().map(|one| one.name);
        let in_memory = in_memory.filter(|name| database.status(name).storage == "memory");
        self.unsettled.extend(in_memory);
    }

    /// Whether another definition than the first is in force.
    fn is_changed(&self, name: &str) -> bool {
        let kept = |rule: &AggregateRule| {
            let (enabled, storage) = (None, None);
            AggregateRule { enabled, storage, ..rule.clone() }
        };
        kept(&self.database().status(name).definition) != kept(&self.rules[name])
    }

    /// The aggregates by the definitions in force.
    fn watched(&self) -> Vec<&'static Watched> {
        let in_force = |one: &'static Watched| match self.is_changed(one.name) {
            true => {
                CHANGED.iter().find_map(|(_, own)| (own.name == one.name).then_some(own)).unwrap()
            }
            false => one,
        };
        WATCHED.iter().map(in_force).collect()
    }

    /// From when on outputs are valid that are not always.
    fn valid_from(&self, name: &str) -> BTreeMap<String, Timestamp> {
        let columns = self.database().status(name).columns.into_iter();
        columns.filter_map(|column| Some((column.name, column.valid_from?))).collect()
    }

    /// Points before this time are not seen.
    fn horizon(&self) -> i64 {
        if self.expiring { self.database().clock.now().as_nanos() - KEPT } else { i64::MIN }
    }

    /// The points that are taken, and how many are too old.
    fn sorted_out(&self, points: &[Point]) -> (Vec<Point>, usize) {
        let horizon = self.horizon();
        let kept: Vec<Point> = points.iter().filter(|p| p.time >= horizon).cloned().collect();
        let expired = points.len() - kept.len();
        (kept, expired)
    }

    /// The deletion without what lives on in sealed buckets only, which it would reduce.
    fn possible(&self, deletion: &Deletion) -> Deletion {
        let floor = self.database().floor(POINTS).max(deletion.start);
        Deletion { start: floor, end: deletion.end.max(floor), ..deletion.clone() }
    }

    /// Points are those of the model, aggregates and last points those of the points, watermarks
    /// in order.
    async fn check(&mut self, step: &Step) {
        let columns: Vec<&'static str> = self.model.columns().collect();
        let points = format!("SELECT time, {} FROM {POINTS}", columns.join(", "));
        let stored = self.database().rows(Freshness::Default, &points).await;
        assert_rows(&points, &stored, &self.model.rows_since(self.horizon()));
        self.check_last_points(&columns).await;
        let source = if self.expiring { ALL_POINTS } else { POINTS };
        // What has missed nothing but changes of the future is exact.
        self.checks += 1;
        let exact = [Freshness::Exact, Freshness::MaxStaleness(0)][self.checks % 2];
        for one in self.watched() {
            let direct = one.direct(source, &columns, &self.valid_from(one.name));
            let read = one.read(&columns);
            let exact = self.database().rows(exact, &read).await;
            let expected = self.database().rows(Freshness::Default, &direct).await;
            assert_rows(&read, &exact, &expected);
            self.check_watermark(one);
        }
        self.check_questions(&columns).await;
        let audited = WATCHED[self.checks % WATCHED.len()].name;
        assert_eq!(self.database().mismatches(audited).await, [], "audit of {audited}");
        self.check_restatements(&columns).await;
        if matches!(step, Step::Advance(nanos) if *nanos >= NANOS_PER_HOUR) {
            self.check_materialized(&columns).await;
        }
    }

    /// Aggregates give the same answers to questions about points as the points do.
    async fn check_questions(&mut self, columns: &[&'static str]) {
        let today = self.database().clock.now().start_of_day().as_nanos();
        let base = if self.expiring { today - 2 * NANOS_PER_DAY } else { BASE };
        let watched = self.watched();
        let one = watched[self.checks % watched.len()];
        let direct = one.direct(POINTS, columns, &self.valid_from(one.name));
        let more: Vec<String> =
            (0..4).map(|_| any_question(&mut self.curious, columns, base)).collect();
        for question in std::iter::once(direct).chain(more) {
            let expected = self.database().rows(Freshness::Default, &question).await;
            let found = self.database().rows_from_aggregates(&question).await;
            assert_rows(&question, &found, &expected);
            self.questions.0 += 1;
            self.questions.1 += usize::from(self.database().is_rewritten(&question).await);
        }
    }

    /// What storage keeps of the last points says the same as all points.
    async fn check_last_points(&self, columns: &[&'static str]) {
        let fields = columns.iter().filter(|column| !TAGS.contains(column));
        let last: String = fields.map(|field| format!(", last({field}) AS {field}")).collect();
        for tag in TAGS.iter().filter(|tag| columns.contains(tag)) {
            let read = |filter: &str| {
                format!("SELECT {tag}, max(time) AS t{last} FROM {POINTS}{filter} GROUP BY {tag}")
            };
            let kept = self.database().rows(Freshness::Default, &read("")).await;
            let expected = read(" WHERE random() >= 0.0");
            let expected = self.database().rows(Freshness::Default, &expected).await;
            assert_rows(&read(""), &kept, &expected);
        }
    }

    /// The feed names every closed bucket whose stored rows have changed.
    async fn check_restatements(&mut self, columns: &[&'static str]) {
        if self.expiring || self.gave_up {
            // What goes by age, or because it was damaged, is no other value.
            return;
        }
        for one in self.watched().into_iter().filter(|one| one.closes()) {
            let status = self.database().status(one.name);
            let Some(closed) = status.last_processed else { continue };
            if self.unsettled.contains(one.name) {
                continue;
            }
            let stored = self.database().rows(Freshness::Materialized, &one.read(columns)).await;
            let since = self.followers.entry(one.name).or_default().next;
            let feed = self.database().restatements(one.name, since).await;
            let follower = self.followers.entry(one.name).or_default();
            follower.next = feed.next;
            let untold = follower.read_on(&stored, closed, &feed.entries);
            assert_eq!(untold, BTreeMap::new(), "closed buckets of {} changed silently", one.name);
        }
    }

    fn check_watermark(&mut self, one: &watched::Watched) {
        let (name, now) = (one.name, self.database().clock.now());
        let status = self.database().status(name);
        let (version, before) = self.watermarks.get(name).copied().unzip();
        let before = before.filter(|_| version == Some(status.version));
        let Some(at) = status.last_processed else {
            assert!(before.is_none(), "the watermark of {name} went away");
            return;
        };
        self.watermarks.insert(name, (status.version, at));
        let before = before.unwrap_or(at);
        assert!(before <= at, "the watermark of {name} went back from {before} to {at}");
        assert!(one.is_boundary(at), "the watermark of {name} is no boundary: {at}");
        assert!(at <= now, "the watermark of {name} is in the future: {at}");
    }

    /// What the schedule keeps is materialized in closed buckets, once the background rests.
    async fn check_materialized(&self, columns: &[&'static str]) {
        let is_scheduled = |one: &&'static Watched| {
            let enabled = self.database().status(one.name).enabled;
            one.is_scheduled && enabled && !self.database().lacks_history(one.name)
        };
        for one in self.watched().into_iter().filter(is_scheduled) {
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

async fn run(seed: u64, length: u64, expiring: bool) {
    let mut random = Random::seeded(seed);
    let names: Vec<&'static str> = WATCHED.iter().map(|one| one.name).collect();
    let changing: Vec<&'static str> = CHANGED.iter().map(|(_, one)| one.name).collect();
    let mut history = History::begin(seed, expiring).await;
    let mut taken: Vec<Step> = Vec::new();
    for number in 0..length {
        let step = match number {
            0 => Step::Write(vec![first_point(BASE + NANOS_PER_DAY)]),
            _ => {
                let today = history.database().clock.now().start_of_day().as_nanos();
                let base = if expiring { today - 2 * NANOS_PER_DAY } else { BASE };
                any_step(&mut random, &names, &changing, base, number * 100 / length)
            }
        };
        taken.push(step.clone());
        let outcome = AssertUnwindSafe(async {
            history.apply(&step).await;
            history.check(&step).await;
        });
        if let Err(panic) = outcome.catch_unwind().await {
            let steps = taken.iter().enumerate().map(|(at, step)| format!("{at}. {step}"));
            eprintln!(
                "HIGHWATER_SEED={seed} HIGHWATER_ORACLE_STEPS={length} (points expire: {expiring}) \
                 fails after\n{}",
                steps.collect::<Vec<_>>().join("\n")
            );
            std::panic::resume_unwind(panic);
        }
    }
    let (asked, answered) = history.questions;
    eprintln!("aggregates answered {answered} of {asked} questions about points");
    assert!(length < 40 || answered * 4 > asked, "aggregates answer too few questions");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    if text == "random" {
        return Some(RandomState::new().build_hasher().finish());
    }
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

async fn run_all(expiring: bool) {
    let seed = number("HIGHWATER_SEED").unwrap_or(1);
    let length = number("HIGHWATER_ORACLE_STEPS").unwrap_or(40);
    let runs = number("HIGHWATER_ORACLE_RUNS").unwrap_or(1);
    for seed in (0..runs).map(|run| seed.wrapping_add(run)) {
        eprintln!("HIGHWATER_SEED={seed}");
        run(seed, length, expiring).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_02_exact_is_direct_after_every_step_of_a_random_history() {
    run_all(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_02_expired_points_live_on_in_aggregates() {
    run_all(true).await;
}
