//! The feed of restatements: which closed buckets of an aggregate got other stored values, in the
//! order in which that happened.
//!
//! Entries are rows of a measurement of their own, hidden as stored partials are, and come in the
//! commit that replaces the partials. Their time is their number: one nanosecond for the first, so
//! dropping old ones raises the floor. The document `feed` says where they are and how far they go.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{TimestampNanosecondType, UInt64Type};
use futures::TryStreamExt;
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{
    Column, FieldType, MeasurementId, ScanFilter, Schema, SequenceNumber, TimeRange, TimeRanges,
    Timestamp,
};
use highwater_storage::{
    Commit, Edit, MeasurementKind, Medium, Replacement, ScanRequest, StorageError, Version,
};
use serde::{Deserialize, Serialize};

use crate::catalog::{Aggregate, feed_key, put};
use crate::definition::AggregateId;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::versions::drop_stored;

/// More ranges than this of one commit are told as fewer, wider ones.
const MOST_RANGES: usize = 1_000;

/// Why stored values changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Because {
    /// Points came, changed or went.
    Changed,
    /// They were not what the source gives.
    Repaired,
    /// Sealed rows were deleted.
    Deleted,
    /// Another definition is in force.
    Redefined,
}

impl Because {
    fn name(self) -> &'static str {
        match self {
            Because::Changed => "changed",
            Because::Repaired => "repaired",
            Because::Deleted => "deleted",
            Because::Redefined => "redefined",
        }
    }
}

/// Closed buckets of one aggregate whose stored values one commit changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Restated {
    /// Whole buckets, ascending; [`TimeRange::ALL`] for everything.
    ranges: Vec<TimeRange>,
    pub(crate) because: Because,
}

impl Restated {
    /// Those of the pieces with these starts (nanoseconds) that belong to closed buckets at `now`.
    pub(crate) fn of_pieces(
        aggregate: &Aggregate,
        starts: impl Iterator<Item = i64>,
        now: Timestamp,
    ) -> Self {
        let (grid, done) = (aggregate.definition.pieces.grid(), aggregate.done());
        let buckets: BTreeSet<Timestamp> = starts
            .map(|start| grid.range_of(Timestamp::from_nanos(start)))
            .filter(|bucket| done.contains(bucket.start) && bucket.end <= now)
            .map(|bucket| bucket.start)
            .collect();
        let buckets = buckets.into_iter().map(|start| grid.range_of(start)).collect();
        Restated { ranges: bounded(buckets), because: Because::Changed }
    }

    /// The closed buckets of sealed rows that a delete takes.
    pub(crate) fn deleted(aggregate: &Aggregate, times: &TimeRanges) -> Self {
        let grid = aggregate.definition.pieces.grid();
        let closed = times.intersect(&aggregate.done().into());
        let buckets: TimeRanges = closed.iter().map(|range| grid.round_out(range)).collect();
        Restated { ranges: bounded(buckets.iter().collect()), because: Because::Deleted }
    }

    /// All of them.
    pub(crate) fn redefined() -> Self {
        Restated { ranges: vec![TimeRange::ALL], because: Because::Redefined }
    }
}

/// The same ranges, in at most [`MOST_RANGES`].
fn bounded(ranges: Vec<TimeRange>) -> Vec<TimeRange> {
    if ranges.len() <= MOST_RANGES {
        return ranges;
    }
    let joined: Vec<TimeRange> = ranges.into_iter().collect::<TimeRanges>().iter().collect();
    let together = joined.len().div_ceil(MOST_RANGES);
    let hull = |some: &[TimeRange]| TimeRange::new(some[0].start, some[some.len() - 1].end);
    joined.chunks(together).map(hull).collect()
}

/// The document of a feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Feed {
    /// Name of the measurement that holds the entries.
    stored_as: Arc<str>,
    /// Number of the newest entry; the first has 1.
    revision: u64,
    /// Its `seq`.
    pub(crate) seq: SequenceNumber,
    /// Number of the newest entry that was dropped, if one was.
    dropped: u64,
    /// Its `seq`.
    dropped_seq: SequenceNumber,
    /// When the oldest entry that is kept came.
    oldest: Option<Timestamp>,
}

/// One entry of a feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restatement {
    /// The aggregate.
    pub aggregate: Arc<str>,
    /// Start of the bucket, or of the first of several; `None`: every bucket may have changed. Of an
    /// aggregate that is kept by days, these are its buckets.
    pub bucket: Option<Timestamp>,
    /// End of the bucket, or of the last of several.
    pub bucket_end: Option<Timestamp>,
    /// Counts the entries of the aggregate, without a gap.
    pub revision: u64,
    /// The newest commit that the values reflect. All entries of one commit have the same, those of
    /// later commits a greater one.
    pub seq: SequenceNumber,
    /// When they were computed.
    pub at: Timestamp,
    /// `changed`, `repaired`, `deleted` or `redefined`.
    pub reason: String,
}

impl Feed {
    /// The feed of an aggregate, if it has one yet.
    pub(crate) fn of(
        version: &Version,
        id: &AggregateId,
    ) -> Result<Option<Feed>, AggregationError> {
        let key = feed_key(id);
        let Some(text) = version.document(&key) else { return Ok(None) };
        let parsed = serde_json::from_str(text);
        parsed.map(Some).map_err(|source| AggregationError::Document { key, source })
    }

    /// A new one, in a measurement that does not exist.
    fn begun(version: &Version, id: &AggregateId) -> Feed {
        let name = |number: u64| match number {
            1 => format!("{}@restatements", id.name),
            number => format!("{}@restatements{number}", id.name),
        };
        let is_free = |name: &String| {
            version.measurement(&MeasurementId::new(Arc::clone(&id.database), &**name)).is_none()
        };
        let stored_as = (1..).map(name).find(is_free).unwrap_or_default().into();
        let none = SequenceNumber::ZERO;
        Feed { stored_as, revision: 0, seq: none, dropped: 0, dropped_seq: none, oldest: None }
    }

    fn measurement(&self, id: &AggregateId) -> MeasurementId {
        MeasurementId::new(Arc::clone(&id.database), Arc::clone(&self.stored_as))
    }

    /// Whether entries are too many or too old.
    pub(crate) fn is_long(&self, most: u64, horizon: Timestamp) -> bool {
        self.revision - self.dropped > most || self.oldest.is_some_and(|oldest| oldest < horizon)
    }

    /// The entries that are kept, oldest first, as far as there is no gap behind them: one is left
    /// where a damaged segment was given up.
    pub(crate) async fn entries(
        &self,
        version: &Version,
        id: &AggregateId,
    ) -> Result<Vec<Restatement>, AggregationError> {
        let Some(stored) = version.measurement(&self.measurement(id)) else {
            return Ok(Vec::new());
        };
        let schema = schema();
        let names = std::iter::once(Arc::from(TIME_COLUMN));
        let names = names.chain(schema.columns().map(|column| column.name));
        let kept = TimeRange::since(time_of(self.dropped + 1));
        let request = ScanRequest::new(names.collect(), ScanFilter::at(kept.into()));
        let mut batches = stored.scan(&request)?.stream(0);
        let mut entries = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            entries.extend((0..batch.num_rows()).map(|row| entry(&id.name, &batch, row)));
        }
        entries.sort_unstable_by_key(|one| one.revision);
        let expected = (0..=self.revision).rev();
        let whole = entries.iter().rev().zip(expected).take_while(|(one, at)| one.revision == *at);
        let whole = whole.count();
        Ok(entries.split_off(entries.len() - whole))
    }

    /// The entries after the commit `since`; all that are kept, without it.
    ///
    /// # Errors
    /// [`AggregationError::FeedGone`] if some of them were dropped.
    pub(crate) async fn since(
        &self,
        version: &Version,
        id: &AggregateId,
        since: Option<SequenceNumber>,
    ) -> Result<Vec<Restatement>, AggregationError> {
        if since.is_some_and(|since| since >= self.seq) {
            return Ok(Vec::new());
        }
        let mut entries = self.entries(version, id).await?;
        let Some(since) = since else { return Ok(entries) };
        let has_gap = entries.len() as u64 != self.revision - self.dropped;
        let from = match entries.first() {
            _ if !has_gap => self.dropped_seq,
            Some(first) => first.seq,
            None => self.seq,
        };
        if since < from {
            return Err(AggregationError::FeedGone { name: id.name.to_string(), from });
        }
        entries.retain(|one| one.seq > since);
        Ok(entries)
    }
}

/// Adds entries to a commit that changes stored values of an aggregate, computed by this reader.
pub(crate) fn append(
    commit: &mut Commit,
    reader: &Reader,
    id: &AggregateId,
    restated: &Restated,
) -> Result<(), AggregationError> {
    if restated.ranges.is_empty() {
        return Ok(());
    }
    let (version, now) = (reader.session().version(), reader.session().now());
    let before = Feed::of(version, id)?;
    let mut feed = before.unwrap_or_else(|| Feed::begun(version, id));
    let first = feed.revision + 1;
    feed.revision += restated.ranges.len() as u64;
    feed.seq = version.seq();
    feed.oldest.get_or_insert(now);
    commit.replacements.push(Replacement {
        id: feed.measurement(id),
        kind: MeasurementKind::Materialization,
        schema: Arc::new(schema()),
        times: TimeRange::new(time_of(first), time_of(feed.revision + 1)).into(),
        overwrites: TimeRanges::none(),
        batches: vec![rows(first, restated, feed.seq, now)?],
        medium: Medium::Disk,
    });
    let key = feed_key(id);
    commit.expect_documents.push((key.clone(), version.document(&key).cloned()));
    commit.edits.push(put(key, &feed)?);
    Ok(())
}

/// The edits after which an aggregate has no feed.
pub(crate) fn dropped(reader: &Reader, id: &AggregateId) -> Result<Vec<Edit>, AggregationError> {
    let feed = Feed::of(reader.session().version(), id)?;
    let document = feed.as_ref().map(|_| Edit::PutDocument { key: feed_key(id), text: None });
    let stored = feed.and_then(|feed| drop_stored(reader, &feed.measurement(id)));
    Ok(document.into_iter().chain(stored).collect())
}

/// The commit that drops the oldest of these entries, so that `most` are left and none of them came
/// before `horizon`; `None` if all stay. Entries of one commit go together.
pub(crate) fn trimmed(
    version: &Version,
    id: &AggregateId,
    feed: &Feed,
    entries: &[Restatement],
    (most, horizon): (u64, Timestamp),
) -> Result<Option<Commit>, AggregationError> {
    let Some(last) = surplus(entries, most, horizon).checked_sub(1) else { return Ok(None) };
    let key = feed_key(id);
    let shorter = Feed {
        dropped: entries[last].revision,
        dropped_seq: entries[last].seq,
        oldest: entries.get(last + 1).map(|one| one.at),
        ..feed.clone()
    };
    let floor = time_of(shorter.dropped + 1);
    let mut commit = Commit::of([Edit::RaiseFloor { id: feed.measurement(id), floor }]);
    commit.expect_documents.push((key.clone(), version.document(&key).cloned()));
    commit.edits.push(put(key, &shorter)?);
    Ok(Some(commit))
}

/// How many of the oldest entries are to go.
fn surplus(entries: &[Restatement], most: u64, horizon: Timestamp) -> usize {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let too_many = entries.len().saturating_sub(most);
    let too_old = entries.iter().take_while(|one| one.at < horizon).count();
    let mut cut = too_many.max(too_old);
    while cut > 0 && cut < entries.len() && entries[cut].seq == entries[cut - 1].seq {
        cut -= 1;
    }
    cut
}

/// Columns of the measurement, beside the time.
fn schema() -> Schema {
    Schema::of([
        Column::field("at", FieldType::Timestamp),
        Column::field("bucket", FieldType::Timestamp),
        Column::field("bucket_end", FieldType::Timestamp),
        Column::field("reason", FieldType::String),
        Column::field("seq", FieldType::Unsigned),
    ])
}

fn time_of(revision: u64) -> Timestamp {
    Timestamp::from_nanos(i64::try_from(revision).unwrap_or(i64::MAX))
}

/// Entries from the number `first` on.
fn rows(
    first: u64,
    restated: &Restated,
    seq: SequenceNumber,
    at: Timestamp,
) -> Result<RecordBatch, AggregationError> {
    let ranges = &restated.ranges;
    let times = (first..).take(ranges.len()).map(|revision| time_of(revision).as_nanos());
    let bound = |of: fn(&TimeRange) -> Timestamp| -> ArrayRef {
        let bound = ranges.iter().map(|one| (*one != TimeRange::ALL).then(|| of(one).as_nanos()));
        Arc::new(bound.collect::<TimestampNanosecondArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from_iter_values(times)),
        Arc::new(TimestampNanosecondArray::from(vec![at.as_nanos(); ranges.len()])),
        bound(|range| range.start),
        bound(|range| range.end),
        Arc::new(StringArray::from(vec![restated.because.name(); ranges.len()])),
        Arc::new(UInt64Array::from(vec![seq.get(); ranges.len()])),
    ];
    Ok(RecordBatch::try_new(schema().arrow(), columns).map_err(StorageError::from)?)
}

/// The entry in a row of columns as [`rows`] makes them.
fn entry(aggregate: &Arc<str>, batch: &RecordBatch, row: usize) -> Restatement {
    let time = |column: usize| {
        let times = batch.column(column).as_primitive::<TimestampNanosecondType>();
        times.is_valid(row).then(|| Timestamp::from_nanos(times.value(row)))
    };
    let number = time(0).map_or(0, Timestamp::as_nanos);
    Restatement {
        aggregate: Arc::clone(aggregate),
        bucket: time(2),
        bucket_end: time(3),
        revision: u64::try_from(number).unwrap_or_default(),
        seq: SequenceNumber::new(batch.column(5).as_primitive::<UInt64Type>().value(row)),
        at: time(1).unwrap_or_default(),
        reason: batch.column(4).as_string::<i32>().value(row).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(seqs: &[u64]) -> Vec<Restatement> {
        let entry = |(revision, &seq): (u64, &u64)| Restatement {
            aggregate: "a".into(),
            bucket: None,
            bucket_end: None,
            revision,
            seq: SequenceNumber::new(seq),
            at: Timestamp::from_secs(seq.cast_signed()),
            reason: "changed".to_owned(),
        };
        (1..).zip(seqs).map(entry).collect()
    }

    #[test]
    fn the_newest_stay_and_commits_stay_whole() {
        let all = entries(&[3, 5, 5, 5, 9]);
        let by_count = |most| surplus(&all, most, Timestamp::from_secs(0));
        assert_eq!([5, 4, 3, 2, 1, 0].map(by_count), [0, 1, 1, 1, 4, 5]);
        let by_age = |secs| surplus(&all, 9, Timestamp::from_secs(secs));
        assert_eq!([3, 4, 5, 6, 9, 10].map(by_age), [0, 1, 1, 4, 4, 5]);
    }

    #[test]
    fn many_buckets_are_told_as_ranges_that_hold_all_of_them() {
        let hour = |hour: i64| {
            TimeRange::new(
                Timestamp::from_secs(hour * 3600),
                Timestamp::from_secs(hour * 3600 + 3600),
            )
        };
        let few: Vec<TimeRange> = (0..1_000).map(hour).collect();
        assert_eq!(bounded(few.clone()), few);
        let neighbours = bounded((0..5_000).map(hour).collect());
        assert_eq!(neighbours, [TimeRange::new(hour(0).start, hour(4_999).end)]);
        let apart: Vec<TimeRange> = (0..2_500).map(|at| hour(2 * at)).collect();
        let told = bounded(apart.clone());
        assert!(told.len() <= MOST_RANGES && told.windows(2).all(|two| two[0].end < two[1].start));
        let told: TimeRanges = told.into_iter().collect();
        assert!(apart.iter().all(|one| told.covers(*one)));
    }
}
