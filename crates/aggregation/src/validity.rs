//! From when on an output is valid: one that was added when a part of the source had expired has no
//! stored partials before, and is NULL there.

use datafusion::logical_expr::{Expr, ident, lit, when};
use datafusion::scalar::ScalarValue;
use highwater_core::Timestamp;
use highwater_core::schema::TIME_COLUMN;

use crate::catalog::Aggregate;
use crate::definition::Output;
use crate::error::AggregationError;
use crate::exact::Reader;

impl Reader {
    /// Start of the first bucket that an output is valid in; `None` if it always is. Of an
    /// aggregate that is kept by days, some bucket of which lacks it for good, the time from which
    /// on points went into it.
    pub(crate) fn valid_from(&self, aggregate: &Aggregate, output: &Output) -> Option<Timestamp> {
        let own = aggregate.document.valid_from.get(&output.name).copied();
        let parents = || {
            let parent = self.catalog().parent(aggregate)?;
            let merged = output.merges.as_ref()?;
            let resolved = self.resolve(parent).ok()?;
            let output = resolved.outputs.iter().find(|one| one.name == *merged)?;
            self.valid_from(parent, output)
        };
        let at = own.max(parents())?;
        match aggregate.definition.bucket {
            Some(bucket) if !aggregate.definition.is_kept_by_days() => {
                Some(bucket.range_of(at.saturating_sub(1)).end)
            }
            _ => Some(at),
        }
    }
    /// `value` in the buckets that the output is valid in, NULL in the others.
    pub(crate) fn where_valid(
        &self,
        aggregate: &Aggregate,
        output: &Output,
        value: Expr,
    ) -> Result<Expr, AggregationError> {
        let Some(from) = self.valid_from(aggregate, output) else { return Ok(value) };
        let is_valid = match aggregate.definition.is_kept_by_days() {
            true => lit(false),
            false => {
                let from = ScalarValue::TimestampNanosecond(Some(from.as_nanos()), None);
                ident(TIME_COLUMN).gt_eq(lit(from))
            }
        };
        Ok(when(is_valid, value).end()?)
    }
}
