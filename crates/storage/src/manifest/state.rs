//! What the manifest says: the durable state of the engine at one commit, and the edits that
//! lead from one state to the next.

use std::sync::Arc;

use highwater_core::bucket::Span;
use highwater_core::{
    Condition, MeasurementId, Schema, SequenceNumber, TimeRange, TimeRanges, Timestamp,
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::changes::ChangeMap;
use crate::quarantine::QuarantinedSegment;
use crate::segment::{SegmentMeta, is_in_memory};

/// What a measurement holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeasurementKind {
    /// Points that clients write; identity is (tag set, time) and rows are deduplicated.
    Points,
    /// Rows that are only ever replaced by ranges of time; nothing is deduplicated.
    Materialization,
    /// Rows of an aggregate, at most one per (tag set, time): the newest counts, as a whole.
    Rollup,
}

impl MeasurementKind {
    /// Whether only one row per (tag set, time) counts, so that the age of segments matters.
    pub(crate) fn is_deduplicated(self) -> bool {
        match self {
            MeasurementKind::Points | MeasurementKind::Rollup => true,
            MeasurementKind::Materialization => false,
        }
    }

    /// One word, for `system.segments`.
    pub fn name(self) -> &'static str {
        match self {
            MeasurementKind::Points => "points",
            MeasurementKind::Materialization => "materialization",
            MeasurementKind::Rollup => "rollup",
        }
    }
}

/// Rows that are gone though their segments still hold them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Hides rows of segments whose `max_seq` is smaller.
    pub seq: SequenceNumber,
    /// Only rows in here.
    pub times: TimeRanges,
    /// Only rows for which this holds; it names `time` and tags, never fields.
    pub condition: Condition,
}

/// A measurement in the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasurementState {
    /// What it holds.
    pub kind: MeasurementKind,
    /// Its columns.
    pub schema: Arc<Schema>,
    /// Its segments, by `(max_seq, path)`.
    pub segments: Vec<Arc<SegmentMeta>>,
    /// Deletes and replacements not yet compacted away, by `seq`.
    pub tombstones: Vec<Arc<Tombstone>>,
    /// Points before this instant have expired and are gone for good, whatever segments hold.
    pub floor: Timestamp,
    /// Which granules of event time were touched when, as far as commits are in segments.
    pub changes: ChangeMap,
}

/// How long points of some measurements are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionRule {
    /// Exact name, prefix followed by `*`, or `*`. Exact beats longest prefix beats `*`.
    pub measurement: String,
    /// Points with `time < now - keep` are expired.
    pub keep: Span,
    /// How much longer they may be kept for somebody who needs them before it is time to worry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_hold: Option<Span>,
}

/// One change of the durable state. Edits of one commit apply together or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// A database exists (names come into being on first use).
    CreateDatabase {
        /// Its name.
        database: Arc<str>,
    },
    /// A measurement exists, with these columns; replaces the schema if it existed.
    DefineMeasurement {
        /// Which.
        id: MeasurementId,
        /// What it holds; never changes.
        kind: MeasurementKind,
        /// All its columns.
        schema: Arc<Schema>,
    },
    /// A measurement and its data are gone.
    DropMeasurement {
        /// Which.
        id: MeasurementId,
    },
    /// A segment is live.
    AddSegment {
        /// Of which measurement.
        id: MeasurementId,
        /// The segment.
        segment: Arc<SegmentMeta>,
    },
    /// A segment is no longer live; its file may be deleted once no reader needs it.
    RemoveSegment {
        /// Of which measurement.
        id: MeasurementId,
        /// Path of the segment.
        path: String,
    },
    /// A segment is given up: no longer live, and its file is kept.
    QuarantineSegment {
        /// Of which measurement.
        id: MeasurementId,
        /// Path of the segment.
        path: String,
        /// What is wrong with it; `None` if nothing is.
        damage: Option<String>,
        /// When that was decided.
        at: Timestamp,
    },
    /// Rows of older segments are gone.
    AddTombstone {
        /// Of which measurement.
        id: MeasurementId,
        /// Which rows.
        tombstone: Arc<Tombstone>,
    },
    /// No segment older than this tombstone is left.
    RemoveTombstone {
        /// Of which measurement.
        id: MeasurementId,
        /// `seq` of the tombstone.
        seq: SequenceNumber,
    },
    /// Points before `floor` are gone for good.
    RaiseFloor {
        /// Of which measurement.
        id: MeasurementId,
        /// The new floor; a lower one than before changes nothing.
        floor: Timestamp,
    },
    /// Granules were touched: merged into the change map.
    TouchGranules {
        /// Of which measurement.
        id: MeasurementId,
        /// Range of whole granules, and the last commit that touched each of them.
        runs: Vec<(TimeRange, SequenceNumber)>,
    },
    /// Nobody needs to tell commits up to `seq` apart any more.
    CoarsenChanges {
        /// Of which measurement.
        id: MeasurementId,
        /// Changes at or before this commit may be recorded as this commit.
        seq: SequenceNumber,
    },
    /// The retention rules of a database, replacing those before.
    SetRetention {
        /// Name of the database.
        database: Arc<str>,
        /// All its rules.
        rules: Vec<RetentionRule>,
    },
    /// A document of a layer above (definitions, watermarks, job progress); `None` removes it.
    PutDocument {
        /// Its key, unique in the engine.
        key: String,
        /// Its text; storage does not look inside.
        text: Option<Arc<str>>,
    },
    /// All commits up to here are in segments, so logs holding only these are not needed.
    Flushed {
        /// The last such commit.
        seq: SequenceNumber,
    },
    /// A log file is in use and must be there at recovery.
    OpenLog {
        /// Its number.
        log: u64,
    },
    /// Tells this database from others.
    Identify {
        /// Any text; set once.
        identity: Arc<str>,
    },
    /// A process has become the one writer of a database in an object store. It is in the first
    /// commit of every opening, before which nobody else's files may be touched.
    Open {
        /// No two openings have the same, so no two processes ever write the same commit.
        opening: Arc<str>,
    },
    /// So much of a log is durable; the commits in it are before this one.
    SyncLog(SyncedLog),
    /// A log file is not needed any more.
    CloseLog {
        /// Its number.
        log: u64,
    },
}

impl Edit {
    /// Whether it adds or removes a segment in memory, of which the manifest is not to know.
    pub(crate) fn is_of_memory(&self) -> bool {
        match self {
            Edit::AddSegment { segment, .. } => segment.is_in_memory(),
            Edit::RemoveSegment { path, .. } => is_in_memory(path),
            _ => false,
        }
    }
}

/// The beginning of a log, which is durable and so must be readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncedLog {
    /// Number of the log.
    pub log: u64,
    /// Length of the beginning.
    pub bytes: u64,
}

impl ManifestState {
    /// How much of a log is known to be durable, in bytes.
    pub(crate) fn durable_bytes(&self, log: u64) -> u64 {
        self.synced_log.filter(|synced| synced.log == log).map_or(0, |synced| synced.bytes)
    }
}

/// The durable state of the engine after some commit. A clone costs nothing and shares what later
/// edits leave alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ManifestState {
    /// The last commit of the manifest; commits after it may be in the logs.
    pub seq: SequenceNumber,
    /// All commits up to this one are in segments.
    pub flushed: SequenceNumber,
    /// Log files in use, ascending.
    pub logs: Vec<u64>,
    /// Tells this database from others.
    #[serde(default)]
    pub identity: Option<Arc<str>>,
    /// The last opening, if it is in an object store; its data folder has the logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<Arc<str>>,
    /// How much of the newest log was durable at the last commit of the manifest.
    #[serde(default)]
    pub synced_log: Option<SyncedLog>,
    /// Databases and their retention rules.
    #[serde(with = "map_as_pairs")]
    pub databases: OrdMap<Arc<str>, Vec<RetentionRule>>,
    /// Measurements.
    #[serde(with = "map_as_pairs")]
    pub measurements: OrdMap<MeasurementId, Arc<MeasurementState>>,
    /// Measurements dropped while logs may hold points of theirs, and the commit that did it:
    /// what logs hold of them at or before that commit is gone.
    #[serde(with = "map_as_pairs")]
    pub dropped: OrdMap<MeasurementId, SequenceNumber>,
    /// Documents of layers above.
    #[serde(with = "map_as_pairs")]
    pub documents: OrdMap<String, Arc<str>>,
    /// Segments that were given up, oldest first.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub quarantine: Arc<Vec<Arc<QuarantinedSegment>>>,
}

fn is_empty(quarantine: &[Arc<QuarantinedSegment>]) -> bool {
    quarantine.is_empty()
}

/// Keys of JSON objects must be strings, so maps are written as lists of pairs.
mod map_as_pairs {
    use super::{Deserialize, OrdMap, Serialize};

    pub(super) fn serialize<S, K, V>(map: &OrdMap<K, V>, serializer: S) -> Result<S::Ok, S::Error>
    where
        S: serde::Serializer,
        K: Serialize + Ord,
        V: Serialize,
    {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, D, K, V>(deserializer: D) -> Result<OrdMap<K, V>, D::Error>
    where
        D: serde::Deserializer<'de>,
        K: Deserialize<'de> + Ord + Clone,
        V: Deserialize<'de> + Clone,
    {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}
