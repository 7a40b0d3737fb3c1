//! Damage on purpose, for tests of what finds and repairs it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray};
use arrow::record_batch::RecordBatch;
use highwater_core::{TimeRanges, Timestamp};
use highwater_storage::StorageError;
use tracing::warn;

use crate::commits::Ready;
use crate::error::AggregationError;
use crate::exact::Wanted;
use crate::lanes::Lane;
use crate::refresh::{Computed, Computing, piece_starts};
use crate::runtime::Aggregates;

impl Aggregates {
    /// Changes a bit of one stored partial of the bucket that starts at `start` (of the UTC day,
    /// for an aggregate that is kept by days) and commits that as if it were right.
    ///
    /// # Errors
    /// If there is no such aggregate, no bucket starts there, or nothing is stored in it.
    pub async fn corrupt_bucket(
        &self,
        database: &str,
        name: &str,
        start: Timestamp,
    ) -> Result<(), AggregationError> {
        let id = self.attached(database, name)?;
        let reader = self.reader(&id.database)?;
        let aggregate = Arc::clone(self.find(&reader, name)?);
        let pieces = aggregate.definition.pieces;
        let bucket = pieces.grid().range_of(start);
        if bucket.start != start {
            let close = bucket.start;
            let reason = format!("no bucket of {name} starts at {start}; one starts at {close}");
            return Err(AggregationError::Invalid(reason));
        }
        let computing = Computing::of(&reader, &aggregate)?;
        let stored = computing.stored(&Wanted::at(bucket.into())).await?;
        let none = || {
            let reason = format!("nothing of {name} is stored in {bucket}; refresh it first");
            AggregationError::Invalid(reason)
        };
        let first = stored.iter().find_map(|batch| piece_starts(batch).first()).ok_or_else(none)?;
        let piece: TimeRanges = pieces.piece_of(Timestamp::from_nanos(*first)).into();
        let mut rows = computing.stored(&Wanted::at(piece.clone())).await?;
        let keys = rows[0].num_columns() - computing.resolved.outputs.len();
        rows[0] = damaged(&rows[0], keys)?.ok_or_else(none)?;
        let replacement = computing.replacement(
            (&piece, &TimeRanges::none()),
            &rows,
            aggregate.medium(&piece),
        )?;
        drop(computing);
        let computed = Computed::same_progress(&aggregate, replacement);
        self.commit_refresh(Ready { reader, aggregate, computed }, Lane::Repair).await?;
        warn!(aggregate = %id, bucket = %bucket, "a stored partial was damaged on purpose");
        Ok(())
    }
}

/// The same rows, with the last bit of the first partial of the first row turned; `None` if the
/// row has no partial.
fn damaged(rows: &RecordBatch, keys: usize) -> Result<Option<RecordBatch>, AggregationError> {
    let has_value = |at: &usize| {
        let partials = rows.column(*at).as_binary::<i32>();
        partials.is_valid(0) && !partials.value(0).is_empty()
    };
    let Some(column) = (keys..rows.num_columns()).find(has_value) else { return Ok(None) };
    let partials = rows.column(column).as_binary::<i32>();
    let turned = |(at, partial): (usize, Option<&[u8]>)| {
        let mut bytes = partial?.to_vec();
        if let Some(last) = bytes.last_mut().filter(|_| at == 0) {
            *last ^= 1;
        }
        Some(bytes)
    };
    let changed: BinaryArray = partials.iter().enumerate().map(turned).collect();
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns[column] = Arc::new(changed);
    let rows = RecordBatch::try_new(rows.schema(), columns).map_err(StorageError::from)?;
    Ok(Some(rows))
}
