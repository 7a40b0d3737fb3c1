//! Audits: are stored partials still what the source gives?
//!
//! What is clean (neither stale nor sealed) is computed again from points, through all levels of a
//! hierarchy, and compared with what is stored, bit for bit. Anything else than equality is damage
//! or a defect, so it is counted, reported and, unless that is not wanted, replaced.

use std::collections::BTreeSet;

use highwater_core::{Stopwatch, TimeRange, TimeRanges, Timestamp};
use highwater_storage::{StorageError, guarded};
use serde::Serialize;
use tracing::error;

use crate::catalog::Aggregate;
use crate::changed_rows::changed_rows;
use crate::commits::Ready;
use crate::definition::AggregateId;
use crate::differences::{Mismatch, differences};
use crate::error::AggregationError;
use crate::exact::{Reader, Wanted};
use crate::feed::Because;
use crate::lanes::Lane;
use crate::refresh::{self, Computing};
use crate::runtime::Aggregates;
use crate::steps::in_steps;

/// A step is computed again so often when it is refreshed or redefined meanwhile.
const ATTEMPTS: usize = 5;
/// A report describes so many mismatches; it counts all of them.
const MOST_DESCRIBED: usize = 100;

/// What an audit has found. Buckets of an aggregate that is kept by days are those days.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AuditReport {
    /// The aggregate.
    pub name: String,
    /// Buckets that were computed again and compared.
    pub buckets_checked: u64,
    /// Buckets left out because their source has expired, wholly or in part.
    pub buckets_sealed: u64,
    /// Buckets left out because they are stale: nothing is claimed about them.
    pub buckets_stale: u64,
    /// Points, or sealed partials of a source, that were read.
    pub points_scanned: u64,
    /// Rows of stored partials (groups of pieces) that are not what they should be.
    pub mismatches: u64,
    /// Buckets that hold such rows and were replaced by what they should be.
    pub buckets_repaired: u64,
    /// The first 100 partials that differ.
    pub details: Vec<Mismatch>,
    /// Aggregates that read this one and were audited, too, where it was repaired.
    pub dependants: Vec<AuditReport>,
    /// Time taken, in milliseconds with fraction.
    pub duration_ms: f64,
}

/// What an audit of a range of time looks at, in whole pieces.
#[derive(Debug, PartialEq, Eq)]
struct Scope {
    clean: TimeRanges,
    sealed: TimeRanges,
    stale: TimeRanges,
}

impl Scope {
    fn of(reader: &Reader, aggregate: &Aggregate, window: TimeRange) -> Self {
        let pieces = aggregate.definition.pieces;
        let wanted: TimeRanges = pieces.grid().round_out(window).into();
        let wanted = wanted.intersect(&reader.kept(aggregate));
        let covered = aggregate.progress.applied.covered().intersect(&wanted);
        let sealed_before = reader.sealed_before(aggregate);
        let expired = TimeRanges::from(TimeRange::before(sealed_before));
        let sealed = pieces.round_out_all(&covered.intersect(&expired));
        let stale = reader.stale(aggregate, &wanted).intersect(&wanted).subtract(&sealed);
        let clean = covered.subtract(&sealed).subtract(&stale);
        Scope { clean, sealed, stale }
    }
}

/// What is stored, and can and should equal what the source gives.
pub(crate) fn clean(reader: &Reader, aggregate: &Aggregate) -> TimeRanges {
    Scope::of(reader, aggregate, TimeRange::ALL).clean
}

impl Aggregates {
    /// Compares the stored partials of the buckets that `window` touches, or of all, with what
    /// the source gives, and replaces those that differ if `repairs`.
    ///
    /// # Errors
    /// If there is none of that name, it is detached, or it cannot be read or computed.
    pub async fn verify(
        &self,
        database: &str,
        name: &str,
        window: Option<TimeRange>,
        repairs: bool,
    ) -> Result<AuditReport, AggregationError> {
        let id = self.attached(database, name)?;
        let (own, stop) = (self.clone(), self.stop().clone());
        let audit = async move {
            let window = window.unwrap_or(TimeRange::ALL);
            let audit = guarded(own.audit_with_dependants(&id, window, repairs));
            stop.run_until_cancelled(audit).await.unwrap_or(Err(AggregationError::Stopping))
        };
        self.workers().spawn(audit).await.map_err(|_| AggregationError::Stopping)?
    }

    /// Audits an aggregate; where it had to be repaired, those that were made from it, too.
    pub(crate) async fn audit_with_dependants(
        &self,
        id: &AggregateId,
        window: TimeRange,
        repairs: bool,
    ) -> Result<AuditReport, AggregationError> {
        let (mut report, repaired) = self.audit(id, window, repairs).await?;
        let mut waiting = vec![(id.clone(), repaired)];
        while let Some((source, repaired)) = waiting.pop() {
            let Some(window) = repaired.hull() else { continue };
            for dependant in self.dependants_of(&source)? {
                let (found, repaired) = self.audit(&dependant, window, repairs).await?;
                report.dependants.push(found);
                waiting.push((dependant, repaired));
            }
        }
        Ok(report)
    }

    /// The attached aggregates that read this one directly.
    fn dependants_of(&self, id: &AggregateId) -> Result<Vec<AggregateId>, AggregationError> {
        let catalog = self.catalog(&self.engine().version(), &id.database)?;
        let attached = catalog.dependants(&id.name).filter(|one| !one.document.detached);
        Ok(attached.map(|one| one.id().clone()).collect())
    }

    /// Audits one aggregate in steps of bounded size, each at a version of its own. Returns what
    /// it found and which pieces it replaced.
    async fn audit(
        &self,
        id: &AggregateId,
        window: TimeRange,
        repairs: bool,
    ) -> Result<(AuditReport, TimeRanges), AggregationError> {
        let watch = Stopwatch::start();
        let mut report = AuditReport { name: id.name.to_string(), ..AuditReport::default() };
        let mut repaired = TimeRanges::none();
        let steps = {
            let reader = self.reader(&id.database)?;
            let aggregate = self.find(&reader, &id.name)?;
            let scope = Scope::of(&reader, aggregate, window);
            let pieces = aggregate.definition.pieces;
            report.buckets_sealed = pieces.count_buckets(&scope.sealed);
            report.buckets_stale = pieces.count_buckets(&scope.stale);
            in_steps(&reader, aggregate, &scope.clean, self.settings().step_points)
        };
        for times in steps {
            repaired = repaired.union(&self.audit_step(id, &times, repairs, &mut report).await?);
        }
        report.duration_ms = watch.elapsed_ms();
        count(id, &report);
        self.audits().lock().record(id, &report, self.now());
        Ok((report, repaired))
    }

    /// Compares what is still clean of `times`, and returns the pieces that were replaced.
    async fn audit_step(
        &self,
        id: &AggregateId,
        times: &TimeRanges,
        repairs: bool,
        report: &mut AuditReport,
    ) -> Result<TimeRanges, AggregationError> {
        for _ in 0..ATTEMPTS {
            let _slot = self.slots().take(Lane::Backfill).await;
            let reader = self.reader(&id.database)?.distrusting();
            let aggregate = self.find(&reader, &id.name)?.clone();
            let clean = clean(&reader, &aggregate).intersect(times);
            let found = compare(&reader, &aggregate, &clean).await?;
            if found.pieces.is_empty() || !repairs {
                report.add(&aggregate, &clean, &found, 0);
                return Ok(TimeRanges::none());
            }
            let buckets = aggregate.definition.pieces.count_buckets(&found.pieces);
            let medium = aggregate.medium(&found.pieces);
            let mut computed = refresh::compute(&reader, &aggregate, &found.pieces, medium).await?;
            if let Some(restated) = &mut computed.restated {
                restated.because = Because::Repaired;
            }
            let ready = Ready { reader, aggregate: aggregate.clone(), computed };
            match self.commit_refresh(ready, Lane::Repair).await {
                Err(AggregationError::Storage(StorageError::Conflict { .. })) => continue,
                committed => committed?,
            }
            report.add(&aggregate, &clean, &found, buckets);
            return Ok(found.pieces);
        }
        let reason = format!("{} keeps changing while it is verified; try again", id.name);
        Err(AggregationError::Conflict(reason))
    }
}

/// What one comparison has found.
struct Found {
    /// The pieces with rows that differ.
    pieces: TimeRanges,
    /// How many rows do.
    rows: u64,
    details: Vec<Mismatch>,
    points_scanned: u64,
}

impl AuditReport {
    fn add(&mut self, aggregate: &Aggregate, clean: &TimeRanges, found: &Found, repaired: u64) {
        self.buckets_checked += aggregate.definition.pieces.count_buckets(clean);
        self.points_scanned += found.points_scanned;
        self.mismatches += found.rows;
        self.buckets_repaired += repaired;
        let room = MOST_DESCRIBED.saturating_sub(self.details.len());
        self.details.extend(found.details.iter().take(room).cloned());
    }
}

/// Compares stored rows of `times` (whole pieces) with what a distrusting reader computes.
async fn compare(
    reader: &Reader,
    aggregate: &Aggregate,
    times: &TimeRanges,
) -> Result<Found, AggregationError> {
    let (mut pieces, mut details, mut rows) = (BTreeSet::new(), Vec::new(), 0);
    if times.is_empty() {
        let pieces = TimeRanges::none();
        return Ok(Found { pieces, rows, details, points_scanned: 0 });
    }
    let computing = Computing::of(reader, aggregate)?;
    let wanted = Wanted::at(times.clone());
    let stored = computing.stored(&wanted).await?;
    let (expected, points_scanned) = computing.computed(&wanted).await?;
    let suspects = changed_rows(&stored, &expected, computing.keys())?;
    let suspects: BTreeSet<i64> = suspects.into_keys().collect();
    if !suspects.is_empty() {
        let found = differences(&computing, reader, &suspects, (&stored, &expected)).await?;
        for one in &found.rows {
            rows += 1;
            pieces.extend(one.piece());
            if details.len() < MOST_DESCRIBED {
                details.extend(found.described(one, &computing, reader, aggregate).await?);
            }
        }
    }
    let cut = aggregate.definition.pieces;
    let pieces = pieces.into_iter().map(|start| cut.piece_of(Timestamp::from_nanos(start)));
    Ok(Found { pieces: pieces.collect(), rows, details, points_scanned })
}

/// Counts and logs what an audit found.
fn count(id: &AggregateId, report: &AuditReport) {
    let labels = [("aggregate", id.name.to_string())];
    metrics::counter!("highwater_aggregation_audited_buckets_total", &labels)
        .increment(report.buckets_checked);
    metrics::counter!("highwater_aggregation_audit_mismatches_total", &labels)
        .increment(report.mismatches);
    if report.mismatches > 0 {
        let first = report.details.first();
        error!(
            aggregate = %id, mismatches = report.mismatches,
            buckets_repaired = report.buckets_repaired,
            bucket = first.map(|one| one.bucket.to_string()),
            output = first.map(|one| one.output.as_str()),
            "stored partials are not what the source gives"
        );
    }
}
