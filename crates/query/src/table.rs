//! A measurement as a table.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use highwater_core::{Column, MeasurementId, ScanFilter, Schema, SequenceNumber, TimeRanges};
use highwater_storage::{Measurement, ScanRequest};

use crate::error::QueryError;
use crate::pushdown::{prune, prune_all};
use crate::scan_exec::MeasurementScanExec;
use crate::session::QuerySession;

/// One measurement of the session's version, limited to some times and series.
///
/// Columns: `time` (Timestamp(ns), not null), one `Dictionary(Int32, Utf8)` per tag, by name, one
/// column per field. No duplicate (series, `time`) if it holds points. In no particular order.
#[derive(Debug)]
pub struct MeasurementTable {
    session: QuerySession,
    measurement: Arc<Measurement>,
    limits: ScanFilter,
    schema: SchemaRef,
    /// Rows that are none of the last points of their series may be left out.
    only_last: bool,
    /// Whether a question over it may be answered from elsewhere.
    is_replaceable: bool,
}

impl MeasurementTable {
    pub(crate) fn new(
        session: QuerySession,
        measurement: Arc<Measurement>,
        limits: ScanFilter,
    ) -> Self {
        let (mut tags, fields): (Vec<_>, Vec<_>) =
            measurement.schema().columns().partition(Column::is_tag);
        tags.sort_by(|a, b| a.name.cmp(&b.name));
        let schema = Schema::of(tags.into_iter().chain(fields)).arrow();
        let (only_last, is_replaceable) = (false, false);
        MeasurementTable { session, measurement, limits, schema, only_last, is_replaceable }
    }

    /// The same table, which a rule may replace by what gives the same answer with less work. So
    /// are only those that a query names itself: what layers above read is read as they say.
    pub(crate) fn replaceable(self) -> Self {
        MeasurementTable { is_replaceable: true, ..self }
    }

    /// Whether a question over it may be answered from elsewhere.
    pub fn is_replaceable(&self) -> bool {
        self.is_replaceable
    }

    /// The same table, which may leave out rows that are none of the last points of their series;
    /// `None` if this is one.
    pub(crate) fn only_last(&self) -> Option<Self> {
        let table = || MeasurementTable {
            session: self.session.clone(),
            measurement: Arc::clone(&self.measurement),
            limits: self.limits.clone(),
            schema: Arc::clone(&self.schema),
            only_last: true,
            is_replaceable: self.is_replaceable,
        };
        (!self.only_last).then(table)
    }

    /// The session that reads.
    pub fn session(&self) -> &QuerySession {
        &self.session
    }

    /// Which measurement this is.
    pub fn id(&self) -> &MeasurementId {
        self.measurement.id()
    }

    /// The measurement in the session's version.
    pub fn measurement(&self) -> &Arc<Measurement> {
        &self.measurement
    }

    /// Only points in here are seen.
    pub fn times(&self) -> &TimeRanges {
        &self.limits.times
    }
}

#[async_trait]
impl TableProvider for MeasurementTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let schema = self.measurement.schema();
        Ok(filters.iter().map(|filter| prune(filter, schema).pushdown()).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut filter = prune_all(filters, self.measurement.schema()).into_scan_filter();
        filter.times = filter.times.intersect(&self.limits.times);
        filter.tags.extend(self.limits.tags.iter().cloned());
        filter.series.clone_from(&self.limits.series);
        let all: Vec<usize>;
        let projection = match projection {
            Some(columns) => columns,
            None => {
                all = (0..self.schema.fields().len()).collect();
                &all
            }
        };
        let names = projection.iter().map(|i| Arc::from(self.schema.field(*i).name().as_str()));
        let request = ScanRequest {
            columns: names.collect(),
            filter,
            newer_than: SequenceNumber::ZERO,
            only_last: self.only_last,
            partitions: state.config().target_partitions(),
        };
        let scan = self.measurement.scan(&request).map_err(QueryError::from)?;
        let schema = Arc::new(self.schema.project(projection)?);
        Ok(Arc::new(MeasurementScanExec::new(self.id().clone(), scan, request, schema, limit)))
    }
}
