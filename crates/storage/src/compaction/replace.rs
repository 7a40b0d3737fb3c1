//! Putting the result of a job in the place of its segments.

use std::sync::Arc;

use highwater_core::{MeasurementId, SequenceNumber};

use super::CompactionJob;
use crate::manifest::Edit;
use crate::planned::Planned;
use crate::segment::{SegmentMeta, SegmentStore};
use crate::version::Version;

/// The edits that do it. None if some segment of the job is not live any more: then the result may
/// hold rows that are gone, and is of no use.
pub(crate) fn plan_replaced(
    id: &MeasurementId,
    job: &CompactionJob,
    results: &[Arc<SegmentMeta>],
    version: &Version,
    seq: SequenceNumber,
    store: &Arc<SegmentStore>,
) -> Vec<Edit> {
    let Some(measurement) = version.measurement(id) else { return Vec::new() };
    let is_live = |path: &str| measurement.segments().any(|live| live.path == path);
    if !job.segments.iter().all(|segment| is_live(&segment.path)) {
        return Vec::new();
    }
    let mut planned = Planned::new(version, seq, store);
    for segment in &job.segments {
        planned.push(Edit::RemoveSegment { id: id.clone(), path: segment.path.clone() });
    }
    for segment in results {
        planned.push(Edit::AddSegment { id: id.clone(), segment: Arc::clone(segment) });
    }
    planned.remove_idle_tombstones(id);
    planned.into_edits()
}
