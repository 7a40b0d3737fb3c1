//! Exact answers: stored partials where they are fresh, partials of the source where they are
//! stale, as one logical plan.
//!
//! ```text
//!            finish ── one row per bucket and group
//!               │
//!             merge ── only where a bucket has several pieces
//!               │
//!             union
//!            ╱      ╲
//!   stored partials   partials computed from the source
//!   (fresh pieces)    (stale pieces: points, or the parent's partials, exact in turn)
//! ```
//!
//! Between the levels stand rows of partials, see [`materialization`](crate::materialization).

mod building;
mod ragged;
mod stored_rows;

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ident, lit};
use datafusion::scalar::ScalarValue;
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{
    Column, FieldType, MeasurementId, ScanFilter, SeriesRanges, TimeRange, TimeRanges, Timestamp,
};
use highwater_query::QuerySession;
use highwater_storage::Measurement;

use crate::applied::Applied;
use crate::catalog::{Aggregate, Catalog};
use crate::definition::{Resolved, SourceColumns};
use crate::error::AggregationError;
use crate::filter;
use crate::freshness::Tolerance;
use crate::materialization::{
    column_or_null, empty, field_column, group_column, is_partial, key_names, names, null_of,
    partial_name, rows_schema,
};
use crate::runtime::no_such;
use crate::staleness;
use crate::watermark;

pub(crate) use building::joined;
use building::{
    aggregated, finished, in_order, last_bucket_end, merged, merged_per_bucket, with_columns,
    with_starts,
};
pub(crate) use stored_rows::stored_rows;

/// Start of the piece, while `time` still means the time of a point.
const PIECE: &str = "start of piece";

/// Which rows of partials are wanted: whole pieces of the aggregate that asks first, of all groups
/// or of some.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    times: TimeRanges,
    series: Option<Arc<SeriesRanges>>,
}

impl Wanted {
    /// All groups.
    pub(crate) fn at(times: TimeRanges) -> Self {
        Wanted { times, series: None }
    }

    /// Just these groups in these pieces.
    pub(crate) fn of(series: Arc<SeriesRanges>) -> Self {
        Wanted { times: series.times(), series: Some(series) }
    }

    /// The same, no more than these times of it.
    fn within(&self, times: TimeRanges) -> Self {
        Wanted { times, series: self.series.clone() }
    }
}

/// Reads aggregates at the version that a session has pinned.
#[derive(Clone)]
pub(crate) struct Reader {
    session: QuerySession,
    catalog: Arc<Catalog>,
    trusts_stored: bool,
}

impl Reader {
    pub(crate) fn new(session: QuerySession, catalog: Arc<Catalog>) -> Self {
        Reader { session, catalog, trusts_stored: true }
    }

    /// The same, but whatever can be computed from points is: only what is sealed is taken as it
    /// is stored.
    pub(crate) fn distrusting(self) -> Self {
        Reader { trusts_stored: false, ..self }
    }

    pub(crate) fn trusts_stored(&self) -> bool {
        self.trusts_stored
    }

    pub(crate) fn session(&self) -> &QuerySession {
        &self.session
    }

    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Reads the same version as it will be once all shadows have replaced what they shadow.
    pub(crate) fn next(&self) -> Reader {
        Reader { catalog: Arc::clone(self.catalog.next()), ..self.clone() }
    }

    /// The aggregate of that name, and who reads it: one in force, or else a new one that is being
    /// built because its source is.
    pub(crate) fn find(&self, name: &str) -> Option<(Reader, Arc<Aggregate>)> {
        let readers = [self.clone(), self.next()].into_iter();
        let mut found = readers.filter_map(|reader| {
            let aggregate = Arc::clone(reader.catalog.get(name)?);
            Some((reader, aggregate))
        });
        found.next()
    }

    /// The aggregate of that name that is in force.
    ///
    /// # Errors
    /// If there is none, or it is being built for the first time.
    pub(crate) fn in_force(&self, name: &str) -> Result<&Arc<Aggregate>, AggregationError> {
        let none = || match self.catalog.shadow(name) {
            None => no_such(self, name),
            Some(_) => AggregationError::Conflict(format!(
                "{name} is being built, as its source changes; try again when it is done"
            )),
        };
        self.catalog.get(name).ok_or_else(none)
    }

    /// The measurement at the root of the aggregate's chain, if points were ever written to it.
    pub(crate) fn root(&self, aggregate: &Aggregate) -> Option<&Arc<Measurement>> {
        self.session.version().measurement(&aggregate.definition.root)
    }

    /// Group columns and outputs with their types, as far as the source is known by now.
    pub(crate) fn resolve(&self, aggregate: &Aggregate) -> Result<Resolved, AggregationError> {
        let definition = &aggregate.definition;
        Ok(match self.catalog.parent(aggregate) {
            Some(parent) => definition.resolve(SourceColumns::Partials(&self.resolve(parent)?))?,
            None => {
                let nothing = Arc::default();
                let now = || self.root(aggregate).map_or(&nothing, |root| root.schema());
                let schema = aggregate.document.root_columns.as_ref().unwrap_or_else(now);
                definition.resolve(SourceColumns::Points(schema))?
            }
        })
    }

    /// Before this instant the source cannot be read any more: stored pieces there are sealed.
    pub(crate) fn sealed_before(&self, aggregate: &Aggregate) -> Timestamp {
        match self.catalog.parent(aggregate) {
            Some(parent) => self.floor(&parent.stored()).min(self.sealed_before(parent)),
            None => self.floor(&aggregate.definition.root),
        }
    }

    /// Before this instant the rows of a measurement are gone for good.
    pub(crate) fn floor(&self, id: &MeasurementId) -> Timestamp {
        let measurement = self.session.version().measurement(id);
        measurement.map_or(TimeRange::ALL.start, |measurement| measurement.floor())
    }

    /// The times that the aggregate's own retention keeps: from the bucket that holds the horizon.
    pub(crate) fn kept(&self, aggregate: &Aggregate) -> TimeRanges {
        let Some(keep) = aggregate.definition.retention else { return TimeRanges::all() };
        let horizon = keep.before(self.session.now());
        TimeRange::since(aggregate.definition.pieces.piece_of(horizon).start).into()
    }

    /// The whole pieces within `times` whose stored partials, if any, do not reflect the source.
    pub(crate) fn stale(&self, aggregate: &Aggregate, times: &TimeRanges) -> TimeRanges {
        self.stale_under(aggregate, &aggregate.progress.applied, times)
    }

    /// The same if `applied` were stored.
    pub(crate) fn stale_under(
        &self,
        aggregate: &Aggregate,
        applied: &Applied,
        times: &TimeRanges,
    ) -> TimeRanges {
        let Some(root) = self.root(aggregate) else { return TimeRanges::none() };
        let Some(within) = times.hull() else { return TimeRanges::none() };
        let pieces = aggregate.definition.pieces;
        let sealed_before = self.sealed_before(aggregate);
        let stale = staleness::stale(root.changes(), applied, pieces, within, sealed_before);
        stale.intersect(&pieces.round_out_all(times))
    }

    /// The live pieces without any point in the buckets that `times` touch, as far as they are not
    /// covered yet. Nothing has to be computed for them, but only with them a bucket is whole.
    pub(crate) fn empty_beside(&self, aggregate: &Aggregate, times: &TimeRanges) -> TimeRanges {
        let pieces = aggregate.definition.pieces;
        let Some(bucket) = pieces.bucket().filter(|_| !pieces.are_buckets()) else {
            return TimeRanges::none();
        };
        let buckets: TimeRanges = times.iter().map(|range| bucket.round_out(range)).collect();
        let live = TimeRange::since(self.sealed_before(aggregate));
        let live = buckets.iter().map(|range| range.intersect(live)).collect::<TimeRanges>();
        live.subtract(&aggregate.progress.applied.covered()).subtract(&self.stale(aggregate, &live))
    }

    /// What is stored, less the buckets of which only a part is. What has expired is no part of a
    /// bucket any more.
    fn whole_buckets(&self, aggregate: &Aggregate) -> TimeRanges {
        let covered = aggregate.progress.applied.covered();
        let pieces = aggregate.definition.pieces;
        let is_cut = !pieces.are_buckets() && aggregate.definition.time_column.is_none();
        let Some(bucket) = pieces.bucket().filter(|_| is_cut) else { return covered };
        let sealed_before = self.sealed_before(aggregate);
        let gone = TimeRange::new(bucket.start_of(sealed_before), sealed_before);
        let whole = |range: TimeRange| {
            let first = bucket.range_of(range.start);
            let start = if first.start == range.start { first.start } else { first.end };
            TimeRange::new(start, bucket.start_of(range.end))
        };
        covered.union(&gone.into()).iter().map(whole).collect()
    }

    /// End of the last closed bucket; `None` for an aggregate that is kept by days.
    pub(crate) fn closing(&self, aggregate: &Aggregate) -> Option<Timestamp> {
        let definition = &aggregate.definition;
        let bucket = definition.pieces.bucket()?;
        Some(watermark::closing(bucket, self.session.now(), definition.allowed_lateness))
    }

    /// Where the watermark would stand if nothing but `stale` were missing.
    pub(crate) fn watermark(&self, aggregate: &Aggregate, stale: &TimeRanges) -> Option<Timestamp> {
        let definition = &aggregate.definition;
        let grid = definition.pieces.grid();
        let closing = self.closing(aggregate).unwrap_or_else(|| {
            watermark::closing(grid, self.session.now(), definition.allowed_lateness)
        });
        let first = self.root(aggregate).and_then(|root| root.changes().hull());
        let earliest = first.map(|hull| hull.start);
        watermark::advance(grid, aggregate.progress.last_processed, earliest, stale, closing)
    }

    /// The wanted partials of `outputs`, exact at the pinned version.
    pub(crate) fn partials(
        &self,
        aggregate: &Aggregate,
        resolved: &Resolved,
        outputs: &[usize],
        wanted: &Wanted,
    ) -> Result<LogicalPlan, AggregationError> {
        self.partials_within(aggregate, resolved, outputs, wanted, Tolerance::Exact)
    }

    /// The same, with what may be used of what is stored.
    fn partials_within(
        &self,
        aggregate: &Aggregate,
        resolved: &Resolved,
        outputs: &[usize],
        wanted: &Wanted,
        tolerance: Tolerance,
    ) -> Result<LogicalPlan, AggregationError> {
        let times = aggregate.definition.pieces.round_out_all(&wanted.times);
        let stale = self.not_fresh(aggregate, &times, tolerance);
        let fresh = aggregate.progress.applied.covered().intersect(&times).subtract(&stale);
        if stale.is_empty() {
            return self.stored(aggregate, resolved, outputs, &wanted.within(fresh));
        }
        let computed = self.computed(aggregate, resolved, outputs, &wanted.within(stale))?;
        if fresh.is_empty() {
            return Ok(computed);
        }
        let stored = self.stored(aggregate, resolved, outputs, &wanted.within(fresh))?;
        Ok(LogicalPlanBuilder::new(stored).union(computed)?.build()?)
    }

    /// The wanted partials that are stored, fresh or not.
    pub(crate) fn stored(
        &self,
        aggregate: &Aggregate,
        resolved: &Resolved,
        outputs: &[usize],
        wanted: &Wanted,
    ) -> Result<LogicalPlan, AggregationError> {
        let schema = rows_schema(aggregate, resolved);
        let Some(stored) = self.session.version().measurement(&aggregate.stored()) else {
            let outputs = outputs.iter().map(|&at| resolved.outputs[at].name.as_ref());
            return empty(&schema, &outputs.collect());
        };
        let source = self.scan(stored.id(), wanted)?;
        let names: BTreeSet<&str> =
            outputs.iter().map(|&at| resolved.outputs[at].name.as_ref()).collect();
        let columns = schema
            .columns()
            .filter(|column| !is_partial(column) || names.contains(&*column.name))
            .map(|column| column_or_null(stored.schema(), &column));
        let time = ident(TIME_COLUMN).alias(TIME_COLUMN);
        Ok(source.project(std::iter::once(time).chain(columns).collect::<Vec<_>>())?.build()?)
    }

    /// The wanted partials (whole pieces), computed from the source.
    pub(crate) fn computed(
        &self,
        aggregate: &Aggregate,
        resolved: &Resolved,
        outputs: &[usize],
        wanted: &Wanted,
    ) -> Result<LogicalPlan, AggregationError> {
        let (source, partials): (LogicalPlanBuilder, Vec<Expr>) =
            match self.catalog.parent(aggregate) {
                Some(parent) => {
                    let source = self.parts_of_parent(parent, resolved, outputs, wanted)?;
                    let merged = outputs.iter().map(|&at| merged(&resolved.outputs[at]));
                    (source, merged.collect())
                }
                None => match self.root(aggregate) {
                    None => {
                        return empty(&rows_schema(aggregate, resolved), &names(resolved, outputs));
                    }
                    Some(root) => {
                        let source = self.points(root, resolved, outputs, wanted)?;
                        let fresh = outputs.iter().map(|&at| aggregated(&resolved.outputs[at]));
                        (source, fresh.collect())
                    }
                },
            };
        let source = self.filtered(source, aggregate.definition.filter.as_deref())?;
        let source = with_starts(source, aggregate)?;
        let keys: Vec<Expr> = key_names(aggregate, resolved).map(ident).collect();
        let pieces = std::iter::once(ident(PIECE)).chain(keys);
        let grouped = source.aggregate(pieces.collect::<Vec<_>>(), partials)?;
        in_order(grouped, PIECE, aggregate, resolved, outputs)
    }

    /// The points of the root measurement with every column that the aggregate reads.
    fn points(
        &self,
        root: &Measurement,
        resolved: &Resolved,
        outputs: &[usize],
        wanted: &Wanted,
    ) -> Result<LogicalPlanBuilder, AggregationError> {
        let source = self.scan(root.id(), wanted)?;
        let schema = root.schema();
        let groups = resolved.groups.iter().map(group_column);
        let fields = outputs.iter().filter_map(|&at| field_column(&resolved.outputs[at]));
        let missing: BTreeSet<Arc<str>> = groups
            .clone()
            .chain(fields.clone())
            .map(|column| column.name)
            .filter(|name| schema.column(name).is_none())
            .collect();
        let nulls = groups.chain(fields).filter(|column| missing.contains(&column.name));
        let mut seen = BTreeSet::new();
        let nulls: Vec<Expr> = nulls
            .filter(|column| seen.insert(Arc::clone(&column.name)))
            .map(|column| null_of(&column))
            .collect();
        with_columns(source, nulls)
    }

    /// The exact partials of the parent that `outputs` are merged from.
    fn parts_of_parent(
        &self,
        parent: &Aggregate,
        resolved: &Resolved,
        outputs: &[usize],
        wanted: &Wanted,
    ) -> Result<LogicalPlanBuilder, AggregationError> {
        let parents = self.resolve(parent)?;
        let merged: BTreeSet<&str> =
            outputs.iter().filter_map(|&at| resolved.outputs[at].merges.as_deref()).collect();
        let is_merged = |at: &usize| merged.contains(&*parents.outputs[*at].name);
        let needed: Vec<usize> = (0..parents.outputs.len()).filter(is_merged).collect();
        let plan = LogicalPlanBuilder::new(self.partials(parent, &parents, &needed, wanted)?);
        let has = |name: &str| plan.schema().has_column_with_unqualified_name(name);
        let groups = resolved.groups.iter().map(group_column);
        let merges = outputs.iter().filter_map(|&at| {
            let name = resolved.outputs[at].merges.clone()?;
            Some(Column::field(name, FieldType::Partial))
        });
        let mut seen = BTreeSet::new();
        let missing: Vec<Expr> = groups
            .chain(merges)
            .filter(|column| !has(&column.name) && seen.insert(Arc::clone(&column.name)))
            .map(|column| null_of(&column))
            .collect();
        with_columns(plan, missing)
    }

    /// Keeps the rows for which the condition of a rule holds. A column that the points do not
    /// have (yet) is NULL.
    fn filtered(
        &self,
        source: LogicalPlanBuilder,
        condition: Option<&str>,
    ) -> Result<LogicalPlanBuilder, AggregationError> {
        let Some(text) = condition else { return Ok(source) };
        let state = self.session.state();
        let missing: Vec<Expr> = filter::columns(&state, text)?
            .into_iter()
            .filter(|name| !source.schema().has_column_with_unqualified_name(name))
            .map(|name| lit(ScalarValue::Null).alias(name))
            .collect();
        let source = with_columns(source, missing)?;
        let condition = state.create_logical_expr(text, source.schema())?;
        Ok(source.filter(condition)?)
    }

    /// One row per bucket and group: `time` (start of the bucket; none for a keyed aggregate), the
    /// group columns, the finished outputs, then the hidden columns with the partials of those in
    /// `partials` (a part of `outputs`); all buckets that touch `times`, at least.
    pub(crate) fn finished(
        &self,
        aggregate: &Aggregate,
        outputs: &[usize],
        partials: &[usize],
        times: &TimeRanges,
        tolerance: Tolerance,
    ) -> Result<LogicalPlan, AggregationError> {
        let resolved = self.resolve(aggregate)?;
        let definition = &aggregate.definition;
        let grid = definition.pieces;
        let whole = |range: TimeRange| match definition.time_column {
            None => TimeRange::new(grid.bucket_of(range.start).start, last_bucket_end(grid, range)),
            Some(_) => TimeRange::ALL,
        };
        let times: TimeRanges = times.iter().map(whole).collect();
        let times = times.intersect(&self.kept(aggregate));
        let rows = match tolerance {
            Tolerance::Exact | Tolerance::MissingYounger(_) => {
                self.partials_within(aggregate, &resolved, outputs, &Wanted::at(times), tolerance)?
            }
            Tolerance::Stored => {
                let shown = self.whole_buckets(aggregate).intersect(&times);
                self.stored(aggregate, &resolved, outputs, &Wanted::at(shown))?
            }
        };
        let merged = merged_per_bucket(aggregate, rows, &resolved, outputs)?;
        let time = definition.has_time().then(|| ident(TIME_COLUMN));
        let groups = resolved.groups.iter().map(|group| ident(&*group.name));
        let labels: Vec<Expr> = time.into_iter().chain(groups).collect();
        let values = outputs.iter().map(|&at| {
            let output = &resolved.outputs[at];
            let value = finished(output, &labels);
            Ok(self.where_valid(aggregate, output, value)?.alias(&*output.name))
        });
        let values = values.collect::<Result<Vec<Expr>, AggregationError>>()?;
        let partials = partials.iter().map(|&at| {
            let output = &resolved.outputs[at];
            let partial = self.where_valid(aggregate, output, ident(&*output.name))?;
            Ok(partial.alias(partial_name(&output.name)))
        });
        let partials = partials.collect::<Result<Vec<Expr>, AggregationError>>()?;
        let columns: Vec<Expr> = labels.iter().cloned().chain(values).chain(partials).collect();
        Ok(merged.project(columns)?.build()?)
    }

    /// The wanted rows of a measurement, expired or not.
    fn scan(
        &self,
        id: &MeasurementId,
        wanted: &Wanted,
    ) -> Result<LogicalPlanBuilder, AggregationError> {
        let limits =
            ScanFilter { series: wanted.series.clone(), ..ScanFilter::at(wanted.times.clone()) };
        let table = self.session.measurement_table(id, limits)?;
        let name = TableReference::bare(Arc::clone(&id.measurement));
        Ok(LogicalPlanBuilder::scan(name, provider_as_source(table), None)?)
    }
}
