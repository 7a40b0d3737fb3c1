//! Settings of the storage engine, with defaults and units.

use serde::{Deserialize, Serialize};

/// When acknowledged writes are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Synced before the acknowledgement; concurrent writers share a sync. A crash loses nothing.
    #[default]
    EveryWrite,
    /// Written before the acknowledgement, synced every 100 ms. A power cut loses up to that.
    Periodic,
    /// Written before the acknowledgement, synced when the operating system likes.
    Os,
    /// Not logged: a crash loses everything since the last flush.
    None,
}

/// Settings of [`Engine`](crate::Engine).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// When acknowledged writes are on disk.
    pub durability: Durability,
    /// Memtables are flushed when they hold this many bytes together. Default 64 MiB.
    pub flush_bytes: usize,
    /// ... or this many points. Default 1,000,000.
    pub flush_points: usize,
    /// ... or a point older than this many seconds. Default 60.
    pub flush_age_secs: u64,
    /// Writers are pushed back while memtables hold more bytes than this. Default 256 MiB.
    pub max_memtable_bytes: usize,
    /// Segments of one day are joined when more than this many pile up. Default 8.
    pub compact_segments: usize,
    /// Neighbouring days share a segment as long as they have no more points; with 0 each day has
    /// its own. Default 65,536.
    pub window_points: u64,
    /// Where segments and the manifest live, as `s3://bucket/prefix`; the log stays in the data
    /// folder. Default: in the data folder.
    pub object_store: Option<String>,
    /// Bytes of segments of an object store that are kept in the data folder. Default 10 GiB.
    pub cache_bytes: u64,
    /// Opens an object store without the logs of the data folder that had it open last. A word for
    /// one start, not for a file of settings. Default: no.
    #[serde(skip)]
    pub abandon_logs: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            durability: Durability::EveryWrite,
            flush_bytes: 64 << 20,
            flush_points: 1_000_000,
            flush_age_secs: 60,
            max_memtable_bytes: 256 << 20,
            compact_segments: 8,
            window_points: 64 * 1024,
            object_store: None,
            cache_bytes: 10 << 30,
            abandon_logs: false,
        }
    }
}
