//! Compaction at work: choose, rewrite, replace, as long as something is due.

use std::sync::Arc;

use highwater_core::{MeasurementId, Stopwatch};
use tracing::{debug, instrument};

use super::{
    CompactionInput, CompactionJob, CompactionRun, Limits, choose, plan_replaced, rewrite,
};
use crate::engine::Engine;
use crate::error::StorageError;
use crate::manifest::MeasurementKind;
use crate::segment::SegmentMeta;
use crate::version::{Measurement, Version};

/// What one round leaves may be due again in the next; so many will do for now.
const MAX_ROUNDS: usize = 16;

impl Engine {
    /// Joins and cleans segments wherever that is due, and returns how often it did.
    ///
    /// # Errors
    /// Those of reading, encoding and storing. Nothing is lost then.
    #[instrument(skip_all)]
    pub async fn compact(&self) -> Result<usize, StorageError> {
        self.compact_those(|_| true).await
    }

    /// The same for one measurement or materialization.
    ///
    /// # Errors
    /// Those of reading, encoding and storing. Nothing is lost then.
    #[instrument(skip_all)]
    pub async fn compact_one(&self, id: &MeasurementId) -> Result<usize, StorageError> {
        self.compact_those(|one| one == id).await
    }

    async fn compact_those(
        &self,
        is_wanted: impl Fn(&MeasurementId) -> bool,
    ) -> Result<usize, StorageError> {
        let _one_at_a_time = self.compacting().lock().await;
        let mut done = 0;
        for _ in 0..MAX_ROUNDS {
            let done_before = done;
            for (id, job) in self.due_jobs(&is_wanted) {
                done += usize::from(self.carry_out(id, job).await?);
            }
            self.shared().segments.delete_unreferenced().await;
            if done == done_before {
                break;
            }
        }
        Ok(done)
    }

    fn limits(&self) -> Limits {
        let settings = &self.shared().settings;
        Limits::new(settings.compact_segments, settings.window_points)
    }

    fn due_jobs(
        &self,
        is_wanted: impl Fn(&MeasurementId) -> bool,
    ) -> Vec<(MeasurementId, CompactionJob)> {
        let (version, limits) = (self.version(), self.limits());
        let mut due = Vec::new();
        for measurement in version.all_measurements().filter(|one| is_wanted(one.id())) {
            // Rows of one time are in one medium, so that the age of segments never has to be
            // compared across the two.
            for is_in_memory in [false, true] {
                let jobs = choose(&self.input(measurement, &version, is_in_memory), &limits);
                due.extend(jobs.into_iter().map(|job| (measurement.id().clone(), job)));
            }
        }
        due
    }

    /// Returns whether the job was done; its segments may have gone meanwhile.
    async fn carry_out(&self, id: MeasurementId, job: CompactionJob) -> Result<bool, StorageError> {
        let (started, stopwatch) = (self.clock().now(), Stopwatch::start());
        let version = self.version();
        let Some(measurement) = version.measurement(&id) else { return Ok(false) };
        let store = Arc::clone(&self.shared().segments);
        let results = rewrite(&job, &measurement.sources(), &id, &store, self.limits()).await?;
        let results: Vec<Arc<SegmentMeta>> = results.into_iter().map(Arc::new).collect();
        let paths: Vec<String> = results.iter().map(|result| result.path.clone()).collect();
        let mut run = CompactionRun {
            measurement: id.clone(),
            started,
            reason: job.reason.to_string(),
            segments: job.segments.len(),
            results: results.len(),
            bytes_read: job.segments.iter().map(|segment| segment.bytes).sum(),
            bytes_written: results.iter().map(|segment| segment.bytes).sum(),
            rows: results.iter().map(|segment| segment.rows).sum(),
            duration_ms: 0.0,
        };
        let (of_plan, job_of_plan) = (id.clone(), job.clone());
        let plan = Box::new(move |version: &Version, seq| {
            Ok(plan_replaced(&of_plan, &job_of_plan, &results, version, seq, &store))
        });
        let after = self.edit_adding(paths.clone(), plan).await?;
        let is_live = |path: &String| {
            let now = after.measurement(&id);
            now.is_some_and(|now| now.segments().any(|segment| segment.path == *path))
        };
        let is_done =
            paths.iter().all(is_live) && !job.segments.iter().any(|old| is_live(&old.path));
        if is_done {
            run.duration_ms = stopwatch.elapsed_ms();
            let CompactionRun { reason, segments, results, duration_ms, .. } = &run;
            debug!(measurement = %id, reason, segments, results, duration_ms, "compacted");
            self.shared().compactions.add(run);
        } else {
            self.delete_unneeded(&paths).await;
        }
        Ok(is_done)
    }

    fn input(
        &self,
        measurement: &Measurement,
        version: &Version,
        is_in_memory: bool,
    ) -> CompactionInput {
        let damaged = self.shared().segments.damaged();
        let segments =
            || measurement.segments().filter(|segment| segment.is_in_memory() == is_in_memory);
        let paths = segments().map(|segment| &segment.path);
        CompactionInput {
            kind: measurement.kind(),
            segments: segments().cloned().collect(),
            damaged: paths.filter(|path| damaged.contains(path)).cloned().collect(),
            tombstones: measurement.tombstones.to_vec(),
            floor: measurement.floor(),
            settled: match measurement.kind() {
                MeasurementKind::Points => version.flushed,
                // Its rows and tombstones are durable as soon as they are visible.
                MeasurementKind::Materialization | MeasurementKind::Rollup => version.seq(),
            },
        }
    }
}
