//! Building changed definitions beside those in force, and letting them take over.
//!
//! A shadow is refreshed like any aggregate, by the same scheduler, against the catalogue in which
//! all shadows stand in for what they shadow. Once it has every closed bucket, and every bucket that
//! the old one has stored, one commit makes it the one in force.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use highwater_core::{Schema, TimeRange, TimeRanges, Timestamp};
use highwater_storage::{Commit, Edit, Medium, guarded};
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::catalog::{
    Aggregate, Progress, definition_key, job_key, progress_key, shadow_key, shadow_progress_key,
};
use crate::change::is_same;
use crate::commits::Ready;
use crate::definition::AggregateId;
use crate::error::AggregationError;
use crate::exact::{Reader, Wanted};
use crate::feed::{self, Restated};
use crate::jobs::retired;
use crate::jobs::state::JobState;
use crate::materialization::{is_partial, names, replacement, rows_schema, stored_kind};
use crate::plan::Occasion;
use crate::refresh::{self, Computed};
use crate::runtime::Aggregates;
use crate::undo;

/// How often it is looked at what is being built.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Copying more rows of sealed partials than this takes several commits.
const ROWS_PER_COPY: u64 = 1_000_000;

/// What a shadow has to compute: stale pieces of closed buckets and of those the old one has stored.
fn wanted(reader: &Reader, shadow: &Aggregate) -> TimeRanges {
    reader.plan(shadow, Occasion::Building).ranges()
}

/// End of the last bucket of a shadow that the old one has stored.
pub(crate) fn stored_end(shadow: &Aggregate) -> Option<Timestamp> {
    // Without buckets nothing has to close.
    shadow.definition.pieces.bucket()?;
    let stored = shadow.replaces()?.progress.applied.covered().hull()?;
    Some(shadow.definition.pieces.bucket_of(stored.end).start)
}

/// Sealed ranges that a shadow still has to take over from the old one.
fn to_copy(shadow: &Aggregate) -> TimeRanges {
    let before = shadow.document.valid_from.values().max();
    let (Some(old), Some(before)) = (shadow.replaces(), before) else { return TimeRanges::none() };
    let sealed = old.progress.applied.covered().intersect(&TimeRange::before(*before).into());
    sealed.subtract(&shadow.progress.applied.covered())
}

/// Whether a shadow can take over.
pub(crate) fn is_built(reader: &Reader, shadow: &Aggregate) -> bool {
    let waits = shadow.job.as_ref().is_some_and(|job| job.state != JobState::Optimizing);
    let missing = wanted(reader, shadow).subtract(&shadow.progress.applied.covered());
    !waits && missing.is_empty() && to_copy(shadow).is_empty()
}

/// Share of what a shadow needs that it has, from 0 to 1.
pub(crate) fn progress(reader: &Reader, shadow: &Aggregate) -> f64 {
    let pieces = shadow.definition.pieces;
    let missing = wanted(reader, shadow).union(&to_copy(shadow));
    let missing = missing.subtract(&shadow.progress.applied.covered());
    let (left, done) =
        (pieces.count_buckets(&missing), pieces.count_buckets(&shadow.progress.applied.covered()));
    if left == 0 { 1.0 } else { done as f64 / (left + done) as f64 }
}

/// Shadows that take over together: one and all that read it.
fn families(reader: &Reader) -> BTreeMap<Arc<str>, Vec<Arc<Aggregate>>> {
    let mut families: BTreeMap<Arc<str>, Vec<Arc<Aggregate>>> = BTreeMap::new();
    for shadow in reader.catalog().iter().filter(|one| one.is_shadow()) {
        let mut top = shadow;
        while let Some(parent) = reader.catalog().parent(top).filter(|one| one.is_shadow()) {
            top = parent;
        }
        families.entry(Arc::clone(top.name())).or_default().push(Arc::clone(shadow));
    }
    families
}

/// Shadows of one depth that have something to do.
#[derive(Default)]
struct Due {
    with_job: Vec<AggregateId>,
    /// Those that were begun before builds had jobs.
    without: Vec<AggregateId>,
}

impl Aggregates {
    /// Builds what is to be built, on the real clock, until told to stop.
    pub(crate) async fn keep_building(&self, stop: &CancellationToken) {
        let mut commits = self.engine().commits();
        loop {
            commits.mark_unchanged();
            let built = stop.run_until_cancelled(guarded(self.advance_builds())).await;
            match &built {
                Some(Err(error)) => {
                    error!(error = error as &dyn std::error::Error, "building aggregates failed");
                }
                Some(Ok(steps)) if *steps > 0 => {
                    // The next step can follow at once; each waits for its place in its lane.
                    yield_now().await;
                    continue;
                }
                _ => {}
            }
            let goes_on = self.is_building();
            let next_look = async {
                sleep(LOOK_EVERY).await;
                if !goes_on {
                    // An error means that the engine is closed; then `stop` comes soon.
                    commits.changed().await.ok();
                }
            };
            if stop.run_until_cancelled(next_look).await.is_none() {
                return;
            }
        }
    }

    /// Whether something is being built, or that is not known. Only a commit can change it.
    fn is_building(&self) -> bool {
        let version = self.engine().version();
        let has_job = |one: &Arc<Aggregate>| one.job.as_ref().is_some_and(|job| job.is_running());
        let is_building = |database: &Arc<str>| match self.catalog(&version, database) {
            Ok(catalog) => {
                let is_gone = |one: &Arc<Aggregate>| !one.progress.rebuilding.is_empty();
                let is_again = |reader: Reader| {
                    catalog.iter().any(|one| is_gone(one) && self.is_rebuilding(&reader, one))
                };
                catalog.iter().any(has_job)
                    || catalog.shadows().next().is_some()
                    || catalog.iter().any(is_gone) && self.reader(database).is_ok_and(is_again)
            }
            Err(_) => true,
        };
        self.databases().iter().any(is_building)
    }

    /// One step of everything that is being built: for the first time, again, and beside what is in
    /// force.
    async fn advance_builds(&self) -> Result<usize, AggregationError> {
        let again = self.rebuild_lost().await?;
        Ok(again + self.advance_jobs().await? + self.advance_shadows().await?)
    }

    /// Goes on building what is being built, and lets take over what is complete. Returns how many
    /// things were done.
    pub(crate) async fn advance_shadows(&self) -> Result<usize, AggregationError> {
        let mut steps = 0;
        for database in self.databases() {
            for Due { with_job, without } in self.shadows_due(&database)?.into_values() {
                for id in with_job.iter().chain(&without) {
                    steps += self.copy_sealed(id).await?;
                }
                // A step of a job that reads nothing is one all the same.
                steps += with_job.len();
                self.refresh_together(with_job, Occasion::Building).await?;
                steps += self.refresh_together(without, Occasion::Building).await?.len();
            }
            steps += self.take_over(&database).await?;
        }
        Ok(steps)
    }

    /// What is being built and did not fail just now, sources first.
    fn shadows_due(&self, database: &Arc<str>) -> Result<BTreeMap<usize, Due>, AggregationError> {
        let now = self.now();
        let reader = self.reader(database)?.next();
        let mut due: BTreeMap<usize, Due> = BTreeMap::new();
        for shadow in reader.catalog().iter().filter(|one| one.is_shadow()) {
            let own = due.entry(reader.catalog().depth(shadow)).or_default();
            match &shadow.job {
                Some(_) if self.may_step(shadow) && self.has_step(&reader, shadow) => {
                    own.with_job.push(shadow.id().clone());
                }
                None if self.schedules().lock().may_run(&shadow.run_id(), now) => {
                    own.without.push(shadow.id().clone());
                }
                _ => {}
            }
        }
        Ok(due)
    }

    /// Copies the sealed partials that a shadow keeps, in bounded steps. Returns how many.
    async fn copy_sealed(&self, id: &AggregateId) -> Result<usize, AggregationError> {
        let mut steps = 0;
        loop {
            let _running = self.lock_refreshes().await;
            let reader = self.reader(&id.database)?;
            let Some(shadow) = reader.catalog().shadow(&id.name) else { return Ok(steps) };
            let Some(times) = next_copy(&reader, shadow) else { return Ok(steps) };
            let copy = copied(&reader, shadow, &times).await?;
            let aggregate = Arc::clone(shadow);
            let copy = Ready { reader: reader.next(), aggregate, computed: copy };
            refresh::commit(self.engine(), vec![copy]).await?;
            steps += 1;
        }
    }

    /// Lets every family of shadows that is complete take over, each in one commit.
    async fn take_over(&self, database: &Arc<str>) -> Result<usize, AggregationError> {
        let mut count = 0;
        let names: Vec<Arc<str>> = families(&self.reader(database)?.next()).into_keys().collect();
        for name in names {
            let _running = self.lock_refreshes().await;
            let reader = self.reader(database)?.next();
            let Some(family) = families(&reader).remove(&name) else { continue };
            if !family.iter().all(|shadow| is_built(&reader, shadow)) {
                continue;
            }
            let until = self.undo_until();
            self.engine().commit(swap(&reader, &family, until)?).await?;
            count += 1;
            for shadow in family {
                self.schedules().lock().wake(shadow.id());
                info!(aggregate = %shadow.id(), version = shadow.document.version, "changed");
            }
        }
        Ok(count)
    }
}

/// The commit that puts shadows in the place of what they shadow, which can be undone until `until`.
fn swap(
    reader: &Reader,
    family: &[Arc<Aggregate>],
    until: Option<Timestamp>,
) -> Result<Commit, AggregationError> {
    let version = reader.session().version();
    let mut commit = Commit::default();
    let replaced: Vec<&Arc<Aggregate>> = family.iter().filter_map(|one| one.replaces()).collect();
    for shadow in family {
        let id = shadow.id();
        let own = [shadow_key(id), shadow_progress_key(id)];
        let theirs = [definition_key(id), progress_key(id)];
        for key in own.iter().chain(&theirs) {
            commit.expect_documents.push((key.clone(), version.document(key).cloned()));
        }
        for (from, to) in own.into_iter().zip(theirs) {
            let text = version.document(&from).cloned();
            commit.edits.push(Edit::PutDocument { key: to, text });
            commit.edits.push(Edit::PutDocument { key: from, text: None });
        }
        commit.edits.extend(shadow.replaces().into_iter().flat_map(|old| retired(reader, old)));
        commit.edits.extend(completed(reader, shadow, &mut commit.expect_documents));
        if shadow.replaces().is_some() {
            feed::append(&mut commit, reader, id, &Restated::redefined())?;
        }
    }
    commit.edits.extend(undo::remembered(reader, &replaced, until)?);
    Ok(commit)
}

/// The edits with which the job of a shadow ends and becomes that of the one in force.
fn completed(
    reader: &Reader,
    shadow: &Aggregate,
    expected: &mut Vec<(String, Option<Arc<str>>)>,
) -> Vec<Edit> {
    let Some(mut job) = shadow.job.as_deref().cloned() else { return Vec::new() };
    let key = shadow.job_key();
    expected.push((key.clone(), reader.session().version().document(&key).cloned()));
    job.advance_to(JobState::Completed, reader.session().now());
    vec![Edit::PutDocument { key, text: None }, job.put(job_key(shadow.id()))]
}

/// The newest sealed range to copy next: whole days of the old one's stored partials.
fn next_copy(reader: &Reader, shadow: &Aggregate) -> Option<TimeRanges> {
    let left = to_copy(shadow);
    let old = shadow.replaces()?;
    let stored = reader.session().version().measurement(&old.stored());
    let mut rows: BTreeMap<Timestamp, u64> = BTreeMap::new();
    for segment in stored.into_iter().flat_map(|stored| stored.segments()) {
        *rows.entry(segment.times.start.start_of_day()).or_default() += segment.rows;
    }
    let mut days: VecDeque<(Timestamp, u64)> = rows.into_iter().collect();
    let mut from = left.hull()?.start;
    let (mut count, end) = (0, left.hull()?.end);
    while let Some((day, rows)) = days.pop_back() {
        count += if day < end { rows } else { 0 };
        let is_cut = count >= ROWS_PER_COPY && shadow.definition.pieces.is_boundary(day);
        if is_cut && day < end && day > from {
            from = day;
            break;
        }
    }
    let times = left.intersect(&TimeRange::new(from, end).into());
    (!times.is_empty()).then_some(times)
}

/// The old one's stored partials of `times`, as those of the shadow.
async fn copied(
    reader: &Reader,
    shadow: &Aggregate,
    times: &TimeRanges,
) -> Result<Computed, AggregationError> {
    let wanted = reader.next().resolve(shadow)?;
    let mut progress = Progress::clone(&shadow.progress);
    let Some(old) = shadow.replaces() else { return Ok(Computed::of(None, progress)) };
    progress.lost = old.progress.lost.clone();
    let resolved = reader.resolve(old)?;
    let is_kept = |at: &usize| {
        let output = &resolved.outputs[*at];
        wanted.outputs.iter().any(|one| is_same(one, output))
    };
    let kept: Vec<usize> = (0..resolved.outputs.len()).filter(is_kept).collect();
    let kept_names = names(&resolved, &kept);
    let columns = rows_schema(old, &resolved);
    let columns = columns.columns().filter(|c| !is_partial(c) || kept_names.contains(&*c.name));
    let schema = Schema::of(columns);
    let plan = reader.stored(old, &resolved, &kept, &Wanted::at(times.clone()))?;
    if shadow.is_in_memory() {
        progress.note_medium(times, Medium::Disk);
    }
    for range in times.iter() {
        for (part, seq) in old.progress.applied.parts(range) {
            progress.applied.set(part, seq);
        }
    }
    let (batches, _) = refresh::run(reader, plan, &schema).await?;
    let kind = stored_kind(reader.session().version(), shadow, &resolved);
    let times = (times, &TimeRanges::none());
    let stored = (shadow.stored(), kind, Medium::Disk);
    let copy = replacement(stored, &resolved, &schema, times, &batches)?;
    Ok(Computed::of(Some(copy), progress))
}
