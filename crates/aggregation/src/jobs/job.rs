//! The document of a job: what it is about, how far it is, and what happened to it.

use std::sync::Arc;

use highwater_core::{SequenceNumber, TimeRange, TimeRanges, Timestamp};
use highwater_storage::Edit;
use serde::{Deserialize, Serialize};

use super::state::{JobState, Move, MoveError, after};
use crate::catalog::{Aggregate, Catalog, ended_job_key};
use crate::definition::AggregateId;
use crate::exact::Reader;

/// Events kept with a job; of more the oldest go.
const EVENTS_KEPT: usize = 100;
/// Jobs kept after their aggregate has gone or has another one, per database.
const ENDED_KEPT: usize = 100;

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// The first build of an aggregate over what its source holds already.
    Backfill,
    /// A build beside the one in force, which answers until the new one is complete.
    Rebuild,
}

impl JobKind {
    /// One word, for tables.
    pub fn name(self) -> &'static str {
        match self {
            JobKind::Backfill => "backfill",
            JobKind::Rebuild => "rebuild",
        }
    }
}

/// A job of one aggregate. See `docs/format/aggregates.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Ascending in its database.
    pub(crate) id: u64,
    pub(crate) kind: JobKind,
    pub(crate) state: JobState,
    /// The state in which it stopped, while it stands still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stopped_in: Option<JobState>,
    /// The newest commit when it was made; what later ones bring makes pieces stale as always.
    pub(crate) cutoff_id: SequenceNumber,
    /// End of what is to be built; `None`: every closed bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Timestamp>,
    /// Points of a batch, if not as many as `aggregation.step_points` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batch_size: Option<u64>,
    /// Points there are to read; of an aggregate over an aggregate: rows of partials.
    pub(crate) total_rows: u64,
    pub(crate) processed_rows: u64,
    /// Time of the oldest point of the last batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unfinished: Option<Unfinished>,
    /// Batches committed.
    pub(crate) batches: u64,
    /// The highest number of attempts that any step needed.
    pub(crate) attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error_message: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    /// Since when it backfills without a stop, and the rows it had processed then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pace: Option<(Timestamp, u64)>,
    /// Oldest first.
    pub(crate) events: Vec<JobEvent>,
}

/// The piece that the last batch ended in. The partials of its read part are stored where those of
/// the whole piece will be; nobody else reads them, because the piece is not applied yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unfinished {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    /// What lies before this instant is still to be read.
    pub(crate) read_from: Timestamp,
    /// The oldest version that a part of it was read at.
    pub(crate) seq: SequenceNumber,
    /// Points of the part that is read.
    pub(crate) rows: u64,
}

impl Unfinished {
    pub(crate) fn piece(&self) -> TimeRange {
        TimeRange::new(self.start, self.end)
    }
}

/// A move of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobEvent {
    /// Where it went.
    pub(crate) state: JobState,
    pub(crate) time: Timestamp,
}

/// A job that has just been asked for: `creating`, or `completed` if there is nothing to do.
pub(crate) fn new_job(
    (id, kind): (u64, JobKind),
    reader: &Reader,
    until: Option<Timestamp>,
    total_rows: u64,
) -> Job {
    let now = reader.session().now();
    let state = JobState::Pending;
    let mut job = Job {
        id,
        kind,
        state,
        stopped_in: None,
        cutoff_id: reader.session().version().seq(),
        until,
        batch_size: None,
        total_rows,
        processed_rows: 0,
        position: None,
        unfinished: None,
        batches: 0,
        attempts: 0,
        error_message: None,
        created_at: now,
        updated_at: now,
        pace: None,
        events: vec![JobEvent { state, time: now }],
    };
    job.advance_to(JobState::Creating, now);
    if kind == JobKind::Backfill && until.is_none() {
        job.advance_to(JobState::Completed, now);
    }
    job
}

impl Job {
    /// The edit that stores it.
    pub(crate) fn put(&self, key: String) -> Edit {
        let text = serde_json::to_string(self).expect("a job is plain data");
        Edit::PutDocument { key, text: Some(text.into()) }
    }

    /// # Errors
    /// [`MoveError`] if its state does not allow the move; it is as it was then.
    pub(crate) fn make(&mut self, wanted: Move, now: Timestamp) -> Result<(), MoveError> {
        let state = after(self.state, self.stopped_in, wanted)?;
        self.stopped_in = match (state.is_running() || state == JobState::Completed, self.state) {
            (true, _) => None,
            (false, from) if from.is_running() => Some(from),
            (false, _) => self.stopped_in,
        };
        self.pace = (state == JobState::Backfilling).then_some((now, self.processed_rows));
        if state.is_running() {
            self.error_message = None;
        }
        if state == JobState::Completed {
            // What others stored or took away meanwhile needs no reading any more.
            self.total_rows = self.total_rows.max(self.processed_rows);
            self.processed_rows = self.total_rows;
        }
        (self.state, self.updated_at) = (state, now);
        if self.events.len() == EVENTS_KEPT {
            self.events.remove(0);
        }
        self.events.push(JobEvent { state, time: now });
        Ok(())
    }

    /// Goes on to a later state of a job's life, through those between; nothing if it is there.
    pub(crate) fn advance_to(&mut self, state: JobState, now: Timestamp) {
        while self.state.is_running() && self.state < state {
            self.make(Move::Advance, now).expect("a job that runs can go on");
        }
    }

    /// Whether the background works on it.
    pub(crate) fn is_running(&self) -> bool {
        self.state.is_running()
    }

    /// Share of the rows that are processed, in percent with one decimal, less than 100 as long as one
    /// is not; of none all are.
    pub(crate) fn progress_percent(&self) -> f64 {
        if self.processed_rows >= self.total_rows {
            return 100.0;
        }
        let percent = self.processed_rows as f64 / self.total_rows as f64 * 100.0;
        ((percent * 10.0).round() / 10.0).min(99.9)
    }

    /// When it will have read everything, at the rate since it last began to; `None` until that is
    /// known.
    pub(crate) fn eta(&self) -> Option<Timestamp> {
        let (since, rows_then) = self.pace?;
        let elapsed = i128::from(self.updated_at.as_nanos()) - i128::from(since.as_nanos());
        let done = i128::from(self.processed_rows) - i128::from(rows_then);
        let left = i128::from(self.total_rows) - i128::from(self.processed_rows);
        if elapsed <= 0 || done <= 0 || left <= 0 {
            return None;
        }
        let nanos = i64::try_from(elapsed * left / done).unwrap_or(i64::MAX);
        Some(self.updated_at.saturating_add(nanos))
    }
}

/// What of an aggregate only its job brings in: everything up to where the job reaches that is not
/// stored yet, also while it stands still.
pub(crate) fn reserved(aggregate: &Aggregate) -> TimeRanges {
    let job = aggregate.job.as_ref().filter(|job| job.state != JobState::Completed);
    let Some(until) = job.and_then(|job| job.until) else { return TimeRanges::none() };
    TimeRanges::from(TimeRange::before(until)).subtract(&aggregate.progress.applied.covered())
}

/// A number that no job of the database has had.
pub(crate) fn unused_id(catalog: &Catalog) -> u64 {
    let current = catalog.iter().chain(catalog.shadows()).filter_map(|one| one.job.as_ref());
    let all = current.chain(catalog.ended_jobs().iter().map(|(_, job)| job));
    all.map(|job| job.id).max().unwrap_or(0) + 1
}

/// The edits that take a job from its aggregate, which goes or gets another one, and keep it as one
/// that has ended.
pub(crate) fn retired(reader: &Reader, aggregate: &Aggregate) -> Vec<Edit> {
    let Some(job) = &aggregate.job else { return Vec::new() };
    let mut job = Job::clone(job);
    if !job.state.is_ended() {
        let ended = job.make(Move::Cancel, reader.session().now());
        ended.expect("a job that has not ended can be cancelled");
    }
    let mut edits = vec![
        Edit::PutDocument { key: aggregate.job_key(), text: None },
        job.put(ended_job_key(aggregate.id(), job.id)),
    ];
    let ended = reader.catalog().ended_jobs();
    let surplus = (ended.len() + 1).saturating_sub(ENDED_KEPT);
    edits.extend(ended.iter().take(surplus).map(|(name, job)| {
        let id = AggregateId::new(Arc::clone(&aggregate.id().database), Arc::clone(name));
        Edit::PutDocument { key: ended_job_key(&id, job.id), text: None }
    }));
    edits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn job() -> Job {
        let state = JobState::Pending;
        Job {
            id: 1,
            kind: JobKind::Backfill,
            state,
            stopped_in: None,
            cutoff_id: SequenceNumber::new(7),
            until: Some(at(9_000)),
            batch_size: None,
            total_rows: 3_000,
            processed_rows: 0,
            position: None,
            unfinished: None,
            batches: 0,
            attempts: 0,
            error_message: None,
            created_at: at(0),
            updated_at: at(0),
            pace: None,
            events: vec![JobEvent { state, time: at(0) }],
        }
    }

    #[test]
    fn a_job_goes_back_to_where_it_stopped() {
        let mut job = job();
        job.advance_to(JobState::Backfilling, at(1));
        job.make(Move::Pause, at(2)).unwrap();
        assert!(job.make(Move::Retry, at(3)).is_err());
        job.make(Move::Cancel, at(3)).unwrap();
        assert_eq!(job.stopped_in, Some(JobState::Backfilling), "not in a pause");
        job.make(Move::Retry, at(4)).unwrap();
        assert_eq!((job.state, job.stopped_in), (JobState::Backfilling, None));
        job.advance_to(JobState::Completed, at(5));
        let events: Vec<&str> = job.events.iter().map(|event| event.state.name()).collect();
        let expected =
            "pending creating backfilling paused cancelled backfilling optimizing completed";
        assert_eq!(events.join(" "), expected);
        assert_eq!((job.processed_rows, job.total_rows), (3_000, 3_000));
    }

    #[test]
    fn the_rate_since_it_last_began_tells_when_it_ends() {
        let mut job = job();
        assert_eq!((job.progress_percent(), job.eta()), (0.0, None));
        job.advance_to(JobState::Backfilling, at(100));
        assert_eq!(job.eta(), None);
        (job.processed_rows, job.updated_at) = (1_000, at(110));
        assert_eq!((job.progress_percent(), job.eta()), (33.3, Some(at(130))));
        job.make(Move::Pause, at(200)).unwrap();
        assert_eq!(job.eta(), None);
        job.make(Move::Resume, at(1_000)).unwrap();
        (job.processed_rows, job.updated_at) = (2_999, at(1_001));
        assert_eq!(job.progress_percent(), 99.9, "never 100 before the end");
        job.total_rows = 0;
        job.processed_rows = 0;
        assert_eq!(job.progress_percent(), 100.0);
    }

    #[test]
    fn a_document_comes_back_as_it_was() {
        let mut job = job();
        job.advance_to(JobState::Backfilling, at(1));
        let seq = SequenceNumber::new(3);
        let unfinished =
            Unfinished { start: at(0), end: at(86_400), read_from: at(7), seq, rows: 2 };
        job.unfinished = Some(unfinished);
        let Edit::PutDocument { text: Some(text), .. } = job.put("key".to_owned()) else {
            panic!()
        };
        assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
    }

    #[test]
    fn events_are_bounded() {
        let mut job = job();
        job.advance_to(JobState::Backfilling, at(1));
        for second in 0..200 {
            job.make(Move::Pause, at(second)).unwrap();
            job.make(Move::Resume, at(second)).unwrap();
        }
        assert_eq!(job.events.len(), EVENTS_KEPT);
    }
}
