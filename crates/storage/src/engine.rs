//! The engine: the one handle through which the layers above write, read and change what is
//! stored.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use highwater_core::{Clock, MeasurementId, PointBatch, SequenceNumber};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot, watch};
use tracing::{debug, info, instrument, warn};

use crate::commit::{Commit, PreparedCommit, plan_commit};
use crate::committer::{Committer, Plan, QUEUE_REQUESTS, Reply, Request, Shared, Write};
use crate::compaction::CompactionRun;
use crate::error::StorageError;
use crate::file_store::{CacheUse, FileStore, run_blocking};
use crate::flush::{close_logs, plan_flushed, write_frozen};
use crate::late::LateRules;
use crate::manifest::Edit;
use crate::pressure::MemoryPressure;
use crate::recovery::{FolderLock, open_folder, recover};
use crate::settings::{Durability, Settings};
use crate::version::Version;
use crate::wal::log_path;
use crate::write::{WriteMode, WriteReport, check_shape};

/// A storage engine over one data folder. Clones are handles to the same engine.
///
/// Everything it acknowledges is durable as the settings say, visible to the next
/// [`Engine::version`], and has its place in the one order of commits.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pub(crate) shared: Arc<Shared>,
    /// Gone once the engine is dropped.
    queue: Option<mpsc::Sender<Request>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    lock: Mutex<Option<FolderLock>>,
    flushing: AsyncMutex<()>,
    compacting: AsyncMutex<()>,
}

/// What an engine holds, for metrics and limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// The newest commit.
    pub seq: SequenceNumber,
    /// All commits up to this one are in segments.
    pub flushed: SequenceNumber,
    /// Points in memory, counting overwritten ones.
    pub memtable_rows: usize,
    /// Estimated memory of these points.
    pub memtable_bytes: usize,
    /// Size of the newest log.
    pub wal_bytes: u64,
    /// Log files in use.
    pub logs: usize,
    /// Databases.
    pub databases: usize,
    /// Measurements of both kinds.
    pub measurements: usize,
    /// Live segments.
    pub segments: usize,
    /// Size of the live segments.
    pub segment_bytes: u64,
    /// Rows in the live segments, counting overwritten and deleted ones.
    pub segment_rows: u64,
    /// Bytes of all segments written since the start ...
    pub written_bytes: u64,
    /// ... and of those that compaction wrote. All of them through the others is the write
    /// amplification.
    pub compacted_bytes: u64,
    /// Memory of measurements that stay in memory.
    pub resident_bytes: u64,
    /// The copies of segments of an object store.
    pub cache: CacheUse,
}

impl Engine {
    /// Opens the data folder, creating it if it does not exist, and brings back everything that
    /// was acknowledged.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if another process has it open, [`StorageError::Corrupt`] if files
    /// are missing or damaged, [`StorageError::Io`] if they cannot be read. With an object store
    /// also [`StorageError::Invalid`] if the folder belongs to another one,
    /// [`StorageError::LogsElsewhere`] if another folder has logs that are needed, and
    /// [`StorageError::Unreachable`].
    #[instrument(skip_all, fields(folder = %folder.display()))]
    pub async fn open(
        folder: &Path,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Engine, StorageError> {
        let (lock, files) = open_folder(folder, &settings).await?;
        Engine::start(files, Some(lock), settings, clock).await
    }

    /// Brings back what is in `files` and starts the commit thread.
    async fn start(
        files: Arc<FileStore>,
        lock: Option<FolderLock>,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Engine, StorageError> {
        let recovered = recover(files, settings, clock).await?;
        let shared = Arc::clone(&recovered.shared);
        let (queue, requests) = mpsc::channel(QUEUE_REQUESTS);
        let committer = Committer::new(Arc::clone(&shared), recovered.manifest, recovered.log);
        let thread = start_thread(committer, requests)?;
        let engine = Engine(Arc::new(Inner {
            shared,
            queue: Some(queue),
            thread: Mutex::new(Some(thread)),
            lock: Mutex::new(lock),
            flushing: AsyncMutex::default(),
            compacting: AsyncMutex::default(),
        }));
        let EngineStats { seq, measurements, segments, memtable_rows, .. } = engine.stats();
        info!(%seq, measurements, segments, memtable_rows, "opened");
        Ok(engine)
    }

    /// The newest state; it never changes, so it is one consistent view for as long as it is kept.
    pub fn version(&self) -> Arc<Version> {
        self.0.shared.version()
    }

    /// Tells of new commits: the newest one, whenever a version is published.
    pub fn commits(&self) -> watch::Receiver<SequenceNumber> {
        self.0.shared.commits.subscribe()
    }

    /// From now on, and until the engine is closed, remembers of a measurement when its changes
    /// came and which of them wrote these fields or tags; see [`Measurement::changes_until`](crate::Measurement::changes_until),
    /// [`first_change_after`](crate::Measurement::first_change_after) and
    /// [`changes_of`](crate::Measurement::changes_of). Without effect if there
    /// is no such measurement, or if that is remembered already.
    ///
    /// # Errors
    /// [`StorageError::Closed`] or [`StorageError::Poisoned`] if nothing is accepted any more.
    pub async fn watch(
        &self,
        id: &MeasurementId,
        columns: &BTreeSet<Arc<str>>,
    ) -> Result<(), StorageError> {
        match self.version().measurement(id) {
            Some(measurement) if !measurement.is_watched(columns) => {
                let (id, columns) = (id.clone(), columns.clone());
                self.request(|reply| Request::Watch(id, columns, reply)).await
            }
            _ => Ok(()),
        }
    }

    /// Where this engine's time comes from.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.shared.clock
    }

    /// Stores points. The database, measurements, tags and fields come into being on first use.
    ///
    /// # Errors
    /// [`StorageError::Overloaded`] if too much waits to be flushed, [`StorageError::Poisoned`]
    /// after a failed sync, [`StorageError::Invalid`] if a batch is malformed. Lines that
    /// contradict what is stored are no error; they are in the report.
    pub async fn write(
        &self,
        database: &str,
        batches: Vec<PointBatch>,
        mode: WriteMode,
    ) -> Result<WriteReport, StorageError> {
        self.write_late(database, batches, mode, LateRules::new()).await
    }

    /// [`Engine::write`] that does with points older than the retention what `late` says.
    ///
    /// # Errors
    /// Those of [`Engine::write`].
    pub async fn write_late(
        &self,
        database: &str,
        batches: Vec<PointBatch>,
        mode: WriteMode,
        late: LateRules,
    ) -> Result<WriteReport, StorageError> {
        batches.iter().try_for_each(check_shape)?;
        let write = Write { database: Arc::from(database), batches, mode, late };
        self.request(|reply| Request::Write(write, reply)).await
    }

    /// Points that came too late and were left out since the engine was opened, by measurement.
    pub fn dropped_late(&self) -> BTreeMap<MeasurementId, u64> {
        self.0.shared.dropped_late.all()
    }

    /// Carries out a commit, all of it or nothing, and returns its number; the newest commit there
    /// was if it changes nothing.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] if a document is not as expected,
    /// [`StorageError::FieldTypeConflict`], [`StorageError::NoSuchMeasurement`] or
    /// [`StorageError::Invalid`] if an edit contradicts what exists.
    #[instrument(skip_all)]
    pub async fn commit(&self, commit: Commit) -> Result<SequenceNumber, StorageError> {
        let gives_up =
            commit.edits.iter().any(|edit| matches!(edit, Edit::QuarantineSegment { .. }));
        let shared = Arc::clone(&self.0.shared);
        self.flush_before_commit().await?;
        let prepared = PreparedCommit::write(commit, &shared.segments).await?;
        let (paths, store) = (prepared.paths(), Arc::clone(&shared.segments));
        let plan =
            Box::new(move |version: &Version, seq| plan_commit(prepared, version, seq, &store));
        let seq = self.edit_adding(paths, plan).await?.seq();
        if gives_up {
            shared.segments.delete_unreferenced().await;
        }
        Ok(seq)
    }

    /// Otherwise the effects of points could outlive the points: in a crash without a log, and in an
    /// object store that is opened without the folder that has the log.
    pub(crate) async fn flush_before_commit(&self) -> Result<(), StorageError> {
        let shared = &self.0.shared;
        match shared.settings.durability == Durability::None || shared.files.is_in_bucket() {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// Moves all points in memory to segments.
    ///
    /// # Errors
    /// Those of encoding and storing. Nothing is lost then; the next flush tries again.
    #[instrument(skip_all)]
    pub async fn flush(&self) -> Result<(), StorageError> {
        let _one_at_a_time = self.0.flushing.lock().await;
        if !self.version().is_unflushed() {
            return Ok(());
        }
        let shared = &self.0.shared;
        // The commit thread, which all writers wait for, is not to wait for an object store in vain.
        shared.files.check_reachable().await?;
        let frozen: Arc<Version> = self.request(Request::RotateLog).await?;
        let flushed = write_frozen(&frozen, &shared.segments).await?;
        let paths: Vec<String> =
            flushed.iter().flat_map(|flushed| flushed.paths().map(str::to_owned)).collect();
        let (segments, rows) = (paths.len(), frozen.memory().rows);
        let store = Arc::clone(&shared.segments);
        let of_frozen = Arc::clone(&frozen);
        let plan = Box::new(move |version: &Version, seq| {
            let mut edits = plan_flushed(&flushed, of_frozen.seq(), version, seq, &store);
            edits.extend(close_logs(&of_frozen, version));
            Ok(edits)
        });
        let version = self.edit_adding(paths, plan).await?;
        let closed = frozen.logs().iter().filter(|log| !version.logs().contains(log));
        self.delete_unneeded(&closed.map(|log| log_path(*log)).collect::<Vec<_>>()).await;
        shared.segments.delete_unreferenced().await;
        debug!(rows, segments, seq = %frozen.seq(), "flushed");
        Ok(())
    }

    /// Whether memtables should be flushed: they are large, a commit in them is old, or memory is
    /// short.
    pub fn flush_due(&self) -> bool {
        let (version, settings) = (self.version(), &self.0.shared.settings);
        version.flush_due_by_size(settings)
            || version.flush_due_by_age(settings, self.clock().now())
            || self.memory_pressure() != MemoryPressure::None
    }

    /// Says how short the memory of the process is; to be said again whenever it may have changed.
    pub fn note_memory_pressure(&self, pressure: MemoryPressure) {
        self.0.shared.pressure.note(pressure);
        if self.memory_pressure() != MemoryPressure::None {
            self.0.shared.flush_due.notify_one();
        }
    }

    /// The pressure noted last, as far as flushing memtables would relieve it.
    pub fn memory_pressure(&self) -> MemoryPressure {
        let Shared { pressure, settings, .. } = &*self.0.shared;
        pressure.on_memtables(self.version().memory().bytes, settings)
    }

    /// Flushes, stops accepting requests and releases the data folder. Versions handed out before
    /// stay readable. Closing twice does nothing.
    ///
    /// # Errors
    /// Those of flushing and syncing; the engine is closed all the same.
    pub async fn close(&self) -> Result<(), StorageError> {
        let flushed = self.flush().await;
        let stopped = self.request(Request::Close).await;
        let thread = self.0.thread.lock().take();
        let joined = run_blocking(move || Ok(thread.map(|thread| thread.join().is_ok()))).await;
        drop(self.0.lock.lock().take());
        match (flushed.and(stopped), joined) {
            (Err(StorageError::Closed), Ok(None)) => Ok(()),
            (result, _) => result,
        }
    }

    /// Why writes are refused until the engine is opened again; `None` while all is well.
    pub fn failure(&self) -> Option<String> {
        self.0.shared.failure()
    }

    /// What the engine holds now.
    pub fn stats(&self) -> EngineStats {
        let version = self.version();
        let segments = || {
            let all = version.all_measurements().flat_map(|m| m.segments());
            all.filter(|segment| !segment.is_in_memory())
        };
        EngineStats {
            seq: version.seq(),
            flushed: version.flushed,
            memtable_rows: version.memory().rows,
            memtable_bytes: version.memory().bytes,
            wal_bytes: self.0.shared.log_bytes.load(Ordering::Relaxed),
            logs: version.logs().len(),
            databases: version.databases().count(),
            measurements: version.all_measurements().count(),
            segments: segments().count(),
            segment_bytes: segments().map(|segment| segment.bytes).sum(),
            segment_rows: segments().map(|segment| segment.rows).sum(),
            written_bytes: self.0.shared.segments.written_bytes(),
            compacted_bytes: self.0.shared.compactions.bytes_written(),
            resident_bytes: self.0.shared.residents.bytes() + self.bytes_in_memory(),
            cache: self.0.shared.files.cache_use(),
        }
    }

    /// From now on replacements that are to be kept in memory are refused if all of them together
    /// would take more than this.
    pub fn limit_memory(&self, most_bytes: u64) {
        self.0.shared.segments.limit_memory(most_bytes);
    }

    /// What segments in memory take, as they are encoded.
    pub fn bytes_in_memory(&self) -> u64 {
        self.0.shared.segments.bytes_in_memory()
    }

    /// The last 1,000 compactions since the engine was opened, oldest first.
    pub fn compactions(&self) -> Vec<CompactionRun> {
        self.0.shared.compactions.all()
    }

    /// Live segments in which damage was found since the engine was opened: by path, what is wrong.
    /// Reading them fails.
    pub fn damaged_segments(&self) -> BTreeMap<String, String> {
        self.0.shared.segments.damaged().all()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// Held by whoever flushes, which deletes logs.
    pub(crate) fn flushing(&self) -> &AsyncMutex<()> {
        &self.0.flushing
    }

    /// Held by whoever compacts.
    pub(crate) fn compacting(&self) -> &AsyncMutex<()> {
        &self.0.compacting
    }

    /// Commits the edits of a plan that adds these files. If the plan is refused they are deleted;
    /// if it may have been committed after all, or they cannot be reached, they stay, and the next
    /// open decides.
    pub(crate) async fn edit_adding(
        &self,
        paths: Vec<String>,
        plan: Plan,
    ) -> Result<Arc<Version>, StorageError> {
        let edited = match self.shared().files.check_reachable().await {
            Ok(()) => self.request(|reply| Request::Edit(plan, reply)).await,
            Err(error) => Err(error),
        };
        match &edited {
            Ok(_) | Err(StorageError::Poisoned { .. } | StorageError::Closed) => {}
            Err(StorageError::Unreachable { .. }) => {
                warn!(files = paths.len(), "files that are not needed stay until the next start");
            }
            Err(_) => self.delete_unneeded(&paths).await,
        }
        edited
    }

    /// Deletes files; one that stays costs space until the next open, nothing else.
    pub(crate) async fn delete_unneeded(&self, paths: &[String]) {
        let shared = &self.0.shared;
        for path in paths.iter().filter(|path| !shared.segments.forget_in_memory(path)) {
            if let Err(error) = shared.files.delete(path).await {
                let error = &error as &dyn std::error::Error;
                warn!(path, error, "could not delete a file that is not needed");
            }
        }
    }

    pub(crate) async fn request<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, StorageError> {
        let queue = self.0.queue.as_ref().ok_or(StorageError::Closed)?;
        let (reply, answer) = oneshot::channel();
        queue.send(request(reply)).await.map_err(|_| self.shared().unanswered())?;
        answer.await.map_err(|_| self.shared().unanswered())?
    }
}

/// The commit thread has a runtime of its own, so it outlives whichever runtime a caller is on.
fn start_thread(
    committer: Committer,
    requests: mpsc::Receiver<Request>,
) -> Result<std::thread::JoinHandle<()>, StorageError> {
    let start = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let run = move || runtime.block_on(committer.run(requests));
        std::thread::Builder::new().name("highwater-commit".to_owned()).spawn(run)
    };
    start().map_err(|source| StorageError::Io {
        action: "start",
        path: "the commit thread".to_owned(),
        source: Box::new(source),
    })
}

impl Drop for Inner {
    /// Waits until everything accepted is written, so that the folder is free when this returns.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            warn!("the commit thread panicked");
        }
    }
}

#[cfg(test)]
mod tests;
