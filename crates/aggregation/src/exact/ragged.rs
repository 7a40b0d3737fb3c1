//! Parts of pieces: partials of times that no stored partial is cut at.

use datafusion::logical_expr::{Expr, LogicalPlan, ident};
use highwater_core::TimeRanges;

use super::building::{aggregated, in_order, with_starts};
use super::{PIECE, Reader, Wanted};
use crate::catalog::Aggregate;
use crate::definition::Resolved;
use crate::error::AggregationError;
use crate::materialization::{empty, key_names, names, rows_schema};

impl Reader {
    /// The partials of just these times, straight from the points of the root measurement,
    /// whatever stands between it and the aggregate. Rows of partials like the stored ones, each
    /// of a part of a piece.
    pub(crate) fn partials_of_points(
        &self,
        aggregate: &Aggregate,
        resolved: &Resolved,
        outputs: &[usize],
        times: TimeRanges,
    ) -> Result<LogicalPlan, AggregationError> {
        let Some(root) = self.root(aggregate) else {
            return empty(&rows_schema(aggregate, resolved), &names(resolved, outputs));
        };
        let mut source = self.points(root, resolved, outputs, &Wanted::at(times))?;
        for one in self.chain(aggregate) {
            source = self.filtered(source, one.definition.filter.as_deref())?;
        }
        let source = with_starts(source, aggregate)?;
        let keys = std::iter::once(PIECE).chain(key_names(aggregate, resolved)).map(ident);
        let partials = outputs.iter().map(|&at| aggregated(&resolved.outputs[at]));
        let grouped =
            source.aggregate(keys.collect::<Vec<_>>(), partials.collect::<Vec<Expr>>())?;
        in_order(grouped, PIECE, aggregate, resolved, outputs)
    }

    /// The aggregate, the one it reads, and so on down to the one that reads points.
    pub(crate) fn chain<'a>(
        &'a self,
        aggregate: &'a Aggregate,
    ) -> impl Iterator<Item = &'a Aggregate> {
        let parent = |one: &&'a Aggregate| self.catalog.parent(one).map(AsRef::as_ref);
        std::iter::successors(Some(aggregate), parent)
    }
}
