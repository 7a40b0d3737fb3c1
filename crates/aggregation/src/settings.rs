//! Settings of the aggregation layer.

use highwater_core::bucket::Span;
use highwater_core::time::{NANOS_PER_DAY, NANOS_PER_HOUR, NANOS_PER_MINUTE};
use serde::Serialize;

use crate::background_audit::span_or_off;

const MEGABYTE: u64 = 1 << 20;

/// Settings of the aggregation layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AggregationSettings {
    /// Aggregates computed at the same time; what is live keeps at least half. Default 2.
    pub max_parallel: usize,
    /// Points of the source that one step of a backfill covers, about. Default 4,000,000.
    pub step_points: u64,
    /// How long what a change or a drop of an aggregate replaced is kept, so that it can be undone;
    /// zero for not at all. Default one hour.
    pub undo_window: Span,
    /// How often a part of an aggregate is computed again and compared; `off`: never. Default ten
    /// minutes.
    #[serde(with = "span_or_off")]
    pub audit_every: Option<Span>,
    /// Restatements that are kept of each aggregate, about. Default 10,000.
    pub restatements_kept: u64,
    /// How long they are kept. Default 30 days.
    pub restatements_age: Span,
    /// Memory for aggregates with storage `memory`, which come first, and `hybrid`, in MiB; what does
    /// not fit is read from the source, or from disk. Default 256.
    pub resident_mb: u64,
}

impl Default for AggregationSettings {
    fn default() -> Self {
        let undo_window = Span::Nanos(NANOS_PER_HOUR);
        AggregationSettings {
            max_parallel: 2,
            step_points: 4_000_000,
            undo_window,
            audit_every: Some(Span::Nanos(10 * NANOS_PER_MINUTE)),
            restatements_kept: 10_000,
            restatements_age: Span::Nanos(30 * NANOS_PER_DAY),
            resident_mb: 256,
        }
    }
}

impl AggregationSettings {
    /// The memory for aggregates, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.resident_mb.saturating_mul(MEGABYTE)
    }
}
