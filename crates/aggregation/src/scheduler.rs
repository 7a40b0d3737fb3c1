//! Who refreshes what, and when: one background task looks, bounded slots work.
//!
//! Work is derived from staleness; the schedule only says when to look. Nothing "running" is
//! persisted, so a restart finds everything due and everything stale by itself. A look puts what is
//! due into the [`queue`](crate::queue); one worker per aggregate takes it from there, step by
//! step, each step in a slot of its lane and with a commit of its own. So a long backfill holds
//! nothing but its slot, and definitions may change between steps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use highwater_core::{SequenceNumber, Timestamp};
use highwater_storage::{Medium, StorageError, Version, guarded};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::catalog::{Aggregate, Catalog, definition_key};
use crate::commits::Ready;
use crate::definition::{AggregateId, Refresh};
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::plan::Occasion;
use crate::queue::Answer;
use crate::refresh;
use crate::runtime::Aggregates;
use crate::schedule::{Due, Run, Unseen};
use crate::steps::Task;

/// However many commits come, looks are at least this far apart.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
/// Longest time without a look, whatever the clock of the machine does meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Pause after a look that failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// A refresh is planned again so often when definitions change under it.
const ATTEMPTS: usize = 5;

/// What a look has found.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// The refreshes that were put into the queue.
    begun: Vec<Answer>,
    /// When the next one is due by what is known now.
    next: Option<Timestamp>,
    /// Whether commits make some aggregate due.
    follows_commits: bool,
}

impl Aggregates {
    /// Refreshes what is due now, and waits for it. Returns how many refreshes ran, well or not.
    pub(crate) async fn refresh_due(&self) -> Result<usize, AggregationError> {
        let look = self.look().await?;
        let ran = futures::future::join_all(look.begun).await;
        Ok(ran.into_iter().filter(|run| matches!(run, Ok(Some(_)))).count())
    }

    /// Keeps aggregates refreshed on the real clock until told to stop.
    pub(crate) async fn keep_refreshed(&self, stop: &CancellationToken) {
        self.spread_looks();
        let woken = self.schedules().lock().woken();
        let mut commits = self.engine().commits();
        loop {
            commits.mark_unchanged();
            let look = guarded(self.look()).await;
            let pause = self.pause_after(look.as_ref());
            let follows_commits = look.is_ok_and(|look| look.follows_commits);
            let next_look = async {
                sleep(LEAST_PAUSE).await;
                tokio::select! {
                    () = sleep(pause) => {}
                    () = woken.notified() => {}
                    _ = commits.changed(), if follows_commits => {}
                }
            };
            if stop.run_until_cancelled(next_look).await.is_none() {
                return;
            }
        }
    }

    fn pause_after(&self, look: Result<&Look, &AggregationError>) -> Duration {
        match look {
            Err(error) => {
                error!(error = error as &dyn std::error::Error, "a look at what is due failed");
                PAUSE_AFTER_FAILURE
            }
            Ok(Look { next: None, .. }) => LONGEST_PAUSE,
            Ok(Look { next: Some(next), .. }) => {
                let nanos = next.as_nanos().saturating_sub(self.now().as_nanos());
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)).min(LONGEST_PAUSE)
            }
        }
    }

    /// Spreads the looks at what there is, so that they do not all come at the start.
    fn spread_looks(&self) {
        let version = self.engine().version();
        let catalogs: Vec<Arc<Catalog>> =
            self.databases().iter().filter_map(|one| self.catalog(&version, one).ok()).collect();
        let all = catalogs.iter().flat_map(|catalog| catalog.iter());
        let all: Vec<(&AggregateId, &Refresh)> =
            all.map(|one| (one.id(), &one.definition.refresh)).collect();
        self.schedules().lock().spread(&all, self.now());
    }

    /// Puts into the queue what is due now.
    async fn look(&self) -> Result<Look, AggregationError> {
        let mut look = Look::default();
        for database in self.databases() {
            let version = self.engine().version();
            let catalog = self.catalog(&version, &database)?;
            self.watch_sources(&catalog).await?;
            for aggregate in catalog.iter().filter(|one| one.is_scheduled()) {
                self.look_at(&version, aggregate, &mut look);
            }
        }
        Ok(look)
    }

    fn look_at(&self, version: &Version, aggregate: &Aggregate, look: &mut Look) {
        let (id, refresh) = (aggregate.id(), &aggregate.definition.refresh);
        look.follows_commits |= refresh.debounce().is_some();
        if self.queue().is_busy(id) {
            // Looked at again when that has ended.
            return;
        }
        let now = self.now();
        let due = {
            let mut schedules = self.schedules().lock();
            let unseen = unseen(version, aggregate, schedules.seen(id));
            let due = schedules.due(id, refresh, unseen, now);
            if unseen.is_none() || matches!(due, Due::ByClock | Due::ByCommit) {
                schedules.looked_at(id, refresh, due, version.seq(), now);
            }
            due
        };
        match due {
            Due::ByClock | Due::ByCommit => {
                look.begun.push(self.enqueue(id, occasion(refresh, due)));
            }
            Due::Later(at) => look.next = Some(look.next.map_or(at, |next| next.min(at))),
            Due::Never => {}
        }
    }

    /// Lets storage remember when the sources of aggregates changed, and what of them.
    async fn watch_sources(&self, catalog: &Catalog) -> Result<(), AggregationError> {
        for aggregate in catalog.iter().filter(|one| !one.document.detached) {
            let columns: BTreeSet<Arc<str>> =
                aggregate.definition.refresh.critical().iter().cloned().collect();
            self.engine().watch(&aggregate.definition.root, &columns).await?;
        }
        Ok(())
    }

    /// Refreshes aggregates and waits until that is done. One that fails does not disturb the
    /// others: its run says why. An aggregate without anything to do has no run.
    ///
    /// # Errors
    /// [`AggregationError::Stopping`] if the process ends first.
    pub(crate) async fn refresh_together(
        &self,
        ids: Vec<AggregateId>,
        occasion: Occasion,
    ) -> Result<Vec<Run>, AggregationError> {
        let answers: Vec<Answer> = ids.iter().map(|id| self.enqueue(id, occasion)).collect();
        let mut runs = Vec::with_capacity(answers.len());
        for answer in answers {
            runs.extend(answer.await.map_err(|_| AggregationError::Stopping)?);
        }
        Ok(runs)
    }

    /// Puts a refresh into the queue, and somebody there to work on it.
    fn enqueue(&self, id: &AggregateId, occasion: Occasion) -> Answer {
        let (answer, is_idle) = self.queue().add(id, occasion);
        if is_idle {
            self.workers().spawn(self.clone().work_on(id.clone()));
        }
        answer
    }

    /// Carries out the refreshes of one aggregate, one after the other, until none waits.
    async fn work_on(self, id: AggregateId) {
        let mut next = self.queue().next(&id);
        while let Some(begun) = next {
            let run = self.refreshed(&id, begun.occasion);
            let run = self.stop().run_until_cancelled(run).await;
            // Whoever is answered may ask again, and has to find nobody at work.
            next = self.queue().next(&id);
            let Some(run) = run else { continue };
            for asker in begun.askers {
                // Whoever asked may have gone.
                drop(asker.send(run.clone()));
            }
        }
        self.schedules().lock().woken().notify_one();
    }

    /// One refresh, recorded; none if there was nothing to do.
    async fn refreshed(&self, id: &AggregateId, occasion: Occasion) -> Option<Run> {
        let started = self.now();
        let run = match guarded(self.attempted(id, occasion)).await {
            Ok(run) => run?,
            Err(error) => Task::unplanned(id, started).ended(Some(chain(&error))),
        };
        report(&run);
        self.record(id, occasion, &run);
        Some(run)
    }

    /// Notes how a refresh ended. A job rests under a name of its own, so that the schedule goes on.
    fn record(&self, id: &AggregateId, occasion: Occasion, run: &Run) {
        let catalog = self.catalog(&self.engine().version(), &id.database).ok();
        let own = catalog.as_ref().and_then(|catalog| catalog.get(&id.name));
        let (key, refresh) = match (occasion, own) {
            (Occasion::Backfill, Some(own)) => (own.build_id(), &Refresh::OnDemand),
            (Occasion::Building, _) | (_, None) => (run.id.clone(), &Refresh::OnDemand),
            (_, Some(own)) => (run.id.clone(), &own.definition.refresh),
        };
        self.schedules().lock().record(&key, run.clone(), refresh, self.now());
    }

    async fn attempted(
        &self,
        id: &AggregateId,
        occasion: Occasion,
    ) -> Result<Option<Run>, AggregationError> {
        self.queue().others_ended(&self.sources_of(id)?).await;
        if self.has_job(id, occasion)? {
            return self.work_on_job(id, occasion).await;
        }
        for _ in 0..ATTEMPTS {
            let reader = self.reader_for(&id.database, occasion)?;
            let planned = Task::planned(&reader, id, occasion, self.settings().step_points);
            let Some(mut task) = planned else { return Ok(None) };
            let aggregate = reader.catalog().get(&id.name).map(Arc::clone);
            if aggregate.as_ref().is_some_and(|own| self.has_no_room(own, occasion)) {
                return Ok(None);
            }
            self.queue().planned(id, task.lane);
            let done = self.carry_out(&mut task, id, occasion).await;
            if aggregate.is_some_and(|own| self.note_room(&own, occasion, &done)) {
                return Ok(None);
            }
            if done.as_ref().is_err_and(is_conflict) {
                continue;
            }
            if done.is_ok() && !task.remaining.is_empty() {
                self.schedules().lock().go_on(id);
            }
            return Ok(Some(task.ended(done.err().map(|error| chain(&error)))));
        }
        let reason = format!("the definition of {} keeps changing; try again", id.name);
        Err(AggregationError::Conflict(reason))
    }

    /// Carries out the next step of a task, or all of them if somebody waits for the whole.
    async fn carry_out(
        &self,
        task: &mut Task,
        id: &AggregateId,
        occasion: Occasion,
    ) -> Result<(), AggregationError> {
        while let Some(times) = task.remaining.pop_front() {
            let _slot = self.slots().take(task.lane).await;
            let reader = self.reader_for(&id.database, occasion)?;
            let Some(aggregate) = reader.catalog().get(&id.name).map(Arc::clone) else {
                // It was dropped meanwhile.
                return Err(StorageError::Conflict { what: definition_key(id) }.into());
            };
            let medium = match occasion {
                // Soon nothing could bring it back.
                Occasion::Sealing(_) => Medium::Disk,
                _ => aggregate.medium(&times),
            };
            let mut computed = refresh::compute(&reader, &aggregate, &times, medium).await?;
            task.cost += computed.cost;
            let is_last = task.remaining.is_empty() || occasion.is_scheduled();
            if is_last {
                refresh::account(&reader, &aggregate, &mut computed, task.cost, task.started);
            }
            self.commit_refresh(Ready { reader, aggregate, computed }, task.lane).await?;
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// Whether what is to be done on this occasion is a step of a job.
    fn has_job(&self, id: &AggregateId, occasion: Occasion) -> Result<bool, AggregationError> {
        Ok(match occasion {
            Occasion::Backfill => true,
            Occasion::Building => {
                let reader = self.reader_for(&id.database, occasion)?;
                reader.catalog().get(&id.name).is_some_and(|shadow| shadow.job.is_some())
            }
            _ => false,
        })
    }

    /// Who reads what is refreshed on this occasion.
    pub(crate) fn reader_for(
        &self,
        database: &Arc<str>,
        occasion: Occasion,
    ) -> Result<Reader, AggregationError> {
        let reader = self.reader(database)?;
        Ok(if occasion == Occasion::Building { reader.next() } else { reader })
    }

    /// The aggregates that this one reads, directly or not.
    fn sources_of(&self, id: &AggregateId) -> Result<Vec<AggregateId>, AggregationError> {
        let catalog = self.catalog(&self.engine().version(), &id.database)?;
        let own = catalog.get(&id.name);
        let sources = std::iter::successors(own, |one| catalog.parent(one)).skip(1);
        Ok(sources.map(|source| source.id().clone()).collect())
    }
}

/// Commits after `seen` that count at once for an aggregate, if there are any.
fn unseen(version: &Version, aggregate: &Aggregate, seen: SequenceNumber) -> Option<Unseen> {
    let root = version.measurement(&aggregate.definition.root)?;
    let newest = match aggregate.definition.refresh.critical() {
        [] => root.changes().last(),
        critical => {
            let of = |field: &Arc<str>| root.changes_of(field).unwrap_or(root.changes()).last();
            critical.iter().map(of).max()?
        }
    };
    (newest > seen).then(|| Unseen { since: root.first_change_after(seen) })
}

/// What is to be done when an aggregate of this strategy is due.
fn occasion(refresh: &Refresh, due: Due) -> Occasion {
    match (refresh, due) {
        (Refresh::Realtime { .. }, _) => Occasion::Changed,
        (Refresh::Hybrid { .. }, Due::ByCommit) => Occasion::Critical,
        _ => Occasion::Scheduled,
    }
}

pub(crate) fn is_conflict(error: &AggregationError) -> bool {
    matches!(error, AggregationError::Storage(StorageError::Conflict { .. }))
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &AggregationError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

fn report(run: &Run) {
    let result = if run.error.is_some() { "failed" } else { "ok" };
    let aggregate = run.id.name.to_string();
    metrics::counter!("highwater_aggregation_refreshes_total", "aggregate" => aggregate.clone(), "result" => result)
        .increment(1);
    metrics::histogram!("highwater_aggregation_refresh_seconds", "aggregate" => aggregate.clone())
        .record(run.cost.duration_ms / 1e3);
    metrics::counter!("highwater_aggregation_points_scanned_total", "aggregate" => aggregate.clone())
        .increment(run.cost.points_scanned);
    metrics::counter!("highwater_aggregation_rows_written_total", "aggregate" => aggregate.clone())
        .increment(run.cost.rows);
    metrics::counter!("highwater_aggregation_rows_changed_total", "aggregate" => aggregate)
        .increment(run.cost.rows_changed);
    let (reason, lane, cost) = (&run.reason, run.lane.name(), run.cost);
    match &run.error {
        None => info!(
            aggregate = %run.id, reason, lane, buckets = cost.buckets, rows = cost.rows,
            elapsed_ms = cost.duration_ms, "refreshed"
        ),
        Some(error) => warn!(aggregate = %run.id, reason, lane, error, "refresh failed"),
    }
}
