//! One worker: groups the rows of one partition.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::keys::Keys;

/// What rows are grouped by, and what becomes of each group.
#[derive(Clone, Debug)]
pub(super) struct Grouping {
    pub(super) keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) aggregates: Vec<Aggregate>,
    /// Keys, then answers.
    pub(super) schema: SchemaRef,
    /// A worker hands its groups on when there are so many.
    pub(super) groups_at_once: usize,
}

/// One aggregate.
#[derive(Clone, Debug)]
pub(super) struct Aggregate {
    pub(super) function: Arc<AggregateFunctionExpr>,
    /// Rows that count.
    pub(super) filter: Option<Arc<dyn PhysicalExpr>>,
    /// Whether its answer is its state, a partial.
    pub(super) is_partial: bool,
}

/// The state of some groups, each there once.
#[derive(Debug)]
pub(super) struct Chunk {
    /// One array per key.
    pub(super) keys: Vec<ArrayRef>,
    /// Per aggregate the arrays of its state.
    pub(super) states: Vec<Vec<ArrayRef>>,
}

/// Groups rows until it has seen them all.
pub(super) struct Worker {
    grouping: Arc<Grouping>,
    keys: Keys,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// Groups handed on.
    chunks: Vec<Chunk>,
    chunk_bytes: usize,
    /// Room for the group of every row.
    numbers: Vec<usize>,
    reservation: MemoryReservation,
}

impl Grouping {
    /// A fresh accumulator per aggregate.
    pub(super) fn accumulators(&self) -> Result<Vec<Box<dyn GroupsAccumulator>>> {
        let aggregates = self.aggregates.iter();
        aggregates.map(|aggregate| aggregate.function.create_groups_accumulator()).collect()
    }

    /// No groups yet.
    pub(super) fn no_keys(&self) -> Result<Keys> {
        Keys::of(self.schema.fields().iter().take(self.keys.len()).map(|field| field.data_type()))
    }
}

impl Worker {
    pub(super) fn new(grouping: &Arc<Grouping>, reservation: MemoryReservation) -> Result<Self> {
        Ok(Worker {
            grouping: Arc::clone(grouping),
            keys: grouping.no_keys()?,
            accumulators: grouping.accumulators()?,
            chunks: Vec::new(),
            chunk_bytes: 0,
            numbers: Vec::new(),
            reservation,
        })
    }

    /// Takes rows in.
    ///
    /// # Errors
    /// Those of expressions and aggregates, and that of the memory pool if it is used up.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let keys = self.grouping.keys.iter();
        let keys: Vec<ArrayRef> =
            keys.map(|key| evaluated(key, batch)).collect::<Result<Vec<_>>>()?;
        self.keys.number(&keys, &mut self.numbers)?;
        let groups = self.keys.len();
        for (aggregate, own) in self.grouping.aggregates.iter().zip(&mut self.accumulators) {
            let values = aggregate.function.expressions();
            let values: Vec<ArrayRef> =
                values.iter().map(|value| evaluated(value, batch)).collect::<Result<Vec<_>>>()?;
            let filter = aggregate.filter.as_ref().map(|filter| evaluated(filter, batch));
            let filter = filter.transpose()?;
            let filter = filter.as_ref().map(|filter| filter.as_boolean());
            own.update_batch(&values, &self.numbers, filter, groups)?;
        }
        if groups >= self.grouping.groups_at_once {
            self.hand_on()?;
        }
        self.reservation.try_resize(self.size())
    }

    fn size(&self) -> usize {
        let own: usize = self.accumulators.iter().map(|own| own.size()).sum();
        self.keys.size() + own + self.numbers.capacity() * 8 + self.chunk_bytes
    }

    /// Turns the groups so far into a chunk.
    fn hand_on(&mut self) -> Result<()> {
        let keys = self.keys.arrays(0..self.keys.len())?;
        self.keys.clear();
        // They are empty then and keep their memory for the next groups.
        let states = self.accumulators.iter_mut().map(|own| own.state(EmitTo::All));
        let chunk = Chunk { keys, states: states.collect::<Result<_>>()? };
        self.chunk_bytes += chunk.size();
        self.chunks.push(chunk);
        Ok(())
    }

    /// All groups, each once per chunk; the memory stays reserved for as long as the reservation.
    pub(super) fn finish(mut self) -> Result<(Vec<Chunk>, MemoryReservation)> {
        if self.keys.len() > 0 {
            self.hand_on()?;
        }
        Ok((self.chunks, self.reservation))
    }
}

impl Chunk {
    pub(super) fn rows(&self) -> usize {
        self.keys.first().map_or(0, |key| key.len())
    }

    /// Bytes held.
    fn size(&self) -> usize {
        let arrays = self.keys.iter().chain(self.states.iter().flatten());
        arrays.map(|array| array.get_array_memory_size()).sum()
    }
}

fn evaluated(expression: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    expression.evaluate(batch)?.into_array(batch.num_rows())
}
