//! What somebody can do with jobs: look at them, stop them, and start them.

use std::sync::Arc;

use highwater_storage::Commit;
use tracing::info;

use super::beginning::catching_up;
use super::job::{Job, retired, unused_id};
use super::state::{JobState, Move};
use super::view::{JobStatus, Known, known};
use crate::catalog::{Aggregate, Origin};
use crate::change::plan_change;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::proposal::Proposal;
use crate::runtime::Aggregates;

/// Most points that a batch can be asked to have.
const MOST_POINTS: u64 = 1_000_000_000;

/// How a build is to be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backfill {
    /// From zero, beside what is stored, even if that is complete.
    pub force: bool,
    /// Points of a batch from now on; `None`: as before.
    pub batch_size: Option<u64>,
}

impl Aggregates {
    /// All jobs of a database, newest first.
    ///
    /// # Errors
    /// If a stored definition cannot be read.
    pub fn jobs(&self, database: &str) -> Result<Vec<JobStatus>, AggregationError> {
        let all = known(&self.reader(&database.into())?);
        Ok(all.iter().map(|one| one.status(self.settings().step_points)).collect())
    }

    /// The job with that number, or the newest of the aggregate with that name.
    ///
    /// # Errors
    /// [`AggregationError::NoSuchJob`].
    pub fn job(&self, database: &str, which: &str) -> Result<JobStatus, AggregationError> {
        let found = find(&self.reader(&database.into())?, which)?;
        Ok(found.status(self.settings().step_points))
    }

    /// Pauses, resumes, retries or cancels a job, named as in [`Aggregates::job`]. A cancelled build
    /// of a changed definition is given up, and the old one stays; a cancelled first build leaves the
    /// aggregate with what it has, and reads compute the rest.
    ///
    /// # Errors
    /// If there is no such job, or its state does not allow the move; nothing changes then.
    pub async fn move_job(
        &self,
        database: &str,
        which: &str,
        wanted: Move,
    ) -> Result<JobStatus, AggregationError> {
        let _running = self.lock_refreshes().await;
        let reader = self.reader(&database.into())?;
        let found = find(&reader, which)?;
        let mut job = Job::clone(&found.job);
        job.make(wanted, self.now())?;
        let Some(aggregate) = found.aggregate else {
            return Err(AggregationError::Conflict(format!(
                "job {} belongs to no aggregate any more; POST /api/v1/aggregates/{}/backfill \
                 starts another one",
                job.id, found.name
            )));
        };
        match wanted == Move::Cancel && aggregate.is_shadow() {
            true => self.give_up(&reader, aggregate.name()).await?,
            false => self.store(&reader, &aggregate, &job).await?,
        }
        self.job(database, &job.id.to_string())
    }

    /// Starts the job of an aggregate, or lets it go on after a pause, a failure or a cancellation;
    /// an aggregate without a job gets one. A complete one is built again only if that is forced.
    ///
    /// # Errors
    /// If there is no such aggregate, it is detached or disabled, its job is complete and it is not
    /// forced, or a part of its source has expired and could not be built again.
    pub async fn backfill(
        &self,
        database: &str,
        name: &str,
        wanted: Backfill,
    ) -> Result<JobStatus, AggregationError> {
        if wanted.batch_size.is_some_and(|points| !(1..=MOST_POINTS).contains(&points)) {
            let reason = format!("batch_size has to be from 1 to {MOST_POINTS}");
            return Err(AggregationError::Invalid(reason));
        }
        let _running = self.lock_refreshes().await;
        let reader = self.reader(&database.into())?;
        let aggregate = Arc::clone(match reader.catalog().shadow(name) {
            Some(shadow) => shadow,
            None => reader.in_force(name)?,
        });
        if !aggregate.is_scheduled() {
            let state = if aggregate.document.detached { "detached" } else { "disabled" };
            let reason = format!("{name} is {state}, so nothing is built; switch that off first");
            return Err(AggregationError::Conflict(reason));
        }
        let is_rebuilt = wanted.force && !aggregate.is_shadow();
        let (reader, aggregate, mut job) = match is_rebuilt {
            true => self.begin_rebuild(&reader, &aggregate).await?,
            false => (reader.clone(), Arc::clone(&aggregate), self.started(&reader, &aggregate)?),
        };
        job.batch_size = wanted.batch_size.or(job.batch_size);
        self.store(&reader, &aggregate, &job).await?;
        self.job(database, &job.id.to_string())
    }

    /// The job of an aggregate as it runs.
    fn started(&self, reader: &Reader, aggregate: &Aggregate) -> Result<Job, AggregationError> {
        let Some(job) = &aggregate.job else {
            return Ok(catching_up(unused_id(reader.catalog()), reader, aggregate));
        };
        let mut job = Job::clone(job);
        match job.state {
            JobState::Paused => job.make(Move::Resume, self.now())?,
            JobState::Failed | JobState::Cancelled => job.make(Move::Retry, self.now())?,
            JobState::Completed => {
                return Err(AggregationError::Invalid(format!(
                    "job {} of {} has completed; send {{\"force\": true}} to build it again from zero",
                    job.id,
                    aggregate.name()
                )));
            }
            _ => {}
        }
        Ok(job)
    }

    /// Begins to build an aggregate again from zero: beside itself, if something of it is stored.
    async fn begin_rebuild(
        &self,
        reader: &Reader,
        aggregate: &Aggregate,
    ) -> Result<(Reader, Arc<Aggregate>, Job), AggregationError> {
        let name = aggregate.name();
        let sealed_before = reader.sealed_before(aggregate);
        let stored = aggregate.progress.applied.covered();
        if stored.hull().is_some_and(|stored| stored.start < sealed_before) {
            return Err(AggregationError::Conflict(format!(
                "what {name} is made of has expired before {sealed_before}, so it cannot be built \
                 again from zero"
            )));
        }
        let mut proposal = Proposal::of(Vec::new(), Origin::Api);
        proposal.rebuild.insert(Arc::clone(name));
        let planned = plan_change(reader, reader.session().database(), &proposal)?;
        self.commit_change(reader, planned).await?;
        let reader = self.reader(reader.session().database())?;
        let catalog = reader.catalog();
        let built = catalog.shadow(name).or(catalog.get(name)).map(Arc::clone);
        let job = built.as_ref().and_then(|built| built.job.as_deref().cloned());
        match built.zip(job) {
            Some((built, job)) => Ok((reader, built, job)),
            None => {
                let reason =
                    format!("{name} has nothing stored to build again; start it without force");
                Err(AggregationError::Conflict(reason))
            }
        }
    }

    /// Stores a job that somebody has moved.
    async fn store(
        &self,
        reader: &Reader,
        aggregate: &Aggregate,
        job: &Job,
    ) -> Result<(), AggregationError> {
        let key = aggregate.job_key();
        let replaced = aggregate.job.as_ref().filter(|old| old.id != job.id);
        let mut commit = Commit::default();
        commit.edits.extend(replaced.into_iter().flat_map(|_| retired(reader, aggregate)));
        commit.edits.push(job.put(key.clone()));
        commit
            .expect_documents
            .push((key.clone(), reader.session().version().document(&key).cloned()));
        self.engine().commit(commit).await?;
        let mut schedules = self.schedules().lock();
        schedules.reset(&aggregate.build_id());
        schedules.woken().notify_one();
        info!(aggregate = %aggregate.id(), job = job.id, state = job.state.name(), "job moved");
        Ok(())
    }
}

fn find(reader: &Reader, which: &str) -> Result<Known, AggregationError> {
    let mut all = known(reader);
    let number = which.parse::<u64>().ok();
    let by_number = all.iter().position(|one| Some(one.job.id) == number);
    let found = by_number.or_else(|| all.iter().position(|one| *one.name == *which));
    match found {
        Some(at) => Ok(all.swap_remove(at)),
        None => {
            let (which, database) = (which.to_owned(), reader.session().database().to_string());
            Err(AggregationError::NoSuchJob { which, database })
        }
    }
}
