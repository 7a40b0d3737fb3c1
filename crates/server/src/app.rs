//! The wiring: what the routes of a running server stand on.

use std::sync::Arc;

use anyhow::Context;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use highwater_aggregation::{AggregateStatus, Aggregates, JobState, JobStatus, RetentionStatus};
use highwater_core::{Clock, MockClock, SystemClock, Timestamp};
use highwater_storage::Engine;
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::RwLock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::memory;
use crate::queries::Queries;
use crate::respond::Refusal;
use crate::rules::apply_folder;
use crate::settings::Settings;
use crate::threads::Threads;

/// What the server does before it can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Opening the data folder and reading its log.
    Recovering,
    /// Everything works.
    Ready,
    /// Running requests end, then memory is flushed.
    Stopping,
}

impl Phase {
    /// As `/ready` and `/health` spell it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Recovering => "recovering",
            Phase::Ready => "ready",
            Phase::Stopping => "stopping",
        }
    }
}

/// The clock of a server, and the hand that moves it if it is a manual one.
#[derive(Clone, Debug)]
pub struct ServerClock {
    /// What everything below reads.
    pub clock: Arc<dyn Clock>,
    /// The same clock, if `/debug/clock` moves it.
    pub manual: Option<Arc<MockClock>>,
}

impl ServerClock {
    /// The clock of the machine.
    pub fn real() -> Self {
        ServerClock { clock: Arc::new(SystemClock), manual: None }
    }

    /// A clock that stands at 1970 until it is moved.
    pub fn manual() -> Self {
        let hand = Arc::new(MockClock::default());
        ServerClock { clock: Arc::clone(&hand) as Arc<dyn Clock>, manual: Some(hand) }
    }
}

/// What every route can reach: there as soon as the port is bound, before recovery is done.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

struct Shared {
    settings: Settings,
    address: String,
    clock: ServerClock,
    metrics: PrometheusHandle,
    /// Cancelled when answers without an end are to end.
    ending: CancellationToken,
    state: RwLock<(Phase, Option<App>)>,
}

impl Server {
    /// A server that listens at `address` and is not ready yet.
    pub fn new(
        settings: Settings,
        address: String,
        clock: ServerClock,
        metrics: PrometheusHandle,
    ) -> Self {
        let state = RwLock::new((Phase::Recovering, None));
        let ending = CancellationToken::new();
        Server(Arc::new(Shared { settings, address, clock, metrics, ending, state }))
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The address of the HTTP interface, as a URL.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// The clock.
    pub fn clock(&self) -> &ServerClock {
        &self.0.clock
    }

    /// The numbers that `/metrics` prints.
    pub fn metrics(&self) -> &PrometheusHandle {
        &self.0.metrics
    }

    /// What the server is doing.
    pub fn phase(&self) -> Phase {
        self.0.state.read().0
    }

    /// Opens the routes that need `app`.
    pub fn ready(&self, app: App) {
        *self.0.state.write() = (Phase::Ready, Some(app));
    }

    /// Says that the server is about to end; requests that are already here still run.
    pub fn stopping(&self) {
        self.0.state.write().0 = Phase::Stopping;
        self.0.ending.cancel();
    }

    /// Cancelled when the server is about to end, for answers that would go on for ever.
    pub fn ending(&self) -> &CancellationToken {
        &self.0.ending
    }

    /// The parts of a server that is ready.
    ///
    /// # Errors
    /// A 503 that names the phase.
    pub fn app(&self) -> Result<App, Refusal> {
        let state = self.0.state.read();
        state.1.clone().ok_or_else(|| {
            let message =
                format!("the server is {}; ask /ready and try again shortly", state.0.name());
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "starting", message)
                .with("phase", state.0.name())
        })
    }
}

/// The parts of a server that is ready; cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    /// Where points are.
    pub engine: Engine,
    /// Continuous aggregates, and SQL that knows them.
    pub aggregates: Aggregates,
    /// Who may ask.
    pub queries: Queries,
}

impl App {
    /// Opens the data folder and everything that stands on it.
    ///
    /// # Errors
    /// Whatever keeps the server from starting.
    pub async fn open(
        settings: &Settings,
        clock: &ServerClock,
        threads: &Threads,
    ) -> anyhow::Result<App> {
        let clock = Arc::clone(&clock.clock);
        let engine = Engine::open(&settings.data, settings.storage.clone(), clock).await?;
        let limits = highwater_query::Limits {
            sql_bytes: settings.limits.sql_bytes,
            memory_bytes: settings.query.memory_bytes,
            ..highwater_query::Limits::default()
        };
        let aggregates = Aggregates::open(engine.clone(), settings.aggregation.clone(), limits)?;
        aggregates.refresh_on(threads.background());
        if let Some(folder) = &settings.rules {
            let applied = apply_folder(&aggregates, folder).await;
            applied.context("the rule files are not applied")?;
        }
        aggregates.keep_resident().await?;
        let queries = Queries::new(settings.query.clone(), threads.queries());
        Ok(App { engine, aggregates, queries })
    }

    /// Starts what runs beside the requests; with a manual clock nothing does.
    pub fn start_background(
        &self,
        settings: &Settings,
        clock: &ServerClock,
        threads: &Threads,
        stop: &CancellationToken,
    ) -> Vec<JoinHandle<()>> {
        if clock.manual.is_some() {
            return Vec::new();
        }
        let background = threads.background();
        let mut tasks = vec![
            tokio::spawn(self.engine.clone().run_flushes(stop.clone())),
            background.spawn(self.engine.clone().run_compactions(stop.clone())),
            background.spawn(self.aggregates.clone().run(stop.clone())),
        ];
        let limit_bytes = settings.server.max_memory_mb.saturating_mul(memory::MEGABYTE);
        if limit_bytes > 0 {
            let watching = memory::watch(self.engine.clone(), limit_bytes, stop.clone());
            tasks.push(tokio::spawn(watching));
        }
        tasks
    }

    /// Sets the numbers of `/metrics` that are looked up rather than counted.
    pub fn describe_metrics(&self) {
        let stats = self.engine.stats();
        metrics::gauge!("highwater_storage_memtable_bytes").set(stats.memtable_bytes as f64);
        metrics::gauge!("highwater_storage_memtable_rows").set(stats.memtable_rows as f64);
        metrics::gauge!("highwater_storage_wal_bytes").set(stats.wal_bytes as f64);
        metrics::gauge!("highwater_storage_segments_count").set(stats.segments as f64);
        metrics::gauge!("highwater_storage_segment_bytes").set(stats.segment_bytes as f64);
        metrics::gauge!("highwater_storage_segment_rows").set(stats.segment_rows as f64);
        metrics::counter!("highwater_storage_written_bytes_total").absolute(stats.written_bytes);
        metrics::counter!("highwater_storage_compacted_bytes_total")
            .absolute(stats.compacted_bytes);
        metrics::counter!("highwater_storage_cache_hits_total").absolute(stats.cache.hits);
        metrics::counter!("highwater_storage_cache_misses_total").absolute(stats.cache.misses);
        metrics::gauge!("highwater_storage_cache_bytes").set(stats.cache.bytes as f64);
        metrics::gauge!("highwater_storage_resident_bytes").set(stats.resident_bytes as f64);
        let damaged = self.engine.damaged_segments().len();
        metrics::gauge!("highwater_storage_damaged_segments_count").set(damaged as f64);
        metrics::gauge!("highwater_storage_measurements_count").set(stats.measurements as f64);
        metrics::gauge!("highwater_storage_commit_seq").set(stats.seq.get() as f64);
        metrics::gauge!("highwater_aggregation_expiry_paused")
            .set(f64::from(u8::from(self.aggregates.expiry_paused().is_some())));
        for (lane, running) in self.aggregates.running() {
            metrics::gauge!("highwater_aggregation_running_refreshes", "lane" => lane)
                .set(running as f64);
        }
        for (id, points) in self.engine.dropped_late() {
            let labels = measurement_labels(&id.database, &id.measurement);
            metrics::counter!("highwater_storage_late_dropped_points_total", &labels)
                .absolute(points);
        }
        for database in self.engine.version().databases() {
            // One that cannot be described has logged why when it was asked for by name.
            let all = self.aggregates.list(database).unwrap_or_default();
            let now = self.engine.clock().now();
            all.iter().for_each(|one| describe_aggregate(one, now));
            let retention = self.aggregates.retention(database).unwrap_or_default();
            retention.iter().for_each(|one| describe_retention(database, one));
        }
        self.describe_jobs();
    }

    fn describe_jobs(&self) {
        let version = self.engine.version();
        let jobs = version.databases().filter_map(|one| self.aggregates.jobs(one).ok()).flatten();
        let jobs: Vec<JobStatus> = jobs.collect();
        for state in JobState::ALL {
            let count = jobs.iter().filter(|job| job.status == state).count();
            metrics::gauge!("highwater_aggregation_jobs", "status" => state.name())
                .set(count as f64);
        }
        // Oldest first, so that the newest job of an aggregate counts.
        for job in jobs.into_iter().rev() {
            let labels = [("aggregate", job.name)];
            metrics::gauge!("highwater_aggregation_job_processed_rows", &labels)
                .set(job.processed_rows as f64);
            metrics::gauge!("highwater_aggregation_job_total_rows", &labels)
                .set(job.total_rows as f64);
        }
    }

    /// Flushes and closes.
    ///
    /// # Errors
    /// Whatever kept acknowledged points from being flushed; they are still in the log.
    pub async fn close(self) -> anyhow::Result<()> {
        Ok(self.engine.close().await?)
    }
}

fn measurement_labels(database: &str, measurement: &str) -> [(&'static str, String); 2] {
    [("database", database.to_owned()), ("measurement", measurement.to_owned())]
}

fn describe_retention(database: &str, one: &RetentionStatus) {
    let labels = measurement_labels(database, &one.measurement);
    metrics::gauge!("highwater_aggregation_retention_held_seconds", &labels)
        .set(one.held_seconds.unwrap_or(0.0));
    metrics::gauge!("highwater_aggregation_retention_overdue", &labels)
        .set(f64::from(u8::from(one.overdue)));
}

fn describe_aggregate(aggregate: &AggregateStatus, now: Timestamp) {
    let labels = [("aggregate", aggregate.name.clone())];
    if let Some(lag) = aggregate.lag_seconds {
        metrics::gauge!("highwater_aggregation_lag_seconds", &labels).set(lag);
    }
    if let Some(age) = aggregate.seconds_stale {
        metrics::gauge!("highwater_aggregation_stale_seconds", &labels).set(age);
    }
    metrics::gauge!("highwater_aggregation_stale_buckets", &labels)
        .set(aggregate.stale_buckets as f64);
    let oldest =
        aggregate.oldest_stale.map_or(0, |at| now.as_nanos().saturating_sub(at.as_nanos()));
    metrics::gauge!("highwater_aggregation_oldest_stale_seconds", &labels).set(oldest as f64 / 1e9);
    metrics::gauge!("highwater_aggregation_stored_rows", &labels).set(aggregate.rows as f64);
    metrics::gauge!("highwater_aggregation_stored_bytes", &labels).set(aggregate.bytes as f64);
    let resident = aggregate.resident.as_ref().map_or((0, 0), |one| (one.rows, one.bytes));
    metrics::gauge!("highwater_aggregation_resident_rows", &labels).set(resident.0 as f64);
    metrics::gauge!("highwater_aggregation_resident_bytes", &labels).set(resident.1 as f64);
}

impl FromRequestParts<Server> for App {
    type Rejection = Refusal;

    async fn from_request_parts(_: &mut Parts, server: &Server) -> Result<App, Refusal> {
        server.app()
    }
}
