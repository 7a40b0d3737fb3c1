//! Commits of the layers above: definitions, documents and whole ranges of materialized rows,
//! all of it or nothing.

use std::sync::Arc;

use arrow::array::RecordBatch;
use highwater_core::{
    ColumnRole, Condition, MeasurementId, Schema, SequenceNumber, TimeRange, TimeRanges, Timestamp,
};

use crate::changes::ChangeMap;
use crate::columns::{Columns, Place};
use crate::error::StorageError;
use crate::manifest::{Edit, MeasurementKind, Tombstone};
use crate::planned::Planned;
use crate::segment::sort::times_of;
use crate::segment::{EncodedSegment, Medium, SegmentStore};
use crate::version::Version;

/// Changes that become visible and durable together.
#[derive(Debug, Default)]
pub struct Commit {
    /// Any of `CreateDatabase`, `DefineMeasurement`, `DropMeasurement`, `RaiseFloor`,
    /// `QuarantineSegment`, `CoarsenChanges`, `SetRetention` and `PutDocument`; the others are the
    /// engine's own.
    pub edits: Vec<Edit>,
    /// Ranges of materializations whose rows are replaced, after the edits have been applied.
    pub replacements: Vec<Replacement>,
    /// Keys and texts that documents must have for the commit to take place; `None` means that
    /// there must be no such document.
    pub expect_documents: Vec<(String, Option<Arc<str>>)>,
    /// Ranges of measurements that no later commit than the one named may have touched.
    pub expect_untouched: Vec<(MeasurementId, TimeRange, SequenceNumber)>,
}

impl Commit {
    /// A commit of edits alone.
    pub fn of(edits: impl IntoIterator<Item = Edit>) -> Self {
        Commit { edits: edits.into_iter().collect(), ..Commit::default() }
    }
}

/// What a commit was prepared on, and must still find.
#[derive(Debug, Default)]
struct Expectations {
    documents: Vec<(String, Option<Arc<str>>)>,
    untouched: Vec<(MeasurementId, TimeRange, SequenceNumber)>,
}

impl Expectations {
    /// # Errors
    /// [`StorageError::Conflict`] naming what is not as expected.
    fn check(&self, version: &Version) -> Result<(), StorageError> {
        for (key, expected) in &self.documents {
            if version.document(key) != expected.as_ref() {
                return Err(StorageError::Conflict { what: key.clone() });
            }
        }
        for (id, range, seq) in &self.untouched {
            let measurement = version.measurement(id);
            if measurement.is_some_and(|m| m.changes().last_change(*range) > *seq) {
                return Err(StorageError::Conflict { what: format!("{id} in {range}") });
            }
        }
        Ok(())
    }
}

/// New rows for ranges of event time of a materialization.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// Which. It is defined by the commit if it does not exist.
    pub id: MeasurementId,
    /// What it holds; [`MeasurementKind::Rollup`] or [`MeasurementKind::Materialization`].
    pub kind: MeasurementKind,
    /// Columns of the new rows; columns that the materialization lacks are added to it.
    pub schema: Arc<Schema>,
    /// Rows stored in here before are gone.
    pub times: TimeRanges,
    /// Of a rollup: rows stored in here are gone only where there is a new one with the same tags
    /// and time. Empty for a materialization.
    pub overwrites: TimeRanges,
    /// The new rows, in batches of [`Schema::arrow`], in any order, with times in `times` or
    /// `overwrites`. In a rollup no two have the same tags and time; in a materialization equal
    /// ones are kept side by side.
    pub batches: Vec<RecordBatch>,
    /// What the new rows are kept in. In a rollup, rows of one time are all in memory or all not.
    pub medium: Medium,
}

/// A replacement whose new rows are in files that nothing refers to yet.
#[derive(Debug)]
struct WrittenReplacement {
    id: MeasurementId,
    kind: MeasurementKind,
    schema: Arc<Schema>,
    times: TimeRanges,
    overwrites: TimeRanges,
    segments: Vec<EncodedSegment>,
}

/// A commit whose new rows are in files that nothing refers to yet.
#[derive(Debug)]
pub(crate) struct PreparedCommit {
    edits: Vec<Edit>,
    replacements: Vec<WrittenReplacement>,
    expected: Expectations,
}

impl PreparedCommit {
    /// Stores the rows of a commit.
    ///
    /// # Errors
    /// Those of [`write_replacement`].
    pub(crate) async fn write(
        commit: Commit,
        store: &Arc<SegmentStore>,
    ) -> Result<Self, StorageError> {
        let Commit { edits, replacements, expect_documents, expect_untouched } = commit;
        let expected = Expectations { documents: expect_documents, untouched: expect_untouched };
        let mut written = Vec::with_capacity(replacements.len());
        for replacement in replacements {
            written.push(write_replacement(replacement, store).await?);
        }
        Ok(PreparedCommit { edits, replacements: written, expected })
    }

    /// Paths of the new files.
    pub(crate) fn paths(&self) -> Vec<String> {
        let segments = self.replacements.iter().flat_map(|one| &one.segments);
        segments.map(|segment| segment.path.clone()).collect()
    }

    /// Adds what carries the commit out.
    ///
    /// # Errors
    /// As [`plan_commit`].
    pub(crate) fn plan(
        self,
        version: &Version,
        planned: &mut Planned<'_>,
    ) -> Result<(), StorageError> {
        self.expected.check(version)?;
        for edit in self.edits {
            planned.plan_edit(edit)?;
        }
        for replacement in &self.replacements {
            planned.plan_replacement(replacement)?;
        }
        Ok(())
    }
}

/// Stores the rows of a replacement.
///
/// # Errors
/// [`StorageError::Invalid`] if rows are not of the schema or lie outside of the times, and those
/// of encoding and storing.
async fn write_replacement(
    replacement: Replacement,
    store: &Arc<SegmentStore>,
) -> Result<WrittenReplacement, StorageError> {
    let Replacement { id, kind, schema, times, overwrites, batches, medium } = replacement;
    let invalid = |what: String| StorageError::Invalid(format!("rows for {id}: {what}"));
    let arrow = schema.arrow();
    if kind == MeasurementKind::Materialization && !overwrites.is_empty() {
        return Err(invalid("a materialization has no rows to overwrite one by one".to_owned()));
    }
    let places = times.union(&overwrites);
    for batch in &batches {
        if batch.schema() != arrow {
            return Err(invalid("they do not have the columns that were announced".to_owned()));
        }
        let outside = |time: &&i64| !places.contains(Timestamp::from_nanos(**time));
        if let Some(time) = times_of(batch)?.iter().find(outside) {
            let time = Timestamp::from_nanos(*time);
            return Err(invalid(format!("one at {time} is outside of the replaced range")));
        }
    }
    let segments = store.write_rows(&id, &schema, batches, medium).await?;
    Ok(WrittenReplacement { id, kind, schema, times, overwrites, segments })
}

/// The edits that carry the commit out on `version`, as the commit `seq`.
///
/// # Errors
/// [`StorageError::Conflict`] if something is not as expected, and the errors of contradictions
/// with what exists. Nothing has changed then.
pub(crate) fn plan_commit(
    commit: PreparedCommit,
    version: &Version,
    seq: SequenceNumber,
    store: &Arc<SegmentStore>,
) -> Result<Vec<Edit>, StorageError> {
    let mut planned = Planned::new(version, seq, store);
    commit.plan(version, &mut planned)?;
    Ok(planned.into_edits())
}

impl Planned<'_> {
    fn plan_edit(&mut self, edit: Edit) -> Result<(), StorageError> {
        match edit {
            Edit::DefineMeasurement { id, kind, schema } => {
                self.plan_definition(&id, kind, &schema)
            }
            Edit::RaiseFloor { id, floor } => self.plan_floor(id, floor),
            Edit::QuarantineSegment { .. } => self.plan_quarantine(edit),
            Edit::DropMeasurement { ref id } | Edit::CoarsenChanges { ref id, .. } => {
                self.existing(id)?;
                self.push(edit);
                Ok(())
            }
            Edit::CreateDatabase { .. } | Edit::SetRetention { .. } | Edit::PutDocument { .. } => {
                self.push(edit);
                Ok(())
            }
            edit => Err(StorageError::Invalid(format!("only the engine itself may do {edit:?}"))),
        }
    }

    /// Columns are only ever added, so what exists stays and the rest is appended.
    pub(crate) fn plan_definition(
        &mut self,
        id: &MeasurementId,
        kind: MeasurementKind,
        schema: &Schema,
    ) -> Result<(), StorageError> {
        let existing = self.after().measurement(id);
        if existing.is_some_and(|measurement| measurement.kind() != kind) {
            let held = match kind {
                MeasurementKind::Points => "the results of an aggregate, not points",
                MeasurementKind::Materialization | MeasurementKind::Rollup => {
                    "something else than these results of an aggregate"
                }
            };
            return Err(StorageError::Invalid(format!("{id} holds {held}")));
        }
        let mut columns = existing.map_or_else(Columns::default, |found| found.columns.clone());
        for column in schema.columns() {
            let place = columns.place(&column.name);
            if let (Some(Place::Field(_, stored)), ColumnRole::Field(written)) =
                (place, column.role)
                && stored != written
            {
                let (measurement, field) = (id.clone(), column.name.to_string());
                return Err(StorageError::FieldTypeConflict {
                    measurement,
                    field,
                    stored,
                    written,
                });
            }
            if let Some(objection) = columns.objection(&id.measurement, &column.name, column.role) {
                return Err(StorageError::Invalid(objection));
            }
            columns.insert(&column.name, column.role);
        }
        let is_new = existing.is_none_or(|found| found.stored_schema.is_none());
        if is_new || existing.is_some_and(|found| found.schema() != columns.schema()) {
            let schema = Arc::clone(columns.schema());
            self.push(Edit::DefineMeasurement { id: id.clone(), kind, schema });
        }
        Ok(())
    }

    fn plan_floor(&mut self, id: MeasurementId, floor: Timestamp) -> Result<(), StorageError> {
        let measurement = self.existing(&id)?;
        let below = measurement.segments().filter(|segment| segment.times.end <= floor);
        let below: Vec<String> = below.map(|segment| segment.path.clone()).collect();
        let (kind, schema) = (measurement.kind(), Arc::clone(measurement.schema()));
        self.plan_definition(&id, kind, &schema)?;
        self.push(Edit::RaiseFloor { id: id.clone(), floor });
        for path in below {
            self.push(Edit::RemoveSegment { id: id.clone(), path });
        }
        self.remove_idle_tombstones(&id);
        Ok(())
    }

    fn plan_replacement(&mut self, replacement: &WrittenReplacement) -> Result<(), StorageError> {
        let WrittenReplacement { id, kind, schema, times, overwrites, segments } = replacement;
        self.plan_definition(id, *kind, schema)?;
        let overlapped = self.existing(id)?.segments().filter(|old| times.overlaps(old.times));
        let (whole, partly): (Vec<_>, Vec<_>) =
            overlapped.cloned().partition(|old| times.covers(old.times));
        if whole.iter().chain(&partly).any(|old| old.max_seq >= self.seq()) {
            let what = format!("one commit replaces a range of {id} twice; join the two");
            return Err(StorageError::Invalid(what));
        }
        let old = whole.iter().chain(&partly).map(|old| old.times);
        let touched: TimeRanges = old.chain(segments.iter().map(|new| new.times)).collect();
        let runs = granules(&touched.intersect(&times.union(overwrites)), self.seq());
        for old in whole {
            self.push(Edit::RemoveSegment { id: id.clone(), path: old.path.clone() });
        }
        if !partly.is_empty() {
            let hidden: TimeRanges = partly.iter().map(|old| old.times).collect();
            let times = hidden.intersect(times);
            let tombstone = Tombstone { seq: self.seq(), times, condition: Condition::All };
            let tombstone = Arc::new(tombstone);
            self.push(Edit::AddTombstone { id: id.clone(), tombstone });
        }
        for new in segments {
            let segment = Arc::new(new.meta(self.seq(), self.seq()));
            self.push(Edit::AddSegment { id: id.clone(), segment });
        }
        if !runs.is_empty() {
            self.push(Edit::TouchGranules { id: id.clone(), runs });
        }
        self.remove_idle_tombstones(id);
        Ok(())
    }
}

/// The whole granules that these times touch.
pub(crate) fn granules(
    times: &TimeRanges,
    seq: SequenceNumber,
) -> Vec<(TimeRange, SequenceNumber)> {
    let mut changes = ChangeMap::default();
    times.iter().for_each(|range| changes.touch(range, seq));
    changes.runs().collect()
}
