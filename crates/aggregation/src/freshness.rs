//! How old a stored piece may be to be used, and which changes count at once.

use highwater_core::TimeRanges;
use highwater_query::Freshness;

use crate::applied::Applied;
use crate::catalog::Aggregate;
use crate::definition::Freshness as RuleFreshness;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::staleness;

/// Which stored pieces an answer may be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tolerance {
    /// Those that reflect the source.
    Exact,
    /// Those too that have missed nothing but changes younger than this, in nanoseconds.
    MissingYounger(i64),
    /// All, and nothing else.
    Stored,
}

/// What a session accepts of an aggregate: what it asks for, else what the rule says.
///
/// # Errors
/// A detached aggregate stands still, so all it can answer is what is stored; unless a restart took
/// a part of that, and the source still has it.
pub(crate) fn tolerance(
    wanted: Freshness,
    reader: &Reader,
    aggregate: &Aggregate,
) -> Result<Tolerance, AggregationError> {
    let stands_still = aggregate.document.detached;
    let is_detached = stands_still && reader.rebuilding(aggregate).is_empty();
    let by_rule = match aggregate.definition.freshness {
        _ if is_detached => Tolerance::Stored,
        _ if stands_still => Tolerance::Exact,
        RuleFreshness::Exact => Tolerance::Exact,
        RuleFreshness::Materialized => Tolerance::Stored,
        RuleFreshness::MaxStaleness(age) => Tolerance::MissingYounger(age),
    };
    let tolerance = match wanted {
        Freshness::Default => by_rule,
        Freshness::Materialized => Tolerance::Stored,
        Freshness::MaxStaleness(age) => Tolerance::MissingYounger(age),
        // An answer that is fresher than asked for is never wrong.
        _ => Tolerance::Exact,
    };
    if is_detached && tolerance != Tolerance::Stored {
        return Err(AggregationError::Conflict(format!(
            "{} is detached, so it cannot be exact; ask for freshness materialized, or post its \
             definition again",
            aggregate.name()
        )));
    }
    Ok(tolerance)
}

impl Reader {
    /// The whole pieces within `times` that have to be computed to answer with this tolerance.
    pub(crate) fn not_fresh(
        &self,
        aggregate: &Aggregate,
        times: &TimeRanges,
        tolerance: Tolerance,
    ) -> TimeRanges {
        if !self.trusts_stored() {
            return self.stale_under(aggregate, &Applied::nothing(), times);
        }
        let stale = self.stale(aggregate, times);
        let Tolerance::MissingYounger(age) = tolerance else { return stale };
        let (Some(root), Some(within)) = (self.root(aggregate), stale.hull()) else {
            return stale;
        };
        let changes = root.changes_until(self.session().now().saturating_sub(age));
        let (applied, pieces) = (&aggregate.progress.applied, aggregate.definition.pieces);
        let sealed_before = self.sealed_before(aggregate);
        let too_old = staleness::stale(changes, applied, pieces, within, sealed_before);
        let usable = applied.covered().intersect(&stale).subtract(&too_old);
        stale.subtract(&usable)
    }

    /// The whole pieces that critical changes have overtaken; none if no field is critical.
    pub(crate) fn critical(&self, aggregate: &Aggregate) -> TimeRanges {
        let fields = aggregate.definition.refresh.critical();
        let (Some(root), Some(within)) = (self.root(aggregate), self.kept(aggregate).hull()) else {
            return TimeRanges::none();
        };
        let (applied, pieces) = (&aggregate.progress.applied, aggregate.definition.pieces);
        let sealed_before = self.sealed_before(aggregate);
        let overtaken = fields.iter().map(|field| {
            // As long as nobody watches it, every change may have written it.
            let changes = root.changes_of(field).unwrap_or(root.changes());
            staleness::stale(changes, applied, pieces, within, sealed_before)
        });
        overtaken.fold(TimeRanges::none(), |all, more| all.union(&more))
    }
}
