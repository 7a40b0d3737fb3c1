//! Quarantine: damaged segments that an operator gives up, so that everything else answers again.
//!
//! ```text
//! verify ──► one commit: not live, on the list, its minutes touched ──► the file moves to quarantine/
//! ```
//!
//! The commit comes first. A crash behind it leaves the file where it was; the next start, which
//! deletes what no commit refers to, finds it on the list and moves it.

use std::sync::Arc;

use highwater_core::{MeasurementId, SequenceNumber, TimeRange, TimeRanges, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::commit::granules;
use crate::engine::Engine;
use crate::error::StorageError;
use crate::file_store::FileStore;
use crate::manifest::{Edit, MeasurementKind};
use crate::planned::Planned;
use crate::segment::{SEGMENTS_FOLDER, SegmentMeta, is_in_memory, verify};
use crate::version::Version;

/// Folder of the files that were given up.
const QUARANTINE_FOLDER: &str = "quarantine";

/// A segment that was given up: its rows are gone for readers, its file is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuarantinedSegment {
    /// Of which measurement it was.
    pub id: MeasurementId,
    /// What that measurement holds.
    pub kind: MeasurementKind,
    /// What the manifest knew of it; its path is the one it had.
    pub segment: Arc<SegmentMeta>,
    /// What was wrong with it; `None` if it was sound and given up all the same.
    pub damage: Option<String>,
    /// When it was given up.
    pub at: Timestamp,
    /// The commit that did it.
    pub seq: SequenceNumber,
}

impl QuarantinedSegment {
    /// Where the file is kept, relative to the data folder.
    pub fn kept_path(&self) -> String {
        kept_path(&self.segment.path)
    }
}

/// Where the file of the segment at `path` is kept once it is given up. No two segments of a
/// database ever have the same number, so this one is free.
pub(crate) fn kept_path(path: &str) -> String {
    let below = path.strip_prefix(SEGMENTS_FOLDER).unwrap_or(path);
    format!("{QUARANTINE_FOLDER}/{}", below.trim_start_matches('/'))
}

/// A live segment that was read from its first byte to its last.
#[derive(Clone, Debug, PartialEq)]
pub struct ExaminedSegment {
    /// Of which measurement.
    pub id: MeasurementId,
    /// What that measurement holds.
    pub kind: MeasurementKind,
    /// What the manifest says of it.
    pub segment: Arc<SegmentMeta>,
    /// What is wrong with it; `None` if it is sound.
    pub damage: Option<String>,
}

impl ExaminedSegment {
    /// Where its file is kept if it is given up, relative to the data folder.
    pub fn kept_path(&self) -> String {
        kept_path(&self.segment.path)
    }
}

impl Engine {
    /// Reads all of a live segment, from the file itself and not from what is kept of it in memory
    /// or in copies.
    ///
    /// # Errors
    /// [`StorageError::NoSuchSegment`] if no live segment has this path, [`StorageError::Io`] if it
    /// could not be read, so that nothing is known.
    pub async fn examine_segment(&self, path: &str) -> Result<ExaminedSegment, StorageError> {
        let version = self.version();
        let found = version.all_measurements().find_map(|measurement| {
            let own = measurement.segments.iter().find(|segment| segment.meta().path == path)?;
            Some((measurement, own))
        });
        let Some((measurement, segment)) = found else {
            return Err(StorageError::NoSuchSegment { path: path.to_owned() });
        };
        segment.forget_cached();
        let kind = measurement.kind();
        let damage = match verify(segment, kind.is_deduplicated()).await {
            Ok(()) => {
                self.shared().segments.damaged().forget(path);
                None
            }
            Err(error) if error.damaged_file().is_some() => Some(error.to_string()),
            Err(error) => return Err(error),
        };
        let (id, segment) = (measurement.id().clone(), Arc::clone(segment.meta()));
        Ok(ExaminedSegment { id, kind, segment, damage })
    }
}

impl Version {
    /// Segments that were given up, oldest first.
    pub fn quarantine(&self) -> &[Arc<QuarantinedSegment>] {
        &self.quarantine
    }
}

impl Planned<'_> {
    /// Gives a segment up. Whoever has applied its rows learns from the change map that they are
    /// not what they were.
    pub(crate) fn plan_quarantine(&mut self, edit: Edit) -> Result<(), StorageError> {
        let Edit::QuarantineSegment { id, path, .. } = &edit else {
            let text = format!("{edit:?} gives no segment up");
            return Err(StorageError::Invalid(text));
        };
        let id = id.clone();
        let measurement = self.existing(&id)?;
        if is_in_memory(path) {
            let text = format!("{path} is in memory; a restart loses it, and it is made anew");
            return Err(StorageError::Invalid(text));
        }
        let times = measurement.segments().find(|own| own.path == *path).map(|own| own.times);
        let times = times.ok_or_else(|| StorageError::NoSuchSegment { path: path.clone() })?;
        let lost = times.intersect(TimeRange::since(measurement.floor()));
        self.push(edit);
        let runs = granules(&TimeRanges::from(lost), self.seq());
        if !runs.is_empty() {
            self.push(Edit::TouchGranules { id: id.clone(), runs });
        }
        self.remove_idle_tombstones(&id);
        Ok(())
    }
}

/// Moves files of segments that were given up and are still where they were, because of a crash
/// behind the commit. Takes them from `found`, the files there are; one that cannot be moved now is
/// tried again by the next open.
pub(crate) async fn set_aside_quarantined(
    files: &FileStore,
    version: &Version,
    found: &mut Vec<(String, u64)>,
) {
    for given_up in version.quarantine() {
        let path = &given_up.segment.path;
        let Ok(at) = found.binary_search_by(|(own, _)| own.cmp(path)) else { continue };
        found.remove(at);
        set_aside(files, path).await;
    }
}

/// Moves the file of a segment that was given up; `false` if that has to be tried again.
pub(crate) async fn set_aside(files: &FileStore, path: &str) -> bool {
    let kept = kept_path(path);
    match files.move_segment(path, &kept).await {
        Ok(true) => info!(path, kept, "the file of a segment that was given up is kept"),
        Ok(false) => info!(path, "the segment that was given up has no file"),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            warn!(path, error, "could not move the file of a segment that was given up");
            return false;
        }
    }
    true
}
