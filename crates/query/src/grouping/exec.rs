//! The operator: workers side by side, then one answer.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::runtime::JoinSet;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties,
};
use futures::{StreamExt, TryStreamExt, stream};

use super::combine::combine;
use super::worker::{Chunk, Grouping, Worker};

/// Groups the rows of all partitions of its input. One partition comes out, in no order.
#[derive(Debug)]
pub(super) struct GroupRunsExec {
    input: Arc<dyn ExecutionPlan>,
    grouping: Arc<Grouping>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl GroupRunsExec {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, grouping: Arc<Grouping>) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&grouping.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        ));
        GroupRunsExec { input, grouping, properties, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for GroupRunsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Grouping { keys, aggregates, schema, .. } = &*self.grouping;
        let names = schema.fields().iter().map(|field| field.name());
        let keys = keys.iter().zip(names).map(|(key, name)| match key.to_string() {
            text if text.rsplit_once('@').is_some_and(|(own, _)| own == name) => text,
            text => format!("{text} as {name}"),
        });
        let keys: Vec<String> = keys.collect();
        let aggregates: Vec<&str> = aggregates.iter().map(|one| one.function.name()).collect();
        write!(f, "GroupRunsExec: gby=[{}], aggr=[{}]", keys.join(", "), aggregates.join(", "))
    }
}

impl ExecutionPlan for GroupRunsExec {
    fn name(&self) -> &str {
        "GroupRunsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let filters = self.grouping.aggregates.iter().filter_map(|one| one.filter.clone());
        let values = self.grouping.aggregates.iter().flat_map(|one| one.function.expressions());
        for expression in self.grouping.keys.iter().cloned().chain(values).chain(filters) {
            if f(&expression)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(GroupRunsExec::new(input, Arc::clone(&self.grouping)))),
            None => internal_err!("GroupRunsExec has one input"),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let (input, grouping) = (Arc::clone(&self.input), Arc::clone(&self.grouping));
        let rows = context.session_config().batch_size();
        let answer = async move {
            let (chunks, reservations) = group(&input, &grouping, &context).await?;
            let consumer = MemoryConsumer::new("GroupRunsExec");
            let keys = consumer.register(context.memory_pool());
            let answer = combine(&grouping, chunks, &keys)?;
            drop((reservations, keys));
            let sliced = answer.iter().flat_map(|batch| sliced(batch, rows));
            Ok::<Vec<RecordBatch>, DataFusionError>(sliced.collect())
        };
        let batches = stream::once(answer)
            .map_ok(|batches| stream::iter(batches.into_iter().map(Ok::<_, DataFusionError>)))
            .try_flatten()
            .inspect_ok(move |batch: &RecordBatch| baseline.record_output(batch.num_rows()));
        let schema = Arc::clone(&self.grouping.schema);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches.boxed())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Lets a worker group each partition of the input.
async fn group(
    input: &Arc<dyn ExecutionPlan>,
    grouping: &Arc<Grouping>,
    context: &Arc<TaskContext>,
) -> Result<(Vec<Chunk>, Vec<MemoryReservation>)> {
    let partitions = input.output_partitioning().partition_count();
    let mut workers = JoinSet::new();
    let (mut chunks, mut reservations) = (Vec::new(), Vec::new());
    for partition in 0..partitions {
        let name = format!("GroupRunsExec[{partition}]");
        let reservation = MemoryConsumer::new(name).register(context.memory_pool());
        let mut worker = Worker::new(grouping, reservation)?;
        let mut rows = input.execute(partition, Arc::clone(context))?;
        let work = async move {
            while let Some(batch) = rows.try_next().await? {
                worker.add(&batch)?;
            }
            worker.finish()
        };
        if partition + 1 < partitions {
            workers.spawn(work);
            continue;
        }
        let (own, reservation) = work.await?;
        chunks.extend(own);
        reservations.push(reservation);
    }
    while let Some(done) = workers.join_next().await {
        let (own, reservation) = done.map_err(|e| DataFusionError::External(Box::new(e)))??;
        chunks.extend(own);
        reservations.push(reservation);
    }
    Ok((chunks, reservations))
}

/// The batch in pieces of at most so many rows.
fn sliced(batch: &RecordBatch, rows: usize) -> impl Iterator<Item = RecordBatch> + use<'_> {
    let starts = (0..batch.num_rows()).step_by(rows);
    starts.map(move |start| batch.slice(start, rows.min(batch.num_rows() - start)))
}
