//! The chunks of all workers as one answer.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter, not};
use arrow::datatypes::Int32Type;
use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::worker::{Chunk, Grouping};

/// So few groups are left out of a chunk without copying the others.
const FEW: usize = 16;

/// The answer: groups that are in one chunk only as they are, the others merged.
///
/// # Errors
/// Those of the aggregates.
pub(super) fn combine(
    grouping: &Grouping,
    chunks: Vec<Chunk>,
    reservation: &MemoryReservation,
) -> Result<Vec<RecordBatch>> {
    let mut answers = Vec::with_capacity(chunks.len() + 1);
    let mut shared = Vec::new();
    let is_shared = shared_groups(grouping, &chunks, reservation)?;
    for (chunk, is_shared) in chunks.into_iter().zip(is_shared) {
        match is_shared {
            None => answers.push(chunk.finish(grouping)?),
            Some(is_shared) => {
                shared.push(chunk.filtered(&is_shared)?);
                for own in chunk.without(&is_shared)? {
                    answers.push(own.finish(grouping)?);
                }
            }
        }
    }
    if !shared.is_empty() {
        answers.push(merged(grouping, &shared)?);
    }
    answers.retain(|answer| answer.num_rows() > 0);
    Ok(answers)
}

/// Per chunk: which groups are in other chunks too; `None` if none are.
fn shared_groups(
    grouping: &Grouping,
    chunks: &[Chunk],
    reservation: &MemoryReservation,
) -> Result<Vec<Option<BooleanArray>>> {
    if chunks.len() < 2 {
        return Ok(chunks.iter().map(|_| None).collect());
    }
    let candidates = groups_of_shared_texts(chunks);
    let mut keys = grouping.no_keys()?;
    let mut groups = Vec::with_capacity(chunks.len());
    let mut times_met: Vec<u8> = Vec::new();
    for (chunk, candidates) in chunks.iter().zip(&candidates) {
        let mut numbers = Vec::new();
        keys.number(&filtered(&chunk.keys, candidates)?, &mut numbers)?;
        times_met.resize(keys.len(), 0);
        reservation.try_resize(keys.size() + keys.len())?;
        for &group in &numbers {
            times_met[group] = times_met[group].saturating_add(1);
        }
        groups.push(numbers);
    }
    let is_shared = |(numbers, candidates): (Vec<usize>, BooleanArray)| {
        let mut is_shared = BooleanBufferBuilder::new(candidates.len());
        is_shared.append_n(candidates.len(), false);
        let rows = candidates.values().set_indices().zip(numbers);
        let shared = rows.filter(|(_, group)| times_met[*group] > 1);
        shared.for_each(|(row, _)| is_shared.set_bit(row, true));
        let is_shared = BooleanArray::new(is_shared.finish(), None);
        Some(is_shared).filter(|is_shared| is_shared.true_count() > 0)
    };
    Ok(groups.into_iter().zip(candidates).map(is_shared).collect())
}

/// Per chunk: the groups whose every text is in other chunks too. No other group can be shared, and
/// where rows come by tags, these are few.
fn groups_of_shared_texts(chunks: &[Chunk]) -> Vec<BooleanArray> {
    let all = |chunk: &Chunk| BooleanBuffer::new_set(chunk.rows());
    let mut candidates: Vec<BooleanBuffer> = chunks.iter().map(all).collect();
    let columns = chunks.first().map_or(0, |chunk| chunk.keys.len());
    for column in 0..columns {
        let texts = |chunk: &'_ Chunk| chunk.keys[column].as_dictionary_opt::<Int32Type>().cloned();
        let Some(texts) = chunks.iter().map(texts).collect::<Option<Vec<_>>>() else { continue };
        let mut is_shared: HashMap<&str, bool> = HashMap::new();
        for text in texts.iter().flat_map(|one| one.values().as_string::<i32>()).flatten() {
            is_shared.entry(text).and_modify(|shared| *shared = true).or_insert(false);
        }
        for (own, candidates) in texts.iter().zip(&mut candidates) {
            let values = own.values().as_string::<i32>().iter();
            let shared: Vec<bool> =
                values.map(|text| text.is_none_or(|text| is_shared[text])).collect();
            let keys = own.keys();
            let is_candidate = |row| keys.is_null(row) || shared[keys.value(row) as usize];
            *candidates &= &BooleanBuffer::collect_bool(keys.len(), is_candidate);
        }
    }
    candidates.into_iter().map(|rows| BooleanArray::new(rows, None)).collect()
}

fn filtered(arrays: &[ArrayRef], wanted: &BooleanArray) -> Result<Vec<ArrayRef>> {
    arrays.iter().map(|array| Ok(filter(array, wanted)?)).collect()
}

/// Merges groups that are in several chunks.
fn merged(grouping: &Grouping, chunks: &[Chunk]) -> Result<RecordBatch> {
    let mut keys = grouping.no_keys()?;
    let mut accumulators = grouping.accumulators()?;
    let mut numbers = Vec::new();
    for chunk in chunks {
        keys.number(&chunk.keys, &mut numbers)?;
        for (own, state) in accumulators.iter_mut().zip(&chunk.states) {
            own.merge_batch(state, &numbers, keys.len())?;
        }
    }
    let answers = accumulators.iter_mut().map(|own| own.evaluate(EmitTo::All));
    answer(grouping, keys.arrays(0..keys.len())?, answers)
}

impl Chunk {
    fn filtered(&self, wanted: &BooleanArray) -> Result<Chunk> {
        let states = self.states.iter().map(|state| filtered(state, wanted));
        Ok(Chunk { keys: filtered(&self.keys, wanted)?, states: states.collect::<Result<_>>()? })
    }

    /// The other groups: slices between the unwanted ones if these are few.
    fn without(&self, unwanted: &BooleanArray) -> Result<Vec<Chunk>> {
        if unwanted.true_count() > FEW {
            return Ok(vec![self.filtered(&not(unwanted)?)?]);
        }
        let mut start = 0;
        let ends = unwanted.values().set_indices().chain([self.rows()]);
        let parts = ends.map(|end| {
            let part = self.slice(start, end - start);
            start = end + 1;
            part
        });
        Ok(parts.filter(|part| part.rows() > 0).collect())
    }

    fn slice(&self, start: usize, rows: usize) -> Chunk {
        let slice = |array: &ArrayRef| array.slice(start, rows);
        let states = self.states.iter().map(|state| state.iter().map(slice).collect());
        Chunk { keys: self.keys.iter().map(slice).collect(), states: states.collect() }
    }

    /// The answers of groups that are complete.
    fn finish(self, grouping: &Grouping) -> Result<RecordBatch> {
        let rows = self.rows();
        let each: Vec<usize> = (0..rows).collect();
        let aggregates = self.states.into_iter().zip(&grouping.aggregates);
        let answers = aggregates.map(|(mut state, aggregate)| {
            if aggregate.is_partial {
                return Ok(state.remove(0));
            }
            let mut own: Box<dyn GroupsAccumulator> =
                aggregate.function.create_groups_accumulator()?;
            own.merge_batch(&state, &each, rows)?;
            own.evaluate(EmitTo::All)
        });
        answer(grouping, self.keys, answers)
    }
}

fn answer(
    grouping: &Grouping,
    keys: Vec<ArrayRef>,
    answers: impl Iterator<Item = Result<ArrayRef>>,
) -> Result<RecordBatch> {
    let columns = keys.into_iter().map(Ok).chain(answers).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(grouping.schema.clone(), columns)?)
}
