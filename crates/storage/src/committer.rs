//! The commit thread: the one writer of the engine, and so the one order of all commits.
//!
//! ```text
//! requests ──► take all that wait ──► decide, log, apply to a draft ──► one sync ──► publish ──► answer
//! ```
//!
//! Writes and deletes that wait together share one write to the log, one sync and one published
//! version. Changes of the manifest stand alone. Nothing is published before it is as durable as
//! the settings ask, and after a failed write or sync nothing is accepted any more: what the disk
//! holds then is only known to the next [`open`](crate::Engine::open).

mod log;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use highwater_core::{Clock, MeasurementId, PointBatch, SequenceNumber};
use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tracing::error;

use crate::backup::Snapshot;
use crate::columns::Columns;
use crate::compaction::CompactionHistory;
use crate::delete::{Delete, resolve_delete};
use crate::error::StorageError;
use crate::file_store::FileStore;
use crate::late::{DroppedPoints, LatePoints, LateRules};
use crate::manifest::{Edit, Manifest, MeasurementKind};
use crate::pressure::{MemoryPressure, NotedPressure};
use crate::resident::Residents;
use crate::segment::SegmentStore;
use crate::settings::{Durability, Settings};
use crate::version::Version;
use crate::wal::WalWriter;
use crate::write::{Target, WriteMode, WriteReport, decide};

/// Requests that wait for the commit thread; senders wait when there are more.
pub(crate) const QUEUE_REQUESTS: usize = 1024;
/// Requests that are taken from the queue together at most.
const GROUP_REQUESTS: usize = 256;
/// A group with this many points is finished before more requests join it.
const GROUP_ROWS: usize = 200_000;
/// How long a write may stay unsynced with [`Durability::Periodic`].
const SYNC_PERIOD: Duration = Duration::from_millis(100);

/// Where the answer to a request goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

/// Decides the edits of a commit on the newest version; the number is that of the commit. No edits
/// mean no commit.
pub(crate) type Plan =
    Box<dyn FnOnce(&Version, SequenceNumber) -> Result<Vec<Edit>, StorageError> + Send>;

/// What the commit thread is asked for.
pub(crate) enum Request {
    /// Store points.
    Write(Write, Reply<WriteReport>),
    /// Hide points. Answered with the commit that hides them.
    Delete(Delete, Reply<SequenceNumber>),
    /// Change the manifest. Answered with the version that shows the change.
    Edit(Plan, Reply<Arc<Version>>),
    /// Continue in a new log and freeze all memtables. Answered with the version in which they
    /// are frozen.
    RotateLog(Reply<Arc<Version>>),
    /// Remember more of a measurement from now on, see [`Engine::watch`](crate::Engine::watch).
    Watch(MeasurementId, BTreeSet<Arc<str>>, Reply<()>),
    /// What a backup needs to know of this moment.
    Snapshot(Reply<Snapshot>),
    /// Sync and stop.
    Close(Reply<()>),
}

/// Points of one request.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) database: Arc<str>,
    pub(crate) batches: Vec<PointBatch>,
    pub(crate) mode: WriteMode,
    pub(crate) late: LateRules,
}

/// What the commit thread and everybody else look at together.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) files: Arc<FileStore>,
    pub(crate) segments: Arc<SegmentStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    /// Bytes of the newest log.
    pub(crate) log_bytes: AtomicU64,
    /// Whether commits of the manifest fail, see [`Engine::fail_commits`](crate::Engine::fail_commits).
    pub(crate) fails_commits: AtomicBool,
    /// How short memory is.
    pub(crate) pressure: NotedPressure,
    /// What was compacted since the start.
    pub(crate) compactions: CompactionHistory,
    /// Woken when memtables have grown enough to be flushed.
    pub(crate) flush_due: Notify,
    /// Woken when there may be segments to compact.
    pub(crate) segments_changed: Notify,
    /// Points that came too late and were left out.
    pub(crate) dropped_late: DroppedPoints,
    /// Measurements that stay in memory.
    pub(crate) residents: Residents,
    /// The newest commit, for whoever waits for one.
    pub(crate) commits: watch::Sender<SequenceNumber>,
    published: RwLock<Arc<Version>>,
    /// Why nothing is accepted any more.
    failure: RwLock<Option<String>>,
}

impl Shared {
    pub(crate) fn new(
        segments: Arc<SegmentStore>,
        files: Arc<FileStore>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        version: Version,
    ) -> Self {
        let commits = watch::Sender::new(version.seq());
        let published = RwLock::new(Arc::new(version));
        let (flush_due, segments_changed) = (Notify::new(), Notify::new());
        let (log_bytes, failure) = (AtomicU64::new(0), RwLock::default());
        Shared {
            files,
            segments,
            clock,
            settings,
            log_bytes,
            fails_commits: AtomicBool::new(false),
            pressure: NotedPressure::default(),
            compactions: CompactionHistory::default(),
            dropped_late: DroppedPoints::default(),
            residents: Residents::default(),
            flush_due,
            segments_changed,
            commits,
            published,
            failure,
        }
    }

    /// Why nothing is accepted any more; `None` while all is well.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.read().clone()
    }

    /// The error of a request that the commit thread will not answer.
    pub(crate) fn unanswered(&self) -> StorageError {
        self.failure().map_or(StorageError::Closed, |reason| StorageError::Poisoned { reason })
    }

    /// The newest version.
    pub(crate) fn version(&self) -> Arc<Version> {
        Arc::clone(&self.published.read())
    }
}

/// The state that only the commit thread has.
#[derive(Debug)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
    manifest: Manifest,
    log: WalWriter,
    /// Number of the next log file to try.
    next_log: u64,
    /// When the log has to be synced, if something in it is not.
    sync_at: Option<Instant>,
}

/// Requests that will be durable, visible and answered together.
struct Group {
    draft: Version,
    answers: Vec<Answer>,
    rows: usize,
}

enum Answer {
    Write(Reply<WriteReport>, WriteReport),
    Delete(Reply<SequenceNumber>, SequenceNumber),
}

impl Committer {
    /// A commit thread's state that continues `log`, the newest of the manifest's logs.
    pub(crate) fn new(shared: Arc<Shared>, manifest: Manifest, log: WalWriter) -> Self {
        let next_log = log.number() + 1;
        Committer { shared, manifest, log, next_log, sync_at: None }
    }

    /// Serves requests until [`Request::Close`] or until nobody can send any more.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut requests = Vec::with_capacity(GROUP_REQUESTS);
        loop {
            let received = queue.recv_many(&mut requests, GROUP_REQUESTS);
            let received = match self.sync_at {
                Some(at) => timeout_at(at, received).await,
                None => Ok(received.await),
            };
            match received {
                Ok(0) => break,
                Ok(_) => {
                    if self.serve(&mut requests).await.is_break() {
                        return;
                    }
                }
                Err(_) => drop(self.sync_log()),
            }
        }
        drop(self.sync_log());
    }

    async fn serve(&mut self, requests: &mut Vec<Request>) -> std::ops::ControlFlow<()> {
        let mut group = self.new_group();
        for request in requests.drain(..) {
            if group.rows >= GROUP_ROWS {
                self.finish(group);
                group = self.new_group();
            }
            match request {
                Request::Write(write, reply) => match self.stage_write(&mut group.draft, write) {
                    Ok(report) => {
                        group.rows += report.rows;
                        group.answers.push(Answer::Write(reply, report));
                    }
                    Err(error) => drop(reply.send(Err(error))),
                },
                Request::Delete(delete, reply) => {
                    match self.stage_delete(&mut group.draft, delete) {
                        Ok(seq) => group.answers.push(Answer::Delete(reply, seq)),
                        Err(error) => drop(reply.send(Err(error))),
                    }
                }
                Request::Edit(plan, reply) => {
                    self.finish(group);
                    drop(reply.send(self.edit(plan).await));
                    group = self.new_group();
                }
                Request::RotateLog(reply) => {
                    self.finish(group);
                    drop(reply.send(self.rotate_log().await));
                    group = self.new_group();
                }
                Request::Watch(id, columns, reply) => {
                    self.finish(group);
                    self.watch(&id, &columns);
                    drop(reply.send(Ok(())));
                    group = self.new_group();
                }
                Request::Snapshot(reply) => {
                    self.finish(group);
                    drop(reply.send(self.snapshot()));
                    group = self.new_group();
                }
                Request::Close(reply) => {
                    self.finish(group);
                    drop(reply.send(self.close_log().await));
                    return std::ops::ControlFlow::Break(());
                }
            }
        }
        self.finish(group);
        std::ops::ControlFlow::Continue(())
    }

    fn new_group(&self) -> Group {
        Group { draft: Version::clone(&self.shared.version()), answers: Vec::new(), rows: 0 }
    }

    fn stage_write(
        &mut self,
        draft: &mut Version,
        write: Write,
    ) -> Result<WriteReport, StorageError> {
        self.check_sound()?;
        self.check_memory(draft)?;
        let mut next = draft.clone();
        let (seq, now) = (draft.seq().next(), self.shared.clock.now());
        let mut stored = Vec::with_capacity(write.batches.len());
        let (mut dropped, mut refused) = (Vec::new(), Vec::new());
        for batch in write.batches {
            let id =
                MeasurementId::new(Arc::clone(&write.database), Arc::clone(&batch.measurement));
            let late = write.late.get(&id.measurement).copied().unwrap_or_default();
            let none = Columns::default();
            let target = Target { late, ..self.target(&next, &id, &none) };
            let decision = decide(batch, &target)?;
            refused.extend(decision.refused);
            if decision.dropped > 0 {
                dropped.push((id.clone(), decision.dropped));
            }
            if decision.accepted.rows() > 0 {
                next.note_time(&id, now);
                next.apply_points(&id, &decision.accepted, seq)?;
                stored.push((id, decision.accepted));
            }
        }
        let all_or_nothing = write.mode == WriteMode::AllOrNothing;
        if all_or_nothing && !refused.is_empty() {
            return Ok(WriteReport { seq: draft.seq(), rows: 0, dropped: 0, refused });
        }
        let dropped = self.shared.dropped_late.count(dropped);
        if stored.is_empty() {
            return Ok(WriteReport { seq: draft.seq(), rows: 0, dropped, refused });
        }
        if self.is_logging() {
            self.log.append_points(seq, &stored)?;
        }
        next.note_unflushed(now);
        *draft = next;
        let rows = stored.iter().map(|(_, points)| points.rows()).sum();
        Ok(WriteReport { seq, rows, dropped, refused })
    }

    fn target<'a>(&self, version: &'a Version, id: &MeasurementId, new: &'a Columns) -> Target<'a> {
        let measurement = version.measurement(id);
        let keep = version.retention(id);
        Target {
            kind: measurement.map_or(MeasurementKind::Points, |found| found.kind()),
            columns: measurement.map_or(new, |found| &found.columns),
            horizon: keep.map(|keep| (keep.before(self.shared.clock.now()), keep)),
            late: LatePoints::Refuse,
        }
    }

    fn stage_delete(
        &mut self,
        draft: &mut Version,
        delete: Delete,
    ) -> Result<SequenceNumber, StorageError> {
        self.check_sound()?;
        let seq = draft.seq().next();
        let Some(resolved) = resolve_delete(draft, &delete, seq)? else {
            return Ok(draft.seq());
        };
        if self.is_logging() {
            self.log.append_delete(&delete.id, &resolved.tombstone, &resolved.touched)?;
        }
        let now = self.shared.clock.now();
        draft.note_time(&delete.id, now);
        draft.apply_delete(&delete.id, resolved.tombstone, &resolved.touched);
        draft.note_unflushed(now);
        Ok(seq)
    }

    /// Makes a group durable, then visible, then known to those who asked.
    fn finish(&mut self, group: Group) {
        let durable = self.write_log();
        if durable.is_ok() {
            self.publish(group.draft);
        }
        for answer in group.answers {
            answer.send(durable.as_ref().err());
        }
    }

    async fn edit(&mut self, plan: Plan) -> Result<Arc<Version>, StorageError> {
        self.check_sound()?;
        let version = self.shared.version();
        let seq = version.seq().next();
        let edits = plan(&version, seq)?;
        if edits.is_empty() {
            return Ok(version);
        }
        self.commit_edits(seq, &edits).await
    }

    fn watch(&self, id: &MeasurementId, columns: &BTreeSet<Arc<str>>) {
        let mut next = Version::clone(&self.shared.version());
        if let Some(measurement) = next.measurement_mut(id) {
            measurement.watch(columns);
            self.publish(next);
        }
    }

    fn snapshot(&mut self) -> Result<Snapshot, StorageError> {
        self.check_sound()?;
        self.sync_log()?;
        Ok(Snapshot {
            version: self.shared.version(),
            state: self.manifest.state().clone(),
            number: self.manifest.number(),
            newest_log_bytes: self.log.bytes(),
        })
    }

    /// Commits edits durably and publishes the version that shows them. All commits before it are
    /// durable first: a manifest must not know of effects of commits that are lost.
    async fn commit_edits(
        &mut self,
        seq: SequenceNumber,
        edits: &[Edit],
    ) -> Result<Arc<Version>, StorageError> {
        if self.shared.fails_commits.load(Ordering::Relaxed) {
            return Err(StorageError::Fault);
        }
        self.sync_log()?;
        let mut edits = edits.to_vec();
        edits.extend(self.synced_log().map(Edit::SyncLog));
        let durable: Vec<Edit> =
            edits.iter().filter(|edit| !edit.is_of_memory()).cloned().collect();
        match self.manifest.commit(seq, &durable).await {
            Ok(()) => {}
            // The edits contradict the manifest, or it was not reached; nothing has happened.
            Err(error @ (StorageError::Invalid(_) | StorageError::Unreachable { .. })) => {
                return Err(error);
            }
            Err(error) => return Err(StorageError::Poisoned { reason: self.poison(&error) }),
        }
        let mut next = Version::clone(&self.shared.version());
        for edit in &edits {
            next.mark_removed_by(edit);
            next.apply_edit(edit, seq, &self.shared.segments);
        }
        self.publish(next);
        if edits
            .iter()
            .any(|edit| matches!(edit, Edit::AddSegment { .. } | Edit::AddTombstone { .. }))
        {
            self.shared.segments_changed.notify_one();
        }
        Ok(self.shared.version())
    }

    fn publish(&self, version: Version) {
        let due = version.flush_due_by_size(&self.shared.settings);
        let seq = version.seq();
        *self.shared.published.write() = Arc::new(version);
        self.shared.commits.send_replace(seq);
        if due {
            self.shared.flush_due.notify_one();
        }
    }

    fn is_logging(&self) -> bool {
        self.shared.settings.durability != Durability::None
    }

    fn check_sound(&self) -> Result<(), StorageError> {
        match self.shared.failure() {
            Some(reason) => Err(StorageError::Poisoned { reason }),
            None => Ok(()),
        }
    }

    fn check_memory(&self, version: &Version) -> Result<(), StorageError> {
        let memtable_bytes = version.memory().bytes;
        let limit_bytes = self.shared.settings.max_memtable_bytes;
        if memtable_bytes > limit_bytes {
            return Err(StorageError::Overloaded { memtable_bytes, limit_bytes });
        }
        let settings = &self.shared.settings;
        match self.shared.pressure.on_memtables(memtable_bytes, settings) {
            MemoryPressure::Full => Err(StorageError::MemoryFull),
            MemoryPressure::None | MemoryPressure::High => Ok(()),
        }
    }

    fn poison(&mut self, cause: &StorageError) -> String {
        let mut reason = cause.to_string();
        let mut source = std::error::Error::source(cause);
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        if matches!(cause, StorageError::Io { .. }) {
            reason.push_str("; free space or repair the disk first");
        }
        error!(%reason, "writes are refused until the engine is opened again");
        self.shared.failure.write().get_or_insert(reason).clone()
    }
}

impl Drop for Committer {
    /// A defect that ends the thread is told to whoever asks for something afterwards.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "a defect stopped the commit thread".to_owned();
            self.shared.failure.write().get_or_insert(reason);
        }
    }
}

impl Answer {
    /// Nobody may be waiting any more; that is fine.
    fn send(self, failure: Option<&String>) {
        let failure = failure.map(|reason| StorageError::Poisoned { reason: reason.clone() });
        match (self, failure) {
            (Answer::Write(reply, _), Some(error)) => drop(reply.send(Err(error))),
            (Answer::Write(reply, report), None) => drop(reply.send(Ok(report))),
            (Answer::Delete(reply, _), Some(error)) => drop(reply.send(Err(error))),
            (Answer::Delete(reply, seq), None) => drop(reply.send(Ok(seq))),
        }
    }
}
