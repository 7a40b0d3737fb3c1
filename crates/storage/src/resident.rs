//! Measurements that stay in memory beside their segments, within a limit.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_core::{MeasurementId, SequenceNumber};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use tracing::{debug, warn};

use crate::engine::Engine;
use crate::segment::SegmentHandle;
use crate::version::Version;

/// What stays in memory of the segments of a measurement: all of them, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// Whether all segments are in memory, as of the last [`Engine::keep_resident`].
    pub is_whole: bool,
    /// Rows in memory, hidden ones included until compaction.
    pub rows: u64,
    /// Memory that they take.
    pub bytes: u64,
}

/// The measurements that are to stay in memory.
#[derive(Debug, Default)]
pub(crate) struct Residents {
    kept: Mutex<BTreeMap<MeasurementId, Kept>>,
    one_at_a_time: AsyncMutex<()>,
}

/// How keeping a measurement went.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    residency: Residency,
    /// What did not fit, so that it is not tried again in vain.
    refused: Option<Refused>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refused {
    /// How many segments there were, and their newest commit.
    segments: (usize, Option<SequenceNumber>),
    /// They take at least so much memory.
    least_bytes: u64,
}

impl Residents {
    /// What stays in memory of a measurement; `None` if it is not to.
    pub(crate) fn get(&self, id: &MeasurementId) -> Option<Residency> {
        self.kept.lock().get(id).map(|kept| kept.residency)
    }

    /// Memory for all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.kept.lock().values().map(|kept| kept.residency.bytes).sum()
    }
}

impl Engine {
    /// Keeps the segments of these measurements in memory, decoded, so that reading them touches no
    /// disk, and lets go of those of all others. The first come first; one that does not fit into
    /// what is left of `most_bytes` beside all segments that are in memory alone, or cannot be read,
    /// stays on disk as a whole.
    ///
    /// Segments that come later are read from disk until this is called again.
    pub async fn keep_resident(&self, wanted: &[MeasurementId], most_bytes: u64) {
        let residents = &self.shared().residents;
        let _one_at_a_time = residents.one_at_a_time.lock().await;
        let version = self.version();
        let before = residents.kept.lock().clone();
        for id in before.keys().filter(|id| !wanted.contains(id)) {
            segments_of(&version, id).iter().for_each(|segment| segment.let_go());
            residents.kept.lock().remove(id);
        }
        let mut left = most_bytes.saturating_sub(self.bytes_in_memory());
        for id in wanted {
            let segments = segments_of(&version, id);
            let refused = before.get(id).and_then(|kept| kept.refused);
            let kept = keep(id, &segments, refused, left).await;
            left = left.saturating_sub(kept.residency.bytes);
            residents.kept.lock().insert(id.clone(), kept);
        }
    }

    /// What stays in memory of a measurement; `None` if [`Engine::keep_resident`] was not asked for
    /// it.
    pub fn residency(&self, id: &MeasurementId) -> Option<Residency> {
        self.shared().residents.get(id)
    }
}

fn segments_of(version: &Version, id: &MeasurementId) -> Arc<Vec<Arc<SegmentHandle>>> {
    version.measurement(id).map(|found| Arc::clone(&found.segments)).unwrap_or_default()
}

/// Loads all segments, or lets go of all if they do not fit into `most_bytes`.
async fn keep(
    id: &MeasurementId,
    segments: &[Arc<SegmentHandle>],
    refused: Option<Refused>,
    most_bytes: u64,
) -> Kept {
    let newest = segments.iter().map(|segment| segment.meta().max_seq).max();
    let of_these = (segments.len(), newest);
    let still_refused =
        refused.filter(|refused| refused.segments == of_these && refused.least_bytes > most_bytes);
    if still_refused.is_some() {
        return Kept { residency: Residency::default(), refused: still_refused };
    }
    let (mut rows, mut bytes) = (0, 0);
    for segment in segments {
        // Decoded it takes more than that.
        let mut least_bytes = bytes + segment.meta().bytes;
        if least_bytes <= most_bytes {
            match segment.make_resident().await {
                Ok(resident) => bytes += resident.bytes(),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(measurement = %id, error, "a segment cannot be kept in memory");
                    return let_go(segments, None);
                }
            }
            least_bytes = bytes;
        }
        if least_bytes > most_bytes {
            debug!(measurement = %id, least_bytes, most_bytes, "does not fit into memory");
            return let_go(segments, Some(Refused { segments: of_these, least_bytes }));
        }
        rows += segment.meta().rows;
    }
    Kept { residency: Residency { is_whole: true, rows, bytes }, refused: None }
}

fn let_go(segments: &[Arc<SegmentHandle>], refused: Option<Refused>) -> Kept {
    segments.iter().for_each(|segment| segment.let_go());
    Kept { residency: Residency::default(), refused }
}
