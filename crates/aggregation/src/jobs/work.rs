//! Steps of jobs: which are due, and what one does.
//!
//! A step takes a place in the backfill lane and its turn in the queue of its aggregate, so live work
//! waits for a batch at most. Each commit holds a batch with the job that reports it, or nothing; a
//! step that fails leaves only the number of its attempts behind.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_core::Timestamp;
use highwater_storage::{Commit, guarded};
use tracing::{info, warn};

use super::batch;
use super::job::Job;
use super::state::{JobState, Move};
use crate::catalog::Aggregate;
use crate::commits::Ready;
use crate::definition::AggregateId;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::lanes::Lane;
use crate::plan::{Occasion, Reason};
use crate::refresh::{Cost, account};
use crate::runtime::Aggregates;
use crate::schedule::Run;
use crate::scheduler::{chain, is_conflict};

/// So often a step that finds out what there is to do is tried.
const CREATION_ATTEMPTS: u32 = 3;
/// So often any other step is tried.
const BATCH_ATTEMPTS: u32 = 5;
/// A step begins anew so often when definitions, or the job, change under it.
const BEGINNINGS: usize = 5;

/// A job and what it works on, at one version.
struct Site {
    reader: Reader,
    aggregate: Arc<Aggregate>,
    /// As it shall be after the step.
    job: Job,
}

/// What a step did.
struct Step {
    /// `None` if it read nothing.
    cost: Option<Cost>,
    /// Whether the end of the job follows at once.
    goes_on: bool,
}

impl Aggregates {
    /// One step of every job of an aggregate in force that is due. Returns how many there were.
    pub(crate) async fn advance_jobs(&self) -> Result<usize, AggregationError> {
        let mut steps = 0;
        for database in self.databases() {
            // Sources first: what reads them waits until they are built.
            for depth in self.depths_of_jobs(&database)? {
                let due = self.jobs_due(&database, depth)?;
                steps += due.len();
                self.refresh_together(due, Occasion::Backfill).await?;
            }
        }
        Ok(steps)
    }

    fn depths_of_jobs(&self, database: &Arc<str>) -> Result<BTreeSet<usize>, AggregationError> {
        let catalog = self.catalog(&self.engine().version(), database)?;
        let running = catalog.iter().filter(|one| is_worked_on(one));
        Ok(running.map(|one| catalog.depth(one)).collect())
    }

    fn jobs_due(
        &self,
        database: &Arc<str>,
        depth: usize,
    ) -> Result<Vec<AggregateId>, AggregationError> {
        let catalog = self.catalog(&self.engine().version(), database)?;
        let waits =
            |one: &Aggregate| catalog.parent(one).is_some_and(|parent| is_worked_on(parent));
        let running = catalog.iter().filter(|one| is_worked_on(one));
        let at_depth = running.filter(|one| catalog.depth(one) == depth && !waits(one));
        let due = at_depth.filter(|one| self.may_step(one));
        Ok(due.map(|one| one.id().clone()).collect())
    }

    /// Whether the job of an aggregate runs and neither rests after a failure nor is held by a switch.
    pub(crate) fn may_step(&self, aggregate: &Aggregate) -> bool {
        aggregate.job.as_ref().is_some_and(|job| {
            job.is_running()
                && !self.switches().holds_after(job.batches)
                && self.schedules().lock().may_run(&aggregate.build_id(), self.now())
        })
    }

    /// Whether a shadow still has something to do before it can take over.
    pub(crate) fn has_step(&self, reader: &Reader, shadow: &Aggregate) -> bool {
        let is_missing = |job: &Arc<Job>| !batch::missing(reader, shadow, job).is_empty();
        shadow.job.as_ref().is_some_and(|job| job.state != JobState::Optimizing || is_missing(job))
    }

    /// One step of the job of an aggregate; no run if it read nothing.
    ///
    /// # Errors
    /// [`AggregationError::Conflict`] if somebody keeps changing what it works on. That a step failed
    /// is no error: the job says so.
    pub(crate) async fn work_on_job(
        &self,
        id: &AggregateId,
        occasion: Occasion,
    ) -> Result<Option<Run>, AggregationError> {
        self.queue().planned(id, Lane::Backfill);
        let started = self.now();
        let mut cost = None;
        for _ in 0..BEGINNINGS {
            let _slot = self.slots().take(Lane::Backfill).await;
            let Some(mut site) = self.site(id, occasion)? else {
                return Ok(cost.map(|cost| run(id, occasion, started, cost, None)));
            };
            let id = site.aggregate.run_id();
            match guarded(self.step(&mut site)).await {
                Err(error) if is_conflict(&error) => {}
                Err(AggregationError::Stopping) => return Err(AggregationError::Stopping),
                Err(error) => {
                    self.step_failed(&mut site, &error).await;
                    let cost = cost.unwrap_or_default();
                    return Ok(Some(run(&id, occasion, started, cost, Some(chain(&error)))));
                }
                Ok(step) => {
                    self.schedules().lock().reset(&site.aggregate.build_id());
                    cost = step.cost.or(cost);
                    if !step.goes_on {
                        return Ok(cost.map(|cost| run(&id, occasion, started, cost, None)));
                    }
                }
            }
        }
        let reason = format!("the job of {} keeps changing; try again", id.name);
        Err(AggregationError::Conflict(reason))
    }

    fn site(&self, id: &AggregateId, occasion: Occasion) -> Result<Option<Site>, AggregationError> {
        let reader = self.reader_for(&id.database, occasion)?;
        let Some(aggregate) = reader.catalog().get(&id.name).map(Arc::clone) else {
            return Ok(None);
        };
        let Some(job) = aggregate.job.as_deref().filter(|job| job.is_running()).cloned() else {
            return Ok(None);
        };
        Ok(Some(Site { reader, aggregate, job }))
    }

    async fn step(&self, site: &mut Site) -> Result<Step, AggregationError> {
        let Site { reader, aggregate, job } = site;
        let batch_size = job.batch_size.unwrap_or(self.settings().step_points).max(1);
        let attempts = self.schedules().lock().attempts(&aggregate.build_id());
        job.attempts = job.attempts.max(attempts);
        if job.state < JobState::Backfilling {
            job.total_rows = batch::count(reader, aggregate, job).await?;
            job.advance_to(JobState::Backfilling, self.now());
            if job.total_rows > batch_size {
                self.commit_job(site).await?;
                return Ok(Step { cost: None, goes_on: false });
            }
            // What fits into a batch is done at once.
        }
        match batch::next(reader, aggregate, job, batch_size).await? {
            None => self.finish(site).await,
            Some(batch) => {
                self.switches().attempt_batch()?;
                self.commit_batch(site, &batch).await
            }
        }
    }

    async fn commit_batch(
        &self,
        site: &Site,
        batch: &batch::Batch,
    ) -> Result<Step, AggregationError> {
        let Site { reader, aggregate, job } = site;
        let (mut computed, mut job) = batch::compute(reader, aggregate, batch, job.clone()).await?;
        let cost = computed.cost;
        account(reader, aggregate, &mut computed, cost, self.now());
        if batch.is_last {
            // A single batch left nothing that could be joined.
            let is_whole = job.batches == 1 && !aggregate.is_shadow();
            let end = if is_whole { JobState::Completed } else { JobState::Optimizing };
            job.advance_to(end, self.now());
        }
        let state = job.state;
        computed.job = Some(job.clone());
        let ready = Ready { reader: reader.clone(), aggregate: Arc::clone(aggregate), computed };
        self.commit_refresh(ready, Lane::Backfill).await?;
        self.report_state(aggregate, &job);
        let goes_on = batch.is_last && state == JobState::Optimizing;
        Ok(Step { cost: Some(cost), goes_on })
    }

    /// Joins what was stored in many batches, and ends the job; that of a shadow ends when it takes
    /// over.
    async fn finish(&self, site: &mut Site) -> Result<Step, AggregationError> {
        let Site { aggregate, job, .. } = site;
        let before = job.clone();
        if job.batches > 1 {
            self.engine().compact_one(&aggregate.stored()).await?;
        }
        let end = if aggregate.is_shadow() { JobState::Optimizing } else { JobState::Completed };
        job.advance_to(end, self.now());
        if before != *job {
            self.commit_job(site).await?;
        }
        Ok(Step { cost: None, goes_on: false })
    }

    /// Stores a job as it is after a step, unless somebody else has changed it.
    async fn commit_job(&self, site: &Site) -> Result<(), AggregationError> {
        let Site { reader, aggregate, job } = site;
        let key = aggregate.job_key();
        let mut commit = Commit::of([job.put(key.clone())]);
        let seen = reader.session().version().document(&key).cloned();
        commit.expect_documents.push((key, seen));
        let _unchanging = self.keep_definitions().await;
        self.engine().commit(commit).await?;
        self.report_state(aggregate, job);
        Ok(())
    }

    /// Stores that a step failed; for good, if it was tried often enough.
    async fn step_failed(&self, site: &mut Site, error: &AggregationError) {
        let attempts = site.job.attempts;
        let tried = self.schedules().lock().attempts(&site.aggregate.build_id());
        let most = match site.job.state < JobState::Backfilling {
            true => CREATION_ATTEMPTS,
            false => BATCH_ATTEMPTS,
        };
        site.job.updated_at = self.now();
        if tried >= most {
            let failed = site.job.make(Move::Fail, self.now());
            failed.expect("a job that runs can fail");
        }
        site.job.error_message = Some(chain(error));
        let (aggregate, job) = (site.aggregate.id(), site.job.id);
        warn!(%aggregate, job, attempts, error = chain(error), "a step of a job failed");
        if let Err(error) = self.commit_job(site).await {
            // It is tried again all the same, and fails once that can be stored.
            warn!(%aggregate, job, error = chain(&error), "that a step failed could not be stored");
        }
    }

    fn report_state(&self, aggregate: &Aggregate, job: &Job) {
        let (id, state) = (aggregate.id(), job.state.name());
        let (processed, total) = (job.processed_rows, job.total_rows);
        info!(aggregate = %id, job = job.id, state, processed, total, "job went on");
        if job.state == JobState::Completed && aggregate.definition.refresh.debounce().is_some() {
            // Commits that it left to the job count for the schedule again.
            self.schedules().lock().wake(id);
        }
    }
}

/// Whether the background works on the job of an aggregate.
fn is_worked_on(aggregate: &Aggregate) -> bool {
    aggregate.is_scheduled() && aggregate.job.as_ref().is_some_and(|job| job.is_running())
}

fn run(
    id: &AggregateId,
    occasion: Occasion,
    started: Timestamp,
    cost: Cost,
    error: Option<String>,
) -> Run {
    let reason = match occasion {
        Occasion::Building => Reason::Definition,
        _ => Reason::Backfill,
    };
    let (id, reason) = (id.clone(), reason.name().to_owned());
    Run { id, started, reason, lane: Lane::Backfill, cost, error }
}
