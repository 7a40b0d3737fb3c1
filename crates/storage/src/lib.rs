//! The storage engine of Highwater: durable writes and ordered scans of deduplicated points.
//!
//! Storage knows measurements, commits and ranges of event time. It never hears of SQL,
//! aggregates or wire formats.
//!
//! Reading order: `engine` is the door, `committer` the one writer behind it, `version` what readers
//! see. Points go through `write`, `wal`, `memtable`, `flush` and `segment` to `scan`; `manifest` says
//! what is live, `recovery` brings it back, `compaction` tidies up, `quarantine` gives up what is damaged, `resident`
//! keeps measurements in memory.

mod backup;
mod changes;
mod check;
mod columns;
mod commit;
mod committer;
mod compaction;
mod delete;
mod engine;
mod error;
mod fault;
mod file_store;
mod flush;
mod inspect;
mod late;
mod lru;
mod manifest;
mod memtable;
mod parallel;
mod planned;
mod pressure;
mod quarantine;
mod recovery;
mod resident;
mod scan;
mod segment;
mod series;
mod settings;
mod version;
mod wal;
mod watch;
mod worker;
mod write;

pub use backup::{Backup, BackupFile};
pub use changes::ChangeMap;
pub use check::{DataFolder, FolderCheck, check_folder, data_folder};
pub use commit::{Commit, Replacement};
pub use compaction::CompactionRun;
pub use delete::{DerivedRows, TakenAlong};
pub use engine::{Engine, EngineStats};
pub use error::StorageError;
pub use file_store::CacheUse;
pub use inspect::{FileDescription, describe_file};
pub use late::{LatePoints, LateRules};
pub use manifest::{
    Edit, EditError, ManifestState, MeasurementKind, MeasurementState, RetentionRule, SyncedLog,
    Tombstone,
};
pub use pressure::MemoryPressure;
pub use quarantine::{ExaminedSegment, QuarantinedSegment};
pub use resident::Residency;
pub use scan::{Scan, ScanDescription, ScanRequest};
pub use segment::{Medium, SegmentMeta, TagBounds};
pub use settings::{Durability, Settings};
pub use version::{Measurement, Version};
pub use worker::guarded;
pub use write::{RefusedLine, WriteMode, WriteReport};
