//! What can go wrong in storage.

use highwater_core::{ErrorKind, FieldType, MeasurementId, TimeRange};

/// An error of the storage engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Background work stopped in a way that it never should.
    #[error("a defect stopped background work: {panic}")]
    Defect {
        /// What the panic said.
        panic: String,
    },
    /// The object store or the file system refused.
    #[error("could not {action} {path}")]
    Io {
        /// What was tried, as a verb: `read`, `write`, `list`, `delete`, `sync`.
        action: &'static str,
        /// Path relative to the data folder.
        path: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Stored bytes are not what was written.
    #[error("{path} is damaged at byte {offset}: {reason}; restore the file from a backup")]
    Corrupt {
        /// Path relative to the data folder.
        path: String,
        /// Where in the file, as far as known.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A Parquet segment could not be written or decoded.
    #[error("could not encode or decode segment {path}")]
    Parquet {
        /// Path relative to the data folder.
        path: String,
        /// The cause.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// Columns could not be combined.
    #[error("could not combine columns")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Commits of the manifest fail because a test wants them to. Nothing has changed.
    #[error("the manifest is not written while the fault switch fail_store is on; clear it")]
    Fault,
    /// The object store did not answer, or refused. Nothing has changed.
    #[error("could not reach the object store {url}")]
    Unreachable {
        /// As in the settings.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The object store stopped answering while something was written.
    #[error("it is not known whether {path} was written to the object store {url}")]
    Unresolved {
        /// Path relative to the data folder.
        path: String,
        /// As in the settings.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has become the one writer of this database.
    #[error("another process has opened this database; one of the two has to stop for good")]
    Fenced,
    /// The logs that the manifest names are in another data folder.
    #[error(
        "the newest acknowledged writes are in {logs} of the data folder that had {url} open last; \
         start there and stop in order, or give them up with --abandon-logs"
    )]
    LogsElsewhere {
        /// Paths relative to that folder.
        logs: String,
        /// The object store, as in the settings.
        url: String,
    },
    /// A sync failed earlier, or another process took over, so nothing more can be promised until
    /// the engine is reopened.
    #[error("writes are refused until a restart: {reason}")]
    Poisoned {
        /// The failure that stopped writes.
        reason: String,
    },
    /// The data folder is in use by another process.
    #[error("data folder {path} is in use by another process")]
    Locked {
        /// The folder.
        path: String,
    },
    /// The engine is shutting down.
    #[error("the storage engine is closed")]
    Closed,
    /// Memory for points not yet in segments is used up; try again after the next flush.
    #[error(
        "{memtable_bytes} bytes wait to be flushed, the limit is {limit_bytes}; try again shortly"
    )]
    Overloaded {
        /// Bytes held now.
        memtable_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The process uses all the memory it may; try again after the next flush.
    #[error("the server uses all the memory it may and is flushing; try again shortly")]
    MemoryFull,
    /// Results that are to be kept in memory do not fit.
    #[error(
        "{needed_bytes} bytes more do not fit into memory beside {used_bytes}, the limit is \
         {most_bytes}; raise aggregation.resident_mb, or keep less with storage: memory"
    )]
    NoRoomInMemory {
        /// What was to be added.
        needed_bytes: u64,
        /// What is there.
        used_bytes: u64,
        /// The limit.
        most_bytes: u64,
    },
    /// No such measurement.
    #[error("there is no measurement {0}")]
    NoSuchMeasurement(MeasurementId),
    /// No such segment.
    #[error("there is no live segment {path}; system.segments lists them all")]
    NoSuchSegment {
        /// Path relative to the data folder.
        path: String,
    },
    /// A field is declared or replaced with a different type.
    #[error("field {field} of {measurement} is {stored}, not {written}")]
    FieldTypeConflict {
        /// The measurement.
        measurement: MeasurementId,
        /// The field.
        field: String,
        /// Its type so far.
        stored: FieldType,
        /// The type asked for.
        written: FieldType,
    },
    /// A delete reaches into time whose points have already expired.
    #[error("cannot delete in {range} of {measurement}: {reason}")]
    DeleteRefused {
        /// The measurement.
        measurement: MeasurementId,
        /// The range concerned.
        range: TimeRange,
        /// Why, and what to do.
        reason: String,
    },
    /// A manifest commit was prepared on a state that has changed since.
    #[error("{what} changed in between; look and try again")]
    Conflict {
        /// What changed.
        what: String,
    },
    /// The request is not one the engine can carry out.
    #[error("{0}")]
    Invalid(String),
}

impl StorageError {
    /// Path of the file that is damaged, relative to the data folder, if that is the problem.
    pub fn damaged_file(&self) -> Option<&str> {
        match self {
            StorageError::Corrupt { path, .. } | StorageError::Parquet { path, .. } => Some(path),
            _ => None,
        }
    }

    /// What the caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            StorageError::Io { .. }
            | StorageError::Unreachable { .. }
            | StorageError::Unresolved { .. }
            | StorageError::Fault
            | StorageError::Fenced
            | StorageError::Poisoned { .. }
            | StorageError::Locked { .. }
            | StorageError::Closed
            | StorageError::Overloaded { .. }
            | StorageError::NoRoomInMemory { .. }
            | StorageError::MemoryFull => ErrorKind::Unavailable,
            StorageError::Corrupt { .. } | StorageError::Parquet { .. } => ErrorKind::Corrupt,
            StorageError::NoSuchMeasurement(_) | StorageError::NoSuchSegment { .. } => {
                ErrorKind::NotFound
            }
            StorageError::FieldTypeConflict { .. }
            | StorageError::DeleteRefused { .. }
            | StorageError::LogsElsewhere { .. }
            | StorageError::Conflict { .. } => ErrorKind::Conflict,
            StorageError::Invalid(_) => ErrorKind::Invalid,
            StorageError::Arrow(_) | StorageError::Defect { .. } => ErrorKind::Internal,
        }
    }
}
