//! Working on the columns of a batch side by side.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::OnceLock;
use std::thread::{available_parallelism, scope};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;

use crate::error::StorageError;

/// Fewer values than this are not worth a thread.
const VALUES_WORTH_A_THREAD: usize = 64 * 1024;

/// What `work` makes of every item, in order. With many values it is done on all cores.
///
/// # Errors
/// The first error in order of the items.
pub(crate) fn map<T: Send, R: Send>(
    items: Vec<T>,
    values: usize,
    work: impl Fn(T) -> Result<R, StorageError> + Sync,
) -> Result<Vec<R>, StorageError> {
    let threads = threads().min(items.len());
    if threads < 2 || values < VALUES_WORTH_A_THREAD {
        return items.into_iter().map(work).collect();
    }
    let queue = Mutex::new(items.into_iter().enumerate());
    let take_turns = || {
        let mut done = Vec::new();
        loop {
            let next = queue.lock().next();
            let Some((at, item)) = next else { return done };
            done.push((at, work(item)));
        }
    };
    let mut done = scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take_turns)).collect();
        let mut done = take_turns();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| available_parallelism().map_or(1, NonZero::get))
}

/// These rows of a batch, in this order.
///
/// # Errors
/// [`StorageError::Arrow`] if there is no such row.
pub(crate) fn take_rows(
    batch: &RecordBatch,
    rows: &UInt32Array,
) -> Result<RecordBatch, StorageError> {
    let values = rows.len() * batch.num_columns();
    let columns =
        map(batch.columns().iter().collect(), values, |column| Ok(take(column, rows, None)?))?;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// The rows of all batches, one after the other.
///
/// # Errors
/// [`StorageError::Arrow`] if they do not all have the columns of `schema`.
pub(crate) fn concat_rows(
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<RecordBatch, StorageError> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if batches.is_empty() {
        return Ok(RecordBatch::new_empty(schema.clone()));
    }
    let fields = (0..schema.fields().len()).collect();
    let columns: Vec<ArrayRef> = map(fields, rows * schema.fields().len(), |at: usize| {
        let parts: Vec<_> = batches.iter().map(|batch| batch.column(at).as_ref()).collect();
        Ok(concat(&parts)?)
    })?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_the_first_error_counts() {
        let double = |i: usize| Ok(2 * i);
        let expected: Vec<usize> = (0..100).map(|i| 2 * i).collect();
        assert_eq!(map((0..100).collect(), 1 << 20, double).unwrap(), expected);
        assert_eq!(map((0..100).collect(), 1, double).unwrap(), expected);
        let odd = |i: usize| match i % 2 {
            0 => Ok(i),
            _ => Err(StorageError::Invalid(i.to_string())),
        };
        let error = map((0..100).collect(), 1 << 20, odd).unwrap_err();
        assert!(matches!(&error, StorageError::Invalid(text) if text == "1"), "{error}");
    }
}
