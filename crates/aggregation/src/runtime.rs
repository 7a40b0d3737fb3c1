//! The aggregates of a running engine: one handle for the server, the scheduler and SQL.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use highwater_core::{TimeRange, Timestamp};
use highwater_query::{Limits, QueryEngine, QuerySession, SessionOptions, view_query};
use highwater_storage::{Commit, Engine, Version};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::background_audit::Audits;
use crate::catalog::{Aggregate, Catalog, CatalogCache, DefinitionDocument, Progress, put};
use crate::clock_guard::ClockGuard;
use crate::commits::Commits;
use crate::definition::AggregateId;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::expiry::HoldAlerts;
use crate::extension::AggregateTables;
use crate::lanes::Slots;
use crate::memory::Room;
use crate::plan::Occasion;
use crate::queue::Queue;
use crate::refresh::Cost;
use crate::schedule::{Run, Schedules};
pub use crate::settings::AggregationSettings;
use crate::status::{AggregateStatus, status};
use crate::switches::Switches;
use crate::watermark;

/// What SQL tables and the scheduler both look at.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cache: CatalogCache,
    pub(crate) schedules: Mutex<Schedules>,
    pub(crate) queue: Queue,
    pub(crate) clock_guard: Mutex<ClockGuard>,
    hold_alerts: Mutex<HoldAlerts>,
    switches: Switches,
    audits: Mutex<Audits>,
    room: Mutex<Room>,
    slots: Slots,
    commits: Commits,
    /// Held for reading while a refresh is committed, for writing while something is redefined:
    /// both replace what the other has looked at.
    definitions: RwLock<()>,
    /// Where refreshes run; if not given, where they are asked for.
    workers: OnceLock<Handle>,
    /// Cancelled when refreshes are to end.
    stop: CancellationToken,
    settings: AggregationSettings,
}

impl Shared {
    fn new(settings: AggregationSettings) -> Self {
        Shared {
            cache: CatalogCache::default(),
            schedules: Mutex::default(),
            queue: Queue::default(),
            clock_guard: Mutex::default(),
            hold_alerts: Mutex::default(),
            switches: Switches::default(),
            audits: Mutex::default(),
            room: Mutex::default(),
            slots: Slots::new(settings.max_parallel),
            commits: Commits::default(),
            definitions: RwLock::default(),
            workers: OnceLock::new(),
            stop: CancellationToken::new(),
            settings,
        }
    }
}

/// The aggregates of an engine; cheap to clone.
#[derive(Clone, Debug)]
pub struct Aggregates {
    query: QueryEngine,
    shared: Arc<Shared>,
}

/// What became of a definition that was posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is new, or attached again.
    New,
    /// Exactly this definition was there already.
    Same,
}

/// What a refresh on request did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RefreshReport {
    /// Buckets computed.
    pub buckets: u64,
    /// Rows of partials written.
    pub rows: u64,
    /// Time taken, in milliseconds with fraction.
    pub duration_ms: f64,
}

impl From<Cost> for RefreshReport {
    fn from(cost: Cost) -> Self {
        RefreshReport { buckets: cost.buckets, rows: cost.rows, duration_ms: cost.duration_ms }
    }
}

impl Aggregates {
    /// The aggregates found in the engine's manifest, and the query engine that knows them and
    /// keeps every statement within `limits`.
    ///
    /// # Errors
    /// If the query engine cannot be set up, or a stored definition cannot be read.
    pub fn open(
        engine: Engine,
        settings: AggregationSettings,
        limits: Limits,
    ) -> Result<Self, AggregationError> {
        engine.limit_memory(settings.resident_bytes());
        let shared = Arc::new(Shared::new(settings));
        let tables = Arc::new(AggregateTables::new(Arc::clone(&shared)));
        let query = QueryEngine::builder(engine).extend(tables).limits(limits).build()?;
        let aggregates = Aggregates { query, shared };
        for database in aggregates.databases() {
            aggregates.reader(&database)?;
        }
        Ok(aggregates)
    }

    pub(crate) fn of(query: QueryEngine, shared: Arc<Shared>) -> Self {
        Aggregates { query, shared }
    }

    /// SQL over measurements and aggregates.
    pub fn query_engine(&self) -> &QueryEngine {
        &self.query
    }

    /// The storage engine below.
    pub fn engine(&self) -> &Engine {
        self.query.storage()
    }

    pub(crate) fn schedules(&self) -> &Mutex<Schedules> {
        &self.shared.schedules
    }

    pub(crate) fn settings(&self) -> &AggregationSettings {
        &self.shared.settings
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.engine().clock().now()
    }

    pub(crate) fn databases(&self) -> Vec<Arc<str>> {
        self.engine().version().databases().cloned().collect()
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.shared.queue
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.shared.slots
    }

    pub(crate) fn commits(&self) -> &Commits {
        &self.shared.commits
    }

    /// What tests can make wait or fail.
    pub fn switches(&self) -> &Switches {
        &self.shared.switches
    }

    pub(crate) fn clock_guard(&self) -> &Mutex<ClockGuard> {
        &self.shared.clock_guard
    }

    pub(crate) fn hold_alerts(&self) -> &Mutex<HoldAlerts> {
        &self.shared.hold_alerts
    }

    pub(crate) fn audits(&self) -> &Mutex<Audits> {
        &self.shared.audits
    }

    pub(crate) fn room(&self) -> &Mutex<Room> {
        &self.shared.room
    }

    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.shared.stop
    }

    /// Runs refreshes, whoever asks for them, on these threads from now on. The first call counts.
    pub fn refresh_on(&self, workers: Handle) {
        self.shared.workers.get_or_init(|| workers);
    }

    pub(crate) fn workers(&self) -> Handle {
        self.shared.workers.get().cloned().unwrap_or_else(Handle::current)
    }

    /// Waits until no refresh is being committed and keeps others from it. Refreshes that were
    /// computed before and are committed afterwards find out and are planned again.
    pub(crate) async fn lock_refreshes(&self) -> RwLockWriteGuard<'_, ()> {
        self.shared.definitions.write().await
    }

    /// Keeps definitions as they are.
    pub(crate) async fn keep_definitions(&self) -> RwLockReadGuard<'_, ()> {
        self.shared.definitions.read().await
    }

    /// The aggregates of a database at a version.
    pub(crate) fn catalog(
        &self,
        version: &Version,
        database: &Arc<str>,
    ) -> Result<Arc<Catalog>, AggregationError> {
        self.shared.cache.catalog(version, database)
    }

    /// Reads the aggregates of a database at the newest version.
    pub(crate) fn reader(&self, database: &Arc<str>) -> Result<Reader, AggregationError> {
        self.shared.reader(&self.query, self.engine().version(), database)
    }

    /// Reads the aggregates of a session's database at the version that it has pinned.
    pub(crate) fn reader_of(&self, session: &QuerySession) -> Result<Reader, AggregationError> {
        self.shared.reader_of(session)
    }

    /// The aggregate of that name, which must not be detached.
    pub(crate) fn attached(
        &self,
        database: &str,
        name: &str,
    ) -> Result<AggregateId, AggregationError> {
        let reader = self.reader(&database.into())?;
        let aggregate = self.find(&reader, name)?;
        if aggregate.document.detached {
            return Err(AggregationError::Conflict(format!(
                "{name} is detached: it stands still until its definition is posted again"
            )));
        }
        Ok(aggregate.id().clone())
    }

    /// The aggregate of that name.
    pub(crate) fn find<'a>(
        &self,
        reader: &'a Reader,
        name: &str,
    ) -> Result<&'a Arc<Aggregate>, AggregationError> {
        reader.in_force(name)
    }

    /// How many refreshes run now, by lane: `live`, `repair` and `backfill`.
    pub fn running(&self) -> BTreeMap<&'static str, usize> {
        self.queue().running()
    }

    /// All aggregates of a database, by name.
    ///
    /// # Errors
    /// If a definition does not fit its source any more.
    pub fn list(&self, database: &str) -> Result<Vec<AggregateStatus>, AggregationError> {
        Ok(self.shared.statuses(&self.reader(&database.into())?))
    }

    /// One aggregate.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn get(&self, database: &str, name: &str) -> Result<AggregateStatus, AggregationError> {
        let reader = self.reader(&database.into())?;
        self.shared.status(&reader, name).ok_or_else(|| no_such(&reader, name))
    }

    /// Why points must not be written to a measurement of that name, if they must not.
    pub fn refuse_write(&self, database: &str, measurement: &str) -> Option<String> {
        let reader = self.reader(&database.into()).ok()?;
        let is_view = view_query(reader.session().version(), database, measurement).is_some();
        if is_view {
            return Some(format!("{measurement} is a view; write to what it reads"));
        }
        reader.catalog().next().get(measurement)?;
        Some(format!("{measurement} is an aggregate; write to its source"))
    }

    /// Refreshes one aggregate now, whatever its strategy: every bucket that `window` touches, open
    /// ones included; without a window all closed stale buckets.
    ///
    /// # Errors
    /// If there is none of that name, it is detached, or the refresh failed.
    pub async fn refresh(
        &self,
        database: &str,
        name: &str,
        window: Option<TimeRange>,
    ) -> Result<RefreshReport, AggregationError> {
        let id = self.attached(database, name)?;
        let occasion = window.map_or(Occasion::Requested, Occasion::RequestedWindow);
        let runs = self.refresh_together(vec![id], occasion).await?;
        report_of(runs)
    }

    /// Sets the watermark to `to`, after materializing everything before it.
    ///
    /// # Errors
    /// If `to` is no bucket boundary, lies in the future or before the present watermark.
    pub async fn set_watermark(
        &self,
        database: &str,
        name: &str,
        to: Timestamp,
    ) -> Result<RefreshReport, AggregationError> {
        let reader = self.reader(&database.into())?;
        let aggregate = Arc::clone(self.find(&reader, name)?);
        let grid = aggregate.definition.pieces.grid();
        let closing = reader.closing(&aggregate).unwrap_or_else(|| grid.start_of(self.now()));
        watermark::check_move(grid, aggregate.progress.last_processed, to, closing)?;
        let window = Some(TimeRange::before(to));
        let report = self.refresh(database, name, window).await?;
        let _running = self.lock_refreshes().await;
        let reader = self.reader(&database.into())?;
        let aggregate = self.find(&reader, name)?;
        let mut progress = Progress::clone(&aggregate.progress);
        progress.last_processed = progress.last_processed.max(Some(to));
        let mut commit = Commit::default();
        commit.edits.push(aggregate.put_progress(&progress)?);
        self.engine().commit(commit).await?;
        Ok(report)
    }

    /// Switches the schedule of an aggregate on or off. Exact reads stay right either way, and
    /// expiring points are still sealed.
    ///
    /// # Errors
    /// If there is none of that name.
    pub async fn set_enabled(
        &self,
        database: &str,
        name: &str,
        enabled: bool,
    ) -> Result<(), AggregationError> {
        let _running = self.lock_refreshes().await;
        let reader = self.reader(&database.into())?;
        let aggregate = self.find(&reader, name)?;
        if aggregate.document.detached {
            let reason = format!("{name} is detached; post its definition again first");
            return Err(AggregationError::Conflict(reason));
        }
        let of = |one: &Arc<Aggregate>| {
            let [key, _] = one.keys();
            put(key, &DefinitionDocument { enabled, ..(*one.document).clone() })
        };
        let both = [Some(aggregate), reader.catalog().shadow(name)].into_iter().flatten();
        let edits = both.map(of).collect::<Result<Vec<_>, _>>()?;
        self.engine().commit(Commit::of(edits)).await?;
        self.schedules().lock().wake(aggregate.id());
        Ok(())
    }

    /// Refreshes what is due, drops what has expired, flushes and compacts what is due, audits: one
    /// background step of each kind. Returns how many things were done.
    ///
    /// # Errors
    /// The first failure that is not the matter of a single aggregate.
    pub async fn tick(&self) -> Result<usize, AggregationError> {
        let mut steps = 0;
        if self.engine().flush_due() {
            self.engine().flush().await?;
            steps += 1;
        }
        steps += self.rebuild_lost().await?;
        steps += self.refresh_due().await?;
        steps += self.advance_jobs().await?;
        steps += self.advance_shadows().await?;
        steps += self.expire_and_forget().await?;
        steps += self.engine().compact().await?;
        steps += usize::from(self.audit_due().await);
        self.keep_resident().await?;
        Ok(steps)
    }

    /// Refreshes and expires on the real clock until told to stop. Flushing and compaction have a
    /// background loop of their own, in storage.
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(
            self.keep_refreshed(&stop),
            self.keep_building(&stop),
            self.keep_expiring(&stop),
            self.keep_auditing(&stop),
            self.follow_residents(&stop)
        );
        self.stop().cancel();
        self.queue().all_ended().await;
        info!("aggregation stopped");
    }
}

pub(crate) fn no_such(reader: &Reader, name: &str) -> AggregationError {
    let database = reader.session().database().to_string();
    AggregationError::NoSuchAggregate { database, name: name.to_owned() }
}

/// The sum of the runs of one request.
fn report_of(runs: Vec<Run>) -> Result<RefreshReport, AggregationError> {
    let mut cost = Cost::default();
    for run in runs {
        if let Some(error) = run.error {
            return Err(AggregationError::Refresh { name: run.id.name.to_string(), reason: error });
        }
        cost += run.cost;
    }
    Ok(cost.into())
}

impl Shared {
    /// Reads the aggregates of a database at a version; sees expired points as long as they are
    /// stored, because pieces are made of them.
    pub(crate) fn reader(
        &self,
        query: &QueryEngine,
        version: Arc<Version>,
        database: &Arc<str>,
    ) -> Result<Reader, AggregationError> {
        let catalog = self.cache.catalog(&version, database)?;
        let mut options = SessionOptions::of(Arc::clone(database));
        options.show_expired = true;
        Ok(Reader::new(query.session_at(version, options), catalog))
    }

    /// The same at the version of a session.
    pub(crate) fn reader_of(&self, session: &QuerySession) -> Result<Reader, AggregationError> {
        self.reader(session.engine(), Arc::clone(session.version()), session.database())
    }

    pub(crate) fn settings(&self) -> &AggregationSettings {
        &self.settings
    }

    /// All aggregates of the reader's database, by name.
    pub(crate) fn statuses(&self, reader: &Reader) -> Vec<AggregateStatus> {
        let names = reader.catalog().next().iter().map(|one| one.name());
        names.filter_map(|name| self.status(reader, name)).collect()
    }

    /// The aggregate of that name, in force or being built.
    fn status(&self, reader: &Reader, name: &str) -> Option<AggregateStatus> {
        let (own, aggregate) = reader.find(name)?;
        let (run, shadow_run) = {
            let schedules = self.schedules.lock();
            let shadow = reader.catalog().shadow(name);
            let shadow_run = shadow.map(|shadow| schedules.get(&shadow.run_id()));
            (schedules.get(&aggregate.run_id()), shadow_run)
        };
        let status = status(&own, &aggregate, &run, self.queue.lane(aggregate.id()));
        let audited = self.audits.lock().get(aggregate.id());
        let status = match self.room.lock().is_waiting(&aggregate.stored()) {
            true => status.without_room(),
            false => status,
        };
        Some(status.with_audits(audited).with_change(reader, shadow_run.as_ref()))
    }
}

#[cfg(test)]
pub(crate) mod tests;
