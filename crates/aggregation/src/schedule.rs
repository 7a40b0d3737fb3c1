//! When an aggregate is due: by the clock, by commits, and not too soon after it failed.
//!
//! Only remembers and decides; the scheduler acts.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use highwater_core::bucket::Span;
use highwater_core::time::{NANOS_PER_HOUR, NANOS_PER_SEC};
use highwater_core::{SequenceNumber, Timestamp};
use tokio::sync::Notify;

use crate::definition::{AggregateId, Refresh};
use crate::lanes::Lane;
use crate::refresh::Cost;

/// Longest pause after repeated failures, unless the period is longer: an hour.
const LONGEST_BACKOFF: i64 = NANOS_PER_HOUR;
/// Shortest pause after a failure: a second.
const SHORTEST_BACKOFF: i64 = NANOS_PER_SEC;
/// After a start, first looks are spread over the period, but over no longer than this: 30 s.
const RAMP: i64 = 30 * NANOS_PER_SEC;
/// A look comes up to this part of its period early, so that equal periods do not meet for ever.
const JITTER_PER_PERIOD: i64 = 10;
/// Runs kept for `system.aggregate_runs`.
const RUNS_KEPT: usize = 1_000;

/// What the scheduler remembers between looks; lost in a restart without harm.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    by_aggregate: HashMap<AggregateId, Schedule>,
    runs: VecDeque<Run>,
    /// Whether looks are spread, so that no two of them need to come at the same time.
    is_spread: bool,
    /// Told when something may have become due at once.
    woken: Arc<Notify>,
}

/// When one aggregate is due, and how it fared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    /// When the clock makes it due. `None`: at once.
    next: Option<Timestamp>,
    /// Not due before that: after a failure, a start, or a refresh that took long.
    not_before: Option<Timestamp>,
    /// Commits up to this one do not make it due any more.
    seen: SequenceNumber,
    failures_in_a_row: u32,
    /// Refreshes that failed since the start.
    pub(crate) error_count: u64,
    /// The last failure, until a refresh succeeds.
    pub(crate) last_error: Option<String>,
}

/// One refresh, as `system.aggregate_runs` shows it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Which aggregate.
    pub(crate) id: AggregateId,
    /// When it started.
    pub(crate) started: Timestamp,
    /// Why.
    pub(crate) reason: String,
    /// In which lane.
    pub(crate) lane: Lane,
    /// What it took.
    pub(crate) cost: Cost,
    /// Why it failed, if it did.
    pub(crate) error: Option<String>,
}

/// What makes an aggregate due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The clock: closed buckets.
    ByClock,
    /// A commit that counts at once.
    ByCommit,
    /// Nothing yet, but the clock will from then on, whatever happens.
    Later(Timestamp),
    /// Nothing, until a commit or somebody asks.
    Never,
}

/// Commits that count at once, as far as an aggregate has not seen them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unseen {
    /// When the first of them came, or somewhat earlier; `None` if that is not known any more.
    pub(crate) since: Option<Timestamp>,
}

impl Schedules {
    /// What is known of one aggregate.
    pub(crate) fn get(&self, id: &AggregateId) -> Schedule {
        self.by_aggregate.get(id).cloned().unwrap_or_default()
    }

    /// Commits up to this one do not make the aggregate due any more.
    pub(crate) fn seen(&self, id: &AggregateId) -> SequenceNumber {
        self.by_aggregate.get(id).map_or(SequenceNumber::ZERO, |own| own.seen)
    }

    /// Whether the aggregate does not rest after a failure.
    pub(crate) fn may_run(&self, id: &AggregateId, now: Timestamp) -> bool {
        self.by_aggregate.get(id).and_then(|own| own.not_before).is_none_or(|next| next <= now)
    }

    /// The latest runs, oldest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    /// Told when something may have become due at once.
    pub(crate) fn woken(&self) -> Arc<Notify> {
        Arc::clone(&self.woken)
    }

    /// Whether an aggregate is due, given the commits that count at once for it.
    pub(crate) fn due(
        &self,
        id: &AggregateId,
        refresh: &Refresh,
        unseen: Option<Unseen>,
        now: Timestamp,
    ) -> Due {
        let unknown = Schedule::default();
        let own = self.by_aggregate.get(id).unwrap_or(&unknown);
        let floor = own.not_before.unwrap_or(Timestamp::from_nanos(i64::MIN));
        let by_clock = refresh.every().map(|_| own.next.unwrap_or(floor).max(floor));
        let by_commit = refresh.debounce().zip(unseen).map(|(debounce, unseen)| {
            unseen.since.map_or(floor, |since| debounce.after(since)).max(floor)
        });
        match (by_clock, by_commit) {
            (Some(at), _) if at <= now => Due::ByClock,
            (_, Some(at)) if at <= now => Due::ByCommit,
            (by_clock, by_commit) => {
                by_clock.into_iter().chain(by_commit).min().map_or(Due::Never, Due::Later)
            }
        }
    }

    /// Notes that an aggregate is looked at for the reason given, at a version with commits up to
    /// `seq`.
    pub(crate) fn looked_at(
        &mut self,
        id: &AggregateId,
        refresh: &Refresh,
        due: Due,
        seq: SequenceNumber,
        now: Timestamp,
    ) {
        let is_spread = self.is_spread;
        let schedule = self.by_aggregate.entry(id.clone()).or_default();
        schedule.seen = schedule.seen.max(seq);
        if due == Due::ByClock
            && let Some(every) = refresh.every()
        {
            let period = nanos(every, now);
            let early = if is_spread { share(id, period / JITTER_PER_PERIOD) } else { 0 };
            schedule.next = Some(now.saturating_add(period - early));
        }
    }

    /// How often one that may have failed just now will have been tried in a row with the next time.
    pub(crate) fn attempts(&self, id: &AggregateId) -> u32 {
        self.by_aggregate.get(id).map_or(0, |own| own.failures_in_a_row).saturating_add(1)
    }

    /// Forgets how one fared.
    pub(crate) fn reset(&mut self, id: &AggregateId) {
        self.by_aggregate.remove(id);
    }

    /// Notes how a run of a refresh ended, of an aggregate that may rest under another name than its
    /// runs have.
    pub(crate) fn record(&mut self, id: &AggregateId, run: Run, refresh: &Refresh, now: Timestamp) {
        let rests = self.is_spread && refresh.debounce().is_some();
        let schedule = self.by_aggregate.entry(id.clone()).or_default();
        schedule.last_error.clone_from(&run.error);
        match &run.error {
            None => {
                // However many commits come, half of the time is enough for one aggregate.
                let rest = (run.cost.duration_ms * 1e6) as i64;
                schedule.not_before = rests.then(|| now.saturating_add(rest));
                schedule.failures_in_a_row = 0;
            }
            Some(_) => {
                let pause = backoff(nanos(pause_of(refresh), now), schedule.failures_in_a_row);
                schedule.not_before = Some(now.saturating_add(pause));
                schedule.failures_in_a_row += 1;
                schedule.error_count += 1;
                // What made it due still does.
                schedule.seen = SequenceNumber::ZERO;
            }
        }
        if self.runs.len() == RUNS_KEPT {
            self.runs.pop_front();
        }
        self.runs.push_back(run);
    }

    /// Makes an aggregate due at once.
    pub(crate) fn wake(&mut self, id: &AggregateId) {
        let schedule = self.by_aggregate.entry(id.clone()).or_default();
        (schedule.next, schedule.not_before, schedule.seen) = (None, None, SequenceNumber::ZERO);
        self.woken.notify_one();
    }

    /// Makes an aggregate that has more to do than one run does due again by the clock.
    pub(crate) fn go_on(&mut self, id: &AggregateId) {
        self.by_aggregate.entry(id.clone()).or_default().next = None;
    }

    /// Spreads the first looks at these aggregates, and all looks from now on.
    pub(crate) fn spread<'a>(&mut self, all: &[(&'a AggregateId, &'a Refresh)], now: Timestamp) {
        self.is_spread = true;
        let count = all.len().max(1) as i128;
        for (&(id, refresh), position) in all.iter().zip(0i128..) {
            let ramp = nanos(pause_of(refresh), now).min(RAMP);
            let after = i64::try_from(i128::from(ramp) * position / count).unwrap_or(ramp);
            let first = Some(now.saturating_add(after));
            let schedule = self.by_aggregate.entry(id.clone()).or_default();
            (schedule.next, schedule.not_before) = (first, first);
        }
    }
}

/// The pause between two refreshes that a strategy promises.
fn pause_of(refresh: &Refresh) -> Span {
    refresh.debounce().or(refresh.every()).unwrap_or(Span::ZERO)
}

/// How long `span` is from `now` on, in nanoseconds.
fn nanos(span: Span, now: Timestamp) -> i64 {
    span.after(now).as_nanos().saturating_sub(now.as_nanos())
}

/// The pause after one more failure: doubled with each in a row.
fn backoff(pause: i64, failures_before: u32) -> i64 {
    let pause = pause.max(SHORTEST_BACKOFF);
    pause.saturating_mul(1 << failures_before.min(20)).min(pause.max(LONGEST_BACKOFF))
}

/// A part of `whole`, the same for the same name.
fn share(id: &AggregateId, whole: i64) -> i64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let part = (i128::from(hasher.finish() >> 1) * i128::from(whole)) >> 63;
    i64::try_from(part).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use highwater_core::time::NANOS_PER_MINUTE;

    use super::*;

    const MINUTELY: Refresh = Refresh::Periodic { every: Span::Nanos(NANOS_PER_MINUTE) };
    const REALTIME: Refresh = Refresh::Realtime { debounce: Span::Nanos(100_000_000) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn id(number: usize) -> AggregateId {
        AggregateId::new("t", format!("rule_{number}"))
    }

    fn seq(number: u64) -> SequenceNumber {
        SequenceNumber::new(number)
    }

    fn run(id: &AggregateId, error: Option<&str>, now: Timestamp) -> Run {
        let (reason, error) = ("test".to_owned(), error.map(str::to_owned));
        let (cost, lane) = (Cost::default(), Lane::Live);
        Run { id: id.clone(), started: now, reason, lane, cost, error }
    }

    /// How many of 200 rules are looked at in each second of twenty minutes.
    fn looks_per_second(schedules: &mut Schedules) -> Vec<usize> {
        let mut looks = vec![0; 1_200];
        for (second, looks) in (0..).zip(&mut looks) {
            for rule in (0..200).map(id) {
                if schedules.due(&rule, &MINUTELY, None, at(second)) == Due::ByClock {
                    schedules.looked_at(&rule, &MINUTELY, Due::ByClock, seq(1), at(second));
                    *looks += 1;
                }
            }
        }
        looks
    }

    #[test]
    fn two_hundred_rules_start_without_a_herd() {
        let mut schedules = Schedules::default();
        let ids: Vec<AggregateId> = (0..200).map(id).collect();
        let all: Vec<_> = ids.iter().map(|id| (id, &MINUTELY)).collect();
        schedules.spread(&all, at(0));
        let looks = looks_per_second(&mut schedules);
        let most = *looks.iter().max().unwrap();
        assert!(most <= 20, "{most} of 200 at once");
        assert!(looks[..30].iter().all(|looks| *looks <= 7), "the first: {:?}", &looks[..30]);
        assert_eq!(looks[..=30].iter().sum::<usize>(), 200, "each within 30 s");
        let total: usize = looks.iter().sum();
        assert!((200 * 20..=200 * 23).contains(&total), "up to 10 % early, never late: {total}");
    }

    #[test]
    fn a_manual_clock_knows_neither_ramp_nor_jitter() {
        let looks = looks_per_second(&mut Schedules::default());
        let expected = (0..1_200).map(|second| if second % 60 == 0 { 200 } else { 0 });
        assert_eq!(looks, expected.collect::<Vec<usize>>());
    }

    #[test]
    fn a_commit_is_due_after_the_debounce_of_the_first() {
        let mut schedules = Schedules::default();
        let due = |schedules: &Schedules, since, now| {
            schedules.due(&id(1), &REALTIME, Some(Unseen { since }), now)
        };
        assert_eq!(due(&schedules, Some(at(10)), at(10)), Due::ByClock, "a new one at once");
        schedules.looked_at(&id(1), &REALTIME, Due::ByClock, seq(5), at(10));
        assert_eq!(schedules.seen(&id(1)), seq(5));
        let then = at(20).saturating_add(100_000_000);
        assert_eq!(due(&schedules, Some(at(20)), at(20)), Due::Later(then));
        assert_eq!(due(&schedules, Some(at(20)), then), Due::ByCommit);
        assert_eq!(due(&schedules, None, at(20)), Due::ByCommit, "it may be old");
        let quiet = schedules.due(&id(1), &REALTIME, None, at(20));
        assert_eq!(quiet, Due::Later(at(310)), "for the watermark");
        let on_demand = schedules.due(&id(1), &Refresh::OnDemand, None, at(20));
        assert_eq!(on_demand, Due::Never);
    }

    #[test]
    fn one_that_fails_waits_longer_each_time_and_alone() {
        let mut schedules = Schedules::default();
        let mut now = at(0);
        for pause in [60, 120, 240, 480, 960, 1_920, 3_600, 3_600] {
            for (rule, error) in [(id(1), Some("no")), (id(2), None)] {
                schedules.looked_at(&rule, &MINUTELY, Due::ByClock, seq(1), now);
                schedules.record(&rule, run(&rule, error, now), &MINUTELY, now);
            }
            let next = now.saturating_add(pause * NANOS_PER_SEC);
            let due = |rule, now| schedules.due(&rule, &MINUTELY, None, now);
            assert_eq!(due(id(1), now), Due::Later(next));
            assert_eq!(due(id(2), now), Due::Later(now.saturating_add(60 * NANOS_PER_SEC)));
            now = next;
        }
        let failing = schedules.get(&id(1));
        assert_eq!((failing.error_count, failing.last_error.as_deref()), (8, Some("no")));
        schedules.record(&id(1), run(&id(1), None, now), &MINUTELY, now);
        assert_eq!(schedules.get(&id(1)).last_error, None);
        schedules.wake(&id(1));
        assert_eq!(schedules.due(&id(1), &MINUTELY, None, now), Due::ByClock);
    }

    #[test]
    fn one_that_follows_commits_rests_as_long_as_it_worked() {
        let mut schedules = Schedules::default();
        let mut long = run(&id(1), None, at(0));
        long.cost.duration_ms = 5_000.0;
        let unseen = Some(Unseen { since: None });
        for (spread, due) in [(false, Due::ByCommit), (true, Due::Later(at(5)))] {
            if spread {
                schedules.spread(&[], at(0));
            }
            schedules.looked_at(&id(1), &REALTIME, Due::ByClock, seq(1), at(0));
            schedules.record(&id(1), long.clone(), &REALTIME, at(0));
            assert_eq!(schedules.due(&id(1), &REALTIME, unseen, at(0)), due);
        }
    }

    #[test]
    fn one_that_follows_commits_tries_again_after_a_failure() {
        let mut schedules = Schedules::default();
        schedules.looked_at(&id(1), &REALTIME, Due::ByClock, seq(9), at(0));
        schedules.record(&id(1), run(&id(1), Some("no"), at(0)), &REALTIME, at(0));
        assert_eq!(schedules.seen(&id(1)), SequenceNumber::ZERO);
        let unseen = Some(Unseen { since: None });
        assert_eq!(schedules.due(&id(1), &REALTIME, unseen, at(0)), Due::Later(at(1)));
        assert_eq!(schedules.due(&id(1), &REALTIME, unseen, at(1)), Due::ByCommit);
    }
}
