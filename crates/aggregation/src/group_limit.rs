//! The limit of groups: what a refresh holds in memory is bounded by the rule.

use std::collections::HashMap;

use arrow::array::AsArray;
use arrow::datatypes::TimestampNanosecondType;
use arrow::record_batch::RecordBatch;
use highwater_core::Timestamp;

use crate::catalog::Aggregate;
use crate::error::AggregationError;

/// Checks that no piece has more groups than the rule allows; rows of partials begin with the start
/// of their piece.
///
/// # Errors
/// [`AggregationError::TooManyGroups`] with the earliest piece that has.
pub(crate) fn check_groups(
    aggregate: &Aggregate,
    batches: &[RecordBatch],
) -> Result<(), AggregationError> {
    let most = aggregate.definition.max_groups;
    let mut groups: HashMap<i64, u64> = HashMap::new();
    for batch in batches {
        for start in batch.column(0).as_primitive::<TimestampNanosecondType>().values() {
            *groups.entry(*start).or_default() += 1;
        }
    }
    let too_many = groups.into_iter().filter(|(_, count)| *count > most).min();
    match too_many {
        None => Ok(()),
        Some((start, count)) => {
            let piece = aggregate.definition.pieces.piece_of(Timestamp::from_nanos(start));
            Err(AggregationError::TooManyGroups { piece, count, most })
        }
    }
}
