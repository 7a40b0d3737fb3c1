//! Execution plan of a scan of one measurement.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{
    ColumnStatistics, DataFusionError, Result, ScalarValue, Statistics, internal_err,
};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
};
use futures::{StreamExt, TryStreamExt, future};
use highwater_core::MeasurementId;
use highwater_core::schema::TIME_COLUMN;
use highwater_storage::{Scan, ScanRequest};

use crate::error::QueryError;

/// Reads the points of one measurement, deduplicated, in no particular order.
#[derive(Debug)]
pub(crate) struct MeasurementScanExec {
    id: MeasurementId,
    scan: Arc<Scan>,
    request: ScanRequest,
    schema: SchemaRef,
    /// Each partition may stop after this many rows.
    limit: Option<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl MeasurementScanExec {
    pub(crate) fn new(
        id: MeasurementId,
        scan: Scan,
        request: ScanRequest,
        schema: SchemaRef,
        limit: Option<usize>,
    ) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(scan.partitions()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        let metrics = ExecutionPlanMetricsSet::new();
        let scan = Arc::new(scan);
        MeasurementScanExec { id, scan, request, schema, limit, properties, metrics }
    }

    /// Bounds of the column, as far as the filter says.
    fn column_statistics(&self, name: &str) -> ColumnStatistics {
        let mut statistics = ColumnStatistics::new_unknown();
        if name == TIME_COLUMN
            && let Some(hull) = self.request.filter.times.hull()
        {
            let time = |nanos: i64| {
                Precision::Inexact(ScalarValue::TimestampNanosecond(Some(nanos), None))
            };
            statistics.min_value = time(hull.start.as_nanos());
            statistics.max_value = time(hull.end.as_nanos().saturating_sub(1));
            statistics.null_count = Precision::Exact(0);
        }
        statistics
    }
}

impl DisplayAs for MeasurementScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = self.scan.describe();
        write!(
            f,
            "MeasurementScan: {}, segments={} of {}, memtables={}, merges={}, rows<={}, times={}",
            self.id.measurement,
            about.segments,
            about.segments + about.pruned_segments,
            about.memtable_batches,
            about.merge_tasks,
            about.rows,
            self.request.filter.times
        )?;
        if self.request.only_last {
            write!(f, ", last points only")?;
        }
        if let Some(series) = &self.request.filter.series {
            write!(f, ", of {} series", series.len())?;
        }
        for (tag, values) in &self.request.filter.tags {
            write!(f, ", {tag}={values:?}")?;
        }
        match self.limit {
            Some(limit) => write!(f, ", limit={limit}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for MeasurementScanExec {
    fn name(&self) -> &str {
        "MeasurementScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("a scan has no inputs") }
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        if partition == 0 {
            let segments = MetricBuilder::new(&self.metrics).global_counter("segments");
            segments.add(self.scan.describe().segments);
        }
        let mut left = self.limit.unwrap_or(usize::MAX);
        let batches = self.scan.stream(partition);
        let batches = batches
            .map_err(|error| DataFusionError::from(QueryError::from(error)))
            .try_take_while(move |batch| {
                let wanted = left > 0;
                left = left.saturating_sub(batch.num_rows());
                future::ready(Ok(wanted))
            })
            .inspect_ok(move |batch| baseline.record_output(batch.num_rows()));
        let schema = Arc::clone(&self.schema);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches.boxed())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let rows = self.scan.describe().rows as usize;
        let parts = if args.partition().is_some() { self.scan.partitions() } else { 1 };
        let columns = self.schema.fields().iter();
        Ok(Arc::new(Statistics {
            num_rows: Precision::Inexact(rows / parts.max(1)),
            total_byte_size: Precision::Absent,
            column_statistics: columns.map(|f| self.column_statistics(f.name())).collect(),
        }))
    }
}

/// Rows that the scans of a plan have returned so far.
pub fn points_scanned(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let own = match plan.downcast_ref::<MeasurementScanExec>() {
        Some(scan) => scan.metrics.clone_inner().output_rows().unwrap_or(0) as u64,
        None => 0,
    };
    own + plan.children().into_iter().map(points_scanned).sum::<u64>()
}
