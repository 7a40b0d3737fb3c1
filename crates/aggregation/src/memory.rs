//! Storage `memory`: what is stored of an aggregate is in memory, and a restart takes it.
//!
//! ```text
//! refresh ──► memory ──restart──► rebuilding ──in the background──► memory
//!                └──source about to expire──► disk, because nothing else could bring it back
//! ```
//!
//! What is there is derived: whatever was applied before the engine was opened and is not kept on disk
//! counts as not applied, so that exact reads come from the source and a refresh computes it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_core::{MeasurementId, Schema, TimeRange, TimeRanges};
use highwater_storage::{Medium, Replacement, StorageError};
use tracing::{info, warn};

use crate::catalog::{Aggregate, Progress};
use crate::commits::Ready;
use crate::definition::{AggregateId, Definition, Storage};
use crate::error::AggregationError;
use crate::exact::{Reader, Wanted};
use crate::plan::Occasion;
use crate::proposal::PlannedChange;
use crate::refresh::{self, Computed, Computing};
use crate::resident::ResidentStatus;
use crate::runtime::Aggregates;
use crate::steps::in_steps;

/// Which aggregates wait for room in memory: by where they are stored, how much was taken when it was
/// last tried.
#[derive(Debug, Default)]
pub(crate) struct Room(BTreeMap<MeasurementId, u64>);

impl Room {
    pub(crate) fn is_waiting(&self, stored: &MeasurementId) -> bool {
        self.0.contains_key(stored)
    }
}

impl Aggregate {
    /// Whether it lives in memory.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.definition.storage == Storage::Memory
    }

    /// What its partials of these pieces are to be stored in: what is on disk stays there, and one that
    /// is detached has nothing but what is stored.
    pub(crate) fn medium(&self, pieces: &TimeRanges) -> Medium {
        let is_kept = pieces.subtract(&self.progress.kept).is_empty();
        match self.is_in_memory() && !self.document.detached && !is_kept {
            true => Medium::Memory,
            false => Medium::Disk,
        }
    }

    /// Whether all it has stored of these pieces is in this medium.
    pub(crate) fn is_all_in(&self, medium: Medium, pieces: &TimeRanges) -> bool {
        let kept = &self.progress.kept;
        match (self.is_in_memory(), medium) {
            (false, _) => true,
            (true, Medium::Disk) => pieces.subtract(kept).is_empty(),
            (true, Medium::Memory) => pieces.intersect(kept).is_empty(),
        }
    }
}

impl Reader {
    /// What a restart would take from an aggregate, or has taken and is to be stored again. Before
    /// the source of it expires it has to be on disk.
    pub(crate) fn in_memory(&self, aggregate: &Aggregate) -> TimeRanges {
        match aggregate.is_in_memory() {
            true => aggregate.progress.in_memory(),
            false => TimeRanges::none(),
        }
    }

    /// What was stored and is to be stored again, as far as there is anything.
    pub(crate) fn rebuilding(&self, aggregate: &Aggregate) -> TimeRanges {
        let wanted = aggregate.progress.rebuilding.covered().intersect(&self.kept(aggregate));
        match wanted.is_empty() {
            true => wanted,
            false => self.stale(aggregate, &wanted).intersect(&wanted),
        }
    }

    /// What was stored and is to be stored again, and has no points: nothing has to be computed.
    pub(crate) fn empty_again(&self, aggregate: &Aggregate) -> TimeRanges {
        let live = TimeRange::since(self.sealed_before(aggregate)).into();
        let again = aggregate.progress.rebuilding.covered().intersect(&live);
        again.subtract(&self.stale(aggregate, &again))
    }

    /// The pieces among these that were stored, are not any more, and have not changed since they
    /// were; and those that have.
    pub(crate) fn rebuilt(
        &self,
        aggregate: &Aggregate,
        pieces: &TimeRanges,
    ) -> (TimeRanges, TimeRanges) {
        let before = &aggregate.progress.rebuilding;
        let again = before.covered().intersect(pieces);
        if again.is_empty() {
            return (again.clone(), again);
        }
        let changed = self.stale_under(aggregate, before, &again).intersect(&again);
        (again.subtract(&changed), changed)
    }
}

impl Aggregates {
    /// Stores again what a restart took from memory, or a change of the storage gave up, sources
    /// first. Returns how many refreshes ran, well or not.
    pub(crate) async fn rebuild_lost(&self) -> Result<usize, AggregationError> {
        let mut count = 0;
        for database in self.databases() {
            count += self.keep_detached(&database).await?;
            let mut by_depth: BTreeMap<usize, Vec<AggregateId>> = BTreeMap::new();
            let reader = self.reader(&database)?;
            for one in reader.catalog().iter().filter(|one| self.is_rebuilding(&reader, one)) {
                let depth = reader.catalog().depth(one);
                by_depth.entry(depth).or_default().push(one.id().clone());
            }
            for due in by_depth.into_values() {
                count += self.refresh_together(due, Occasion::Rebuilding).await?.len();
            }
        }
        Ok(count)
    }

    /// Moves what detached aggregates have in memory to disk, as it is, in steps of bounded size.
    /// Returns how many steps there were.
    async fn keep_detached(&self, database: &Arc<str>) -> Result<usize, AggregationError> {
        let mut steps = 0;
        loop {
            let _running = self.lock_refreshes().await;
            let reader = self.reader(database)?;
            let next = reader.catalog().iter().find_map(|one| {
                let covered = one.progress.applied.covered();
                let moved = reader.in_memory(one).intersect(&covered);
                (one.document.detached && !moved.is_empty()).then(|| (Arc::clone(one), moved))
            });
            let Some((aggregate, moved)) = next else { return Ok(steps) };
            let cut = in_steps(&reader, &aggregate, &moved, self.settings().step_points);
            let Some(times) = cut.into_iter().next() else { return Ok(steps) };
            let computing = Computing::of(&reader, &aggregate)?;
            let rows = computing.stored(&Wanted::at(times.clone())).await?;
            let replacement =
                computing.replacement((&times, &TimeRanges::none()), &rows, Medium::Disk)?;
            let mut progress = Progress::clone(&aggregate.progress);
            progress.note_medium(&times, Medium::Disk);
            let computed = Computed::of(Some(replacement), progress);
            drop(computing);
            refresh::commit(self.engine(), vec![Ready { reader, aggregate, computed }]).await?;
            steps += 1;
        }
    }

    /// Whether the background has something of an aggregate to store again now, whatever its schedule.
    pub(crate) fn is_rebuilding(&self, reader: &Reader, aggregate: &Aggregate) -> bool {
        !reader.rebuilding(aggregate).is_empty()
            && !self.waits_for_room(aggregate)
            && self.schedules().lock().may_run(aggregate.id(), self.now())
    }

    /// Whether there was no room in memory for an aggregate, and nothing has been freed since.
    fn waits_for_room(&self, aggregate: &Aggregate) -> bool {
        let taken = self.engine().bytes_in_memory();
        aggregate.is_in_memory()
            && self.room().lock().0.get(&aggregate.stored()).is_some_and(|then| taken >= *then)
    }

    /// Whether a refresh is not even tried, for want of room. Whoever asks for one gets to know, and
    /// what is about to expire goes to disk.
    pub(crate) fn has_no_room(&self, aggregate: &Aggregate, occasion: Occasion) -> bool {
        can_wait(occasion) && self.waits_for_room(aggregate)
    }

    /// Notes how storing a refresh went. Returns whether there was no room and nobody has to be told
    /// but the log, once.
    pub(crate) fn note_room(
        &self,
        aggregate: &Aggregate,
        occasion: Occasion,
        stored: &Result<(), AggregationError>,
    ) -> bool {
        if !aggregate.is_in_memory() {
            return false;
        }
        let mut room = self.room().lock();
        let id = aggregate.stored();
        match stored {
            Ok(()) => {
                if room.0.remove(&id).is_some() {
                    info!(aggregate = %aggregate.id(), "there is room in memory again");
                }
                false
            }
            Err(AggregationError::Storage(StorageError::NoRoomInMemory {
                needed_bytes,
                used_bytes,
                most_bytes,
            })) => {
                if room.0.insert(id, *used_bytes).is_none() {
                    warn!(aggregate = %aggregate.id(), needed_bytes, used_bytes, most_bytes,
                        "does not fit into aggregation.resident_mb; the rest is read from its source");
                }
                can_wait(occasion)
            }
            Err(_) => false,
        }
    }
}

/// Whether nobody waits for a refresh on this occasion.
fn can_wait(occasion: Occasion) -> bool {
    occasion.is_scheduled() || occasion == Occasion::Rebuilding
}

/// What is in memory of an aggregate that lives there.
pub(crate) fn resident_status(reader: &Reader, aggregate: &Aggregate) -> ResidentStatus {
    let stored = reader.session().version().measurement(&aggregate.stored());
    let segments = stored.into_iter().flat_map(|stored| stored.segments());
    let (mut rows, mut bytes) = (0, 0);
    for segment in segments.filter(|segment| segment.is_in_memory()) {
        (rows, bytes) = (rows + segment.rows, bytes + segment.bytes);
    }
    ResidentStatus { rows, bytes, reason: None }
}

/// Adds to a change what it means that the storage of an aggregate becomes memory, or was, or that
/// one is attached again. What can be computed again is given up where it is, and the background
/// stores it anew.
pub(crate) fn plan_move(
    reader: &Reader,
    old: &Aggregate,
    definition: &Definition,
    planned: &mut PlannedChange,
) -> Result<(), AggregationError> {
    let to_memory = definition.storage == Storage::Memory;
    if to_memory == old.is_in_memory() && !(to_memory && old.document.detached) {
        return Ok(());
    }
    let mut progress = Progress::clone(&old.progress);
    let covered = progress.applied.covered();
    let sealed = TimeRange::before(reader.sealed_before(old)).into();
    let stays = match to_memory {
        true => covered.intersect(&definition.pieces.round_out_all(&covered.intersect(&sealed))),
        false => covered.intersect(&progress.kept),
    };
    progress.forget(&covered.subtract(&stays));
    progress.kept = if to_memory { stays.clone() } else { TimeRanges::none() };
    planned.edits.push(old.put_progress(&progress)?);
    if let Some(mut job) = old.job.as_deref().cloned()
        && let Some(unfinished) = job.unfinished.take()
    {
        job.processed_rows = job.processed_rows.saturating_sub(unfinished.rows);
        planned.edits.push(job.put(old.job_key()));
    }
    let stored = reader.session().version().measurement(&old.stored());
    planned.replacements.extend(stored.map(|stored| Replacement {
        id: stored.id().clone(),
        kind: stored.kind(),
        schema: Arc::new(Schema::default()),
        times: TimeRanges::all().subtract(&stays),
        overwrites: TimeRanges::none(),
        batches: Vec::new(),
        medium: Medium::Disk,
    }));
    Ok(())
}

/// # Errors
/// If aggregates in memory, of which there is something that only points could bring back, would
/// outlive their points.
pub(crate) fn check_outlives<'a>(
    reader: &Reader,
    all: impl Iterator<Item = &'a Arc<Aggregate>>,
) -> Result<(), AggregationError> {
    let in_memory = all.filter(|one| !reader.in_memory(one).is_empty());
    let names: BTreeSet<&str> = in_memory.map(|one| &**one.name()).collect();
    match names.first() {
        None => Ok(()),
        Some(first) => Err(AggregationError::Conflict(format!(
            "what {} stored is in memory, and without its points nothing could bring it back after a \
             restart; give {first} storage: durable first, and wait until it is rebuilt",
            names.iter().copied().collect::<Vec<_>>().join(", ")
        ))),
    }
}
