//! The manifest: the durable list of what is live, changed only by atomic commits.
//!
//! [`ManifestState`] and how [`Edit`]s change it are pure; [`Manifest`] is the same on disk. The
//! files are described in `docs/format/manifest.md`.

mod apply;
mod files;
mod format;
mod retention;
mod state;

pub use apply::EditError;
pub(crate) use files::{Manifest, UnsoundFiles, encode_checkpoint};
pub(crate) use format::{decode_edits, decode_state};
pub(crate) use retention::retention_of;
pub use state::{
    Edit, ManifestState, MeasurementKind, MeasurementState, RetentionRule, SyncedLog, Tombstone,
};
