//! Putting the commits of logs into effect again, within the memory that a running engine takes.
//!
//! ```text
//! read ahead ──► replay into memtables ──► full: freeze, and write segments beside ──► edits
//! ```
//!
//! Segments that are written on the way become live with the commit of the opening, together with
//! everything else; after a crash before that no commit refers to them, and the logs still have it
//! all.

use std::sync::Arc;

use highwater_core::{Clock, MeasurementId, SequenceNumber};
use tokio::task::JoinHandle;
use tracing::info;

use crate::error::StorageError;
use crate::file_store::FileStore;
use crate::flush::{FlushedMeasurement, plan_flushed, write_frozen};
use crate::manifest::{Edit, ManifestState};
use crate::segment::SegmentStore;
use crate::settings::Settings;
use crate::version::Version;
use crate::wal::{LogReading, Record};

/// Replaying at work: what it needs to know, and how far it is.
pub(super) struct Replay<'a> {
    state: &'a ManifestState,
    segments: &'a Arc<SegmentStore>,
    settings: &'a Settings,
    clock: &'a dyn Clock,
    /// The state so far.
    pub(super) version: Version,
    /// Edits that put what was replayed into segments. The version has them already.
    pub(super) edits: Vec<Edit>,
    /// The last commit in the logs so far.
    reached: SequenceNumber,
    replayed: u64,
    flushing: Option<Flushing>,
}

/// Frozen memtables on their way into segments.
struct Flushing {
    /// The last commit in them.
    up_to: SequenceNumber,
    writing: JoinHandle<Result<Vec<FlushedMeasurement>, StorageError>>,
}

impl<'a> Replay<'a> {
    pub(super) fn new(
        state: &'a ManifestState,
        version: Version,
        segments: &'a Arc<SegmentStore>,
        settings: &'a Settings,
        clock: &'a dyn Clock,
    ) -> Self {
        let (edits, reached) = (Vec::new(), SequenceNumber::ZERO);
        Replay {
            state,
            segments,
            settings,
            clock,
            version,
            edits,
            reached,
            replayed: 0,
            flushing: None,
        }
    }

    /// Applies the commits that segments do not hold yet, oldest first.
    ///
    /// # Errors
    /// Those of reading the logs and of storing segments.
    pub(super) async fn run(&mut self, files: &Arc<FileStore>) -> Result<(), StorageError> {
        let read = self.read_logs(files).await;
        // Nothing goes on behind the back of whoever tries again.
        read.and(self.finish_flush().await)?;
        if self.replayed > 0 {
            let (rows, flushed) = (self.version.memory().rows, !self.edits.is_empty());
            info!(self.replayed, rows, flushed, "brought back commits from the log");
        }
        Ok(())
    }

    async fn read_logs(&mut self, files: &Arc<FileStore>) -> Result<(), StorageError> {
        for &number in &self.state.logs {
            let is_last = self.state.logs.last() == Some(&number);
            let durable_bytes = self.state.durable_bytes(number);
            let mut log = LogReading::start(files, number, is_last, durable_bytes);
            while let Some(records) = log.next().await? {
                for record in records {
                    self.replay(record)?;
                    self.keep_within_memory().await?;
                }
            }
        }
        Ok(())
    }

    /// Applies one record, unless its effect is durable elsewhere or has been undone.
    fn replay(&mut self, record: Record) -> Result<(), StorageError> {
        let state = self.state;
        let is_over = |id: &MeasurementId, seq: SequenceNumber| {
            seq <= state.flushed || state.dropped.get(id).is_some_and(|dropped| seq <= *dropped)
        };
        let mut applied = false;
        match record {
            Record::Points { seq, batches } => {
                for (id, points) in batches.iter().filter(|(id, _)| !is_over(id, seq)) {
                    self.version.apply_points(id, points, seq)?;
                    applied = true;
                }
                self.reached = seq;
            }
            Record::Delete { id, tombstone, touched } => {
                self.reached = tombstone.seq;
                if !is_over(&id, tombstone.seq) {
                    self.version.apply_delete(&id, tombstone, &touched);
                    applied = true;
                }
            }
        }
        self.version.note_seq(self.reached);
        if applied {
            self.replayed += 1;
            self.version.note_unflushed(self.clock.now());
        }
        Ok(())
    }

    /// Flushes as a running engine does: from a certain size on beside everything else, and beyond
    /// the limit nothing goes on before it is done.
    async fn keep_within_memory(&mut self) -> Result<(), StorageError> {
        let is_full = self.version.memory().bytes > self.settings.max_memtable_bytes;
        if is_full || self.flushing.as_ref().is_some_and(|one| one.writing.is_finished()) {
            self.finish_flush().await?;
        }
        if self.flushing.is_none() && self.version.flush_due_by_size(self.settings) {
            self.start_flush();
        }
        Ok(())
    }

    fn start_flush(&mut self) {
        self.version.freeze();
        let (frozen, store) = (self.version.clone(), Arc::clone(self.segments));
        let writing = tokio::spawn(async move { write_frozen(&frozen, &store).await });
        self.flushing = Some(Flushing { up_to: self.reached, writing });
    }

    async fn finish_flush(&mut self) -> Result<(), StorageError> {
        let Some(Flushing { up_to, writing }) = self.flushing.take() else { return Ok(()) };
        let flushed =
            writing.await.map_err(|e| StorageError::Defect { panic: e.to_string() })??;
        let (version, seq) = (&self.version, self.version.seq());
        let edits = plan_flushed(&flushed, up_to, version, seq, self.segments);
        edits.iter().for_each(|edit| self.version.apply_edit(edit, seq, self.segments));
        self.edits.extend(edits);
        Ok(())
    }
}
