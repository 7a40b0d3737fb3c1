//! Execution of [`GapFill`]: rows for the buckets that hold no points.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, RecordBatch, TimestampNanosecondArray, UInt32Array,
};
use arrow::compute::{cast, concat_batches, partition, take};
use arrow::datatypes::{DataType, Float64Type, SchemaRef, TimestampNanosecondType};
use async_trait::async_trait;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result, internal_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr,
    PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, Partitioning,
    PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, TryStreamExt, stream};
use highwater_core::{Bucket, TimeRange};

use crate::rules::gapfill::{Fill, GapFill};

/// Plans [`GapFill`].
#[derive(Debug)]
pub(crate) struct GapFillPlanner;

#[async_trait]
impl ExtensionPlanner for GapFillPlanner {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &dyn datafusion::catalog::Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<GapFill>() else { return Ok(None) };
        let [input] = inputs else { return internal_err!("GapFill has one input") };
        let schema: &DFSchema = datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(node);
        let shape = Shape {
            time: node.time,
            group_columns: node.group_columns,
            bucket: node.bucket,
            range: node.range,
            fills: node.fills.clone(),
            schema: Arc::new(schema.as_arrow().clone()),
        };
        Ok(Some(Arc::new(GapFillExec::new(Arc::clone(input), shape))))
    }
}

/// What is filled, and how; see [`GapFill`].
#[derive(Clone, Debug)]
struct Shape {
    time: usize,
    group_columns: usize,
    bucket: Bucket,
    range: TimeRange,
    fills: Vec<(usize, Fill)>,
    schema: SchemaRef,
}

#[derive(Debug)]
struct GapFillExec {
    input: Arc<dyn ExecutionPlan>,
    shape: Shape,
    properties: Arc<PlanProperties>,
}

impl GapFillExec {
    fn new(input: Arc<dyn ExecutionPlan>, shape: Shape) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&shape.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        ));
        GapFillExec { input, shape, properties }
    }
}

impl DisplayAs for GapFillExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GapFillExec: every {} of {}", self.shape.bucket, self.shape.range)
    }
}

impl ExecutionPlan for GapFillExec {
    fn name(&self) -> &str {
        "GapFillExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let schema = self.input.schema();
        let keys = (0..self.shape.group_columns).filter(|column| *column != self.shape.time);
        let order = keys.chain([self.shape.time]).map(|column| {
            let name = schema.field(column).name();
            PhysicalSortExpr::new_default(
                Arc::new(Column::new(name, column)) as Arc<dyn PhysicalExpr>
            )
        });
        vec![LexOrdering::new(order).map(OrderingRequirements::from)]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(GapFillExec::new(input, self.shape.clone()))),
            None => internal_err!("GapFillExec has one input"),
        }
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(0, Arc::clone(&context))?;
        let shape = self.shape.clone();
        let reservation = MemoryConsumer::new("GapFill").register(context.memory_pool());
        let batch_size = context.session_config().batch_size();
        let filled = async move {
            let mut batches = Vec::new();
            while let Some(batch) = input.next().await {
                let batch = batch?;
                reservation.try_grow(batch.get_array_memory_size())?;
                batches.push(batch);
            }
            let rows = concat_batches(&input.schema(), &batches)?;
            let filled = shape.fill(&rows)?;
            reservation.try_resize(filled.get_array_memory_size())?;
            let slices = (0..filled.num_rows()).step_by(batch_size).map(move |from| {
                let rows = batch_size.min(filled.num_rows() - from);
                Ok(filled.slice(from, rows))
            });
            // The reservation lives as long as the rows do.
            Ok::<_, datafusion::error::DataFusionError>(stream::iter(slices).map(move |batch| {
                let _held = &reservation;
                batch
            }))
        };
        let stream = stream::once(filled).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.shape.schema), stream)))
    }
}

/// Where each row of the output comes from.
#[derive(Default)]
struct Rows {
    times: Vec<i64>,
    /// A row of the same group.
    group: Vec<Option<u32>>,
    /// The row itself; `None` in a gap.
    own: Vec<Option<u32>>,
    /// The last row of the group that is not a gap.
    before: Vec<Option<u32>>,
    /// The next row of the group that is not a gap.
    after: Vec<Option<u32>>,
}

impl Shape {
    /// `rows` with gaps filled; sorted by group, then time.
    fn fill(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let plan = self.plan(rows)?;
        let indices = |of: &[Option<u32>]| UInt32Array::from(of.to_vec());
        let (group, own) = (indices(&plan.group), indices(&plan.own));
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (i, column) in rows.columns().iter().enumerate() {
            columns.push(if i == self.time {
                cast(&TimestampNanosecondArray::from(plan.times.clone()), column.data_type())?
            } else if i < self.group_columns {
                take(column, &group, None)?
            } else {
                take(column, &own, None)?
            });
        }
        for (column, fill) in &self.fills {
            let column = rows.column(*column);
            columns.push(match fill {
                Fill::LastValue => take(column, &indices(&plan.before), None)?,
                Fill::Line => self.line(column, rows.column(self.time), &plan)?,
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    fn plan(&self, rows: &RecordBatch) -> Result<Rows> {
        let starts: Vec<i64> =
            self.bucket.iter(self.range).map(|bucket| bucket.start.as_nanos()).collect();
        let keys: Vec<ArrayRef> = (0..self.group_columns)
            .filter(|column| *column != self.time)
            .map(|column| Arc::clone(rows.column(column)))
            .collect();
        let groups = match (keys.is_empty(), rows.num_rows()) {
            (true, rows) => std::iter::once(0..rows).collect(),
            (false, 0) => Vec::new(),
            (false, _) => partition(&keys)?.ranges(),
        };
        let times = rows.column(self.time).as_primitive::<TimestampNanosecondType>();
        let mut plan = Rows::default();
        for group in groups {
            let first = (!group.is_empty()).then_some(group.start as u32);
            plan.add_group(group.start as u32, &times.values()[group.clone()], &starts, first);
        }
        Ok(plan)
    }

    /// `column` as numbers, with gaps on the line between their neighbours.
    fn line(&self, column: &ArrayRef, times: &ArrayRef, plan: &Rows) -> Result<ArrayRef> {
        let values = cast(column, &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        let times = times.as_primitive::<TimestampNanosecondType>();
        let value = |row: Option<u32>| {
            row.map(|row| row as usize).filter(|row| values.is_valid(*row)).map(|r| values.value(r))
        };
        let points = (0..plan.times.len()).map(|i| match plan.own[i] {
            Some(own) => value(Some(own)),
            None => {
                let (low, high) = (value(plan.before[i])?, value(plan.after[i])?);
                let at = |row: Option<u32>| row.map(|row| times.value(row as usize));
                let (from, to) = (at(plan.before[i])?, at(plan.after[i])?);
                let part = (plan.times[i] - from) as f64 / (to - from) as f64;
                Some(low + (high - low) * part)
            }
        });
        Ok(Arc::new(points.collect::<Float64Array>()))
    }
}

impl Rows {
    /// Adds the rows of one group, which start at `offset` and have ascending `times`, and a gap
    /// for every other bucket.
    fn add_group(&mut self, offset: u32, times: &[i64], starts: &[i64], first: Option<u32>) {
        let mut next = 0;
        let mut add = |time: i64, own: Option<usize>, next: usize| {
            let row = |position: usize| Some(offset + position as u32);
            self.times.push(time);
            self.group.push(first);
            self.own.push(own.and_then(row));
            self.before.push(next.checked_sub(1).and_then(row));
            self.after.push((next < times.len()).then(|| row(next)).flatten());
        };
        for &start in starts {
            while next < times.len() && times[next] < start {
                add(times[next], Some(next), next + 1);
                next += 1;
            }
            if next < times.len() && times[next] == start {
                add(start, Some(next), next + 1);
                next += 1;
            } else {
                add(start, None, next);
            }
        }
        while next < times.len() {
            add(times[next], Some(next), next + 1);
            next += 1;
        }
    }
}
