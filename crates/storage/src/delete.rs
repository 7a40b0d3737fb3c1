//! Deletes: a tombstone that hides rows, and the granules that lose some.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::compute::filter_record_batch;
use futures::TryStreamExt;
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{
    Column, ColumnRole, Condition, FieldValue, MeasurementId, PointSet, ScanFilter, Schema,
    SequenceNumber, TimeRange, TimeRanges, Timestamp,
};
use tracing::instrument;

use crate::changes::ChangeMap;
use crate::commit::{Commit, PreparedCommit, granules};
use crate::committer::Request;
use crate::engine::Engine;
use crate::error::StorageError;
use crate::manifest::{Edit, MeasurementKind, Tombstone};
use crate::planned::Planned;
use crate::scan::ScanRequest;
use crate::scan::condition::{collect_columns, evaluate};
use crate::segment::SegmentStore;
use crate::segment::sort::times_of;
use crate::version::{Measurement, Version};

/// Deepest nesting of a condition; alternatives in a row count once.
const MAX_CONDITION_DEPTH: usize = 48;

/// A delete that knows which granules lose rows, as of the version it was prepared on.
#[derive(Clone, Debug)]
pub(crate) struct Delete {
    pub(crate) id: MeasurementId,
    pub(crate) condition: Condition,
    /// Outside of these the condition never holds.
    pub(crate) times: TimeRanges,
    pub(crate) touched: TimeRanges,
    pub(crate) prepared_at: SequenceNumber,
    /// What had expired then; where more has, somebody else has to be asked again.
    pub(crate) floor: Timestamp,
}

/// What goes in the commit of a delete beside points.
#[derive(Debug, Default)]
pub struct TakenAlong {
    /// Rows of materializations.
    pub rows: Vec<DerivedRows>,
    /// Times that count as touched although their points have expired.
    pub touched: TimeRanges,
    /// What else is committed, if anything goes.
    pub commit: Commit,
}

/// Rows of one materialization.
#[derive(Clone, Debug)]
pub struct DerivedRows {
    /// Which materialization.
    pub id: MeasurementId,
    /// Only rows with a time in here.
    pub times: TimeRanges,
    /// Only rows for which this holds. It names tags that all of them have, or had no value of.
    pub condition: Condition,
}

/// What the commit of a delete records.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedDelete {
    pub(crate) tombstone: Arc<Tombstone>,
    pub(crate) touched: TimeRanges,
}

/// Finds the granules with matching rows.
///
/// # Errors
/// [`StorageError::Invalid`] if the condition is none a delete can have, and errors of reading.
pub(crate) async fn prepare_delete(
    version: &Version,
    id: &MeasurementId,
    condition: Condition,
) -> Result<Delete, StorageError> {
    let measurement = deletable(version, id)?;
    let condition = condition.flattened();
    check_depth(&condition)?;
    let mut columns = BTreeSet::from([Arc::from(TIME_COLUMN)]);
    check_condition(&condition, measurement, &mut columns)?;
    let times = condition.times();
    let filter = ScanFilter::at(times.clone());
    let request = ScanRequest::new(columns.into_iter().collect(), filter);
    let mut touched = ChangeMap::default();
    let mut rows = measurement.scan(&request)?.stream(0);
    while let Some(batch) = rows.try_next().await? {
        let matching = filter_record_batch(&batch, &evaluate(&condition, &batch)?)?;
        touched.touch_times(times_of(&matching)?, version.seq());
    }
    let touched = touched.runs().map(|(granules, _)| granules).collect();
    let (prepared_at, floor) = (version.seq(), measurement.floor());
    Ok(Delete { id: id.clone(), condition, times, touched, prepared_at, floor })
}

/// A delete of points that a reader of the version has found.
///
/// # Errors
/// [`StorageError::Invalid`] if the measurement lacks one of their tags.
pub(crate) fn prepare_delete_of_points(
    version: &Version,
    id: &MeasurementId,
    points: PointSet,
) -> Result<Delete, StorageError> {
    let (times, touched) = (points.days(), points.minutes());
    let condition = Condition::Points(Arc::new(points));
    let measurement = deletable(version, id)?;
    check_condition(&condition, measurement, &mut BTreeSet::new())?;
    let (prepared_at, floor) = (version.seq(), measurement.floor());
    Ok(Delete { id: id.clone(), condition, times, touched, prepared_at, floor })
}

/// Adds what was written since the delete was prepared. `None` if there is nothing to hide.
///
/// # Errors
/// [`StorageError::NoSuchMeasurement`] if it has been dropped since; [`StorageError::Conflict`] if
/// points that it reaches have expired since, or points are named one by one and some near them
/// have changed since.
pub(crate) fn resolve_delete(
    version: &Version,
    delete: &Delete,
    seq: SequenceNumber,
) -> Result<Option<ResolvedDelete>, StorageError> {
    let measurement = deletable(version, &delete.id)?;
    let expired = TimeRange::before(measurement.floor());
    if measurement.floor() > delete.floor && delete.times.overlaps(expired) {
        return Err(StorageError::Conflict { what: format!("points of {}", delete.id) });
    }
    let since = |range| measurement.changes().touched_after(delete.prepared_at, range);
    let mut touched = delete.touched.clone();
    if let Condition::Points(_) = delete.condition {
        if touched.iter().any(|range| !since(range).is_empty()) {
            return Err(StorageError::Conflict { what: format!("points of {}", delete.id) });
        }
    } else {
        touched = delete.times.iter().fold(touched, |all, range| all.union(&since(range)));
    }
    if touched.is_empty() {
        return Ok(None);
    }
    let (times, condition) = (delete.times.clone(), delete.condition.clone());
    let tombstone = Arc::new(Tombstone { seq, times, condition });
    Ok(Some(ResolvedDelete { tombstone, touched }))
}

/// The edits of a delete that takes more along than points, as the commit `seq`; none if there is
/// nothing to hide anywhere.
///
/// # Errors
/// Those of [`resolve_delete`], and [`StorageError::NoSuchMeasurement`] if a materialization has
/// gone since.
pub(crate) fn plan_delete(
    delete: &Delete,
    (rows, touched): (&[DerivedRows], &TimeRanges),
    beside: PreparedCommit,
    version: &Version,
    seq: SequenceNumber,
    store: &Arc<SegmentStore>,
) -> Result<Vec<Edit>, StorageError> {
    let mut planned = Planned::new(version, seq, store);
    let resolved = resolve_delete(version, delete, seq)?;
    let of_points = resolved.map_or_else(TimeRanges::none, |resolved| resolved.touched);
    let touched = of_points.union(touched);
    if touched.is_empty() && rows.is_empty() {
        return Ok(Vec::new());
    }
    let schema = Arc::clone(planned.existing(&delete.id)?.schema());
    planned.plan_definition(&delete.id, MeasurementKind::Points, &schema)?;
    let (times, condition) = (delete.times.clone(), delete.condition.clone());
    planned.hide(&delete.id, Tombstone { seq, times, condition }, &touched);
    for DerivedRows { id, times, condition } in rows {
        let stored = planned.existing(id)?;
        let kind = stored.kind();
        let held = stored.segments().map(|segment| segment.times).collect::<TimeRanges>();
        let touched = held.intersect(times);
        let mut columns = BTreeSet::new();
        collect_columns(condition, &mut columns);
        let tags = Schema::of(columns.into_iter().map(Column::tag));
        planned.plan_definition(id, kind, &tags)?;
        let (times, condition) = (times.clone(), condition.clone());
        planned.hide(id, Tombstone { seq, times, condition }, &touched);
    }
    beside.plan(version, &mut planned)?;
    Ok(planned.into_edits())
}

impl Engine {
    /// Removes the points of a measurement for which the condition holds, those written after the
    /// version was seen too, and returns the commit that did; the newest commit there was if no
    /// point matched.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if the condition names a field or an unknown column,
    /// [`StorageError::NoSuchMeasurement`], and errors of reading. [`StorageError::Conflict`] if
    /// points that it reaches have expired since that version: look again.
    #[instrument(skip_all, fields(measurement = %id))]
    pub async fn delete(
        &self,
        seen: &Version,
        id: &MeasurementId,
        condition: Condition,
    ) -> Result<SequenceNumber, StorageError> {
        let delete = prepare_delete(seen, id, condition).await?;
        self.request(|reply| Request::Delete(delete, reply)).await
    }

    /// [`Engine::delete`] that takes more along than points, all of it or nothing.
    ///
    /// # Errors
    /// Those of [`Engine::delete`].
    #[instrument(skip_all, fields(measurement = %id))]
    pub async fn delete_with(
        &self,
        seen: &Version,
        id: &MeasurementId,
        condition: Condition,
        along: TakenAlong,
    ) -> Result<SequenceNumber, StorageError> {
        let delete = prepare_delete(seen, id, condition).await?;
        self.flush_before_commit().await?;
        let TakenAlong { rows, touched, commit } = along;
        let store = Arc::clone(&self.shared().segments);
        let prepared = PreparedCommit::write(commit, &store).await?;
        let paths = prepared.paths();
        let plan = Box::new(move |version: &Version, seq| {
            plan_delete(&delete, (&rows, &touched), prepared, version, seq, &store)
        });
        Ok(self.edit_adding(paths, plan).await?.seq())
    }

    /// Removes points that were found in a version, and returns the commit that did; the newest
    /// commit there was if there are none.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] if points in the same minutes have changed since that version:
    /// look again. Otherwise those of [`Engine::delete`].
    #[instrument(skip_all, fields(measurement = %id))]
    pub async fn delete_points(
        &self,
        seen: &Version,
        id: &MeasurementId,
        points: PointSet,
    ) -> Result<SequenceNumber, StorageError> {
        let delete = prepare_delete_of_points(seen, id, points)?;
        self.request(|reply| Request::Delete(delete, reply)).await
    }
}

impl Planned<'_> {
    /// Adds a tombstone, for as long as there is something for it to hide.
    fn hide(&mut self, id: &MeasurementId, tombstone: Tombstone, touched: &TimeRanges) {
        let runs = granules(touched, tombstone.seq);
        self.push(Edit::AddTombstone { id: id.clone(), tombstone: Arc::new(tombstone) });
        if !runs.is_empty() {
            self.push(Edit::TouchGranules { id: id.clone(), runs });
        }
        self.remove_idle_tombstones(id);
    }
}

/// A condition is written as JSON, whose parsers give up on what is nested too deep.
fn check_depth(condition: &Condition) -> Result<(), StorageError> {
    if depth(condition) <= MAX_CONDITION_DEPTH {
        return Ok(());
    }
    let text =
        format!("a condition of a delete is nested at most {MAX_CONDITION_DEPTH} levels deep");
    Err(StorageError::Invalid(text))
}

fn depth(condition: &Condition) -> usize {
    match condition {
        Condition::All
        | Condition::Compare { .. }
        | Condition::IsNull(_)
        | Condition::Points(_) => 1,
        Condition::Not(inner) => 1 + depth(inner),
        Condition::And(parts) | Condition::Or(parts) => {
            1 + parts.iter().map(depth).max().unwrap_or(0)
        }
    }
}

fn deletable<'a>(
    version: &'a Version,
    id: &MeasurementId,
) -> Result<&'a Arc<Measurement>, StorageError> {
    let found = version.measurement(id);
    let measurement = found.ok_or_else(|| StorageError::NoSuchMeasurement(id.clone()))?;
    if measurement.kind() != MeasurementKind::Points {
        let text = format!("{id} holds the results of an aggregate; delete from its source");
        return Err(StorageError::Invalid(text));
    }
    Ok(measurement)
}

/// Collects the columns of a condition.
///
/// # Errors
/// [`StorageError::Invalid`] if one is a field or unknown, or is compared with a value of another
/// type.
fn check_condition(
    condition: &Condition,
    measurement: &Measurement,
    columns: &mut BTreeSet<Arc<str>>,
) -> Result<(), StorageError> {
    match condition {
        Condition::All => Ok(()),
        Condition::Not(inner) => check_condition(inner, measurement, columns),
        Condition::And(parts) | Condition::Or(parts) => {
            parts.iter().try_for_each(|part| check_condition(part, measurement, columns))
        }
        Condition::IsNull(column) => check_column(column, None, measurement, columns),
        Condition::Compare { column, value, .. } => {
            check_column(column, Some(value), measurement, columns)
        }
        Condition::Points(points) => {
            points.tags().iter().try_for_each(|tag| check_column(tag, None, measurement, columns))
        }
    }
}

fn check_column(
    column: &Arc<str>,
    value: Option<&FieldValue>,
    measurement: &Measurement,
    columns: &mut BTreeSet<Arc<str>>,
) -> Result<(), StorageError> {
    let name = &measurement.id().measurement;
    let is_time = **column == *TIME_COLUMN;
    let problem = match (measurement.schema().column(column).map(|found| found.role), value) {
        (_, None | Some(FieldValue::Timestamp(_))) if is_time => None,
        (_, Some(_)) if is_time => Some(format!("{column} is compared with something else")),
        (Some(ColumnRole::Tag), None | Some(FieldValue::String(_))) => None,
        (Some(ColumnRole::Tag), Some(_)) => {
            Some(format!("{column} is a tag, so it is compared with a string"))
        }
        (Some(ColumnRole::Field(_)), _) => {
            Some(format!("{column} is a field; points are chosen by time and tags only"))
        }
        (None, _) => Some(format!("{name} has no column {column}")),
    };
    match problem {
        Some(problem) => {
            Err(StorageError::Invalid(format!("cannot delete from {name}: {problem}")))
        }
        None => {
            columns.insert(Arc::clone(column));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_may_be_wide_but_not_deep() {
        let is_null = || Condition::IsNull("host".into());
        let wide = (0..500).fold(is_null(), |chain, _| Condition::Or(vec![chain, is_null()]));
        assert!(check_depth(&wide).is_err());
        assert!(check_depth(&wide.flattened()).is_ok());
        let deep = (0..48).fold(is_null(), |inner, _| Condition::Not(Box::new(inner)));
        assert!(check_depth(&deep.flattened()).is_err());
    }
}
