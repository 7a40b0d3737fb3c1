//! Somebody who reads closed buckets once, and again only where the feed of restatements says so.

use std::collections::{BTreeMap, BTreeSet};

use highwater_aggregation::Restatement;
use highwater_core::{SequenceNumber, Timestamp};

/// What is known of one aggregate.
pub(crate) struct Follower {
    /// Where the feed goes on.
    pub(crate) next: SequenceNumber,
    /// Buckets before this time are closed.
    closed: i64,
    /// Rows by start of the bucket.
    rows: BTreeMap<i64, Vec<Vec<String>>>,
}

impl Default for Follower {
    /// Nothing is known yet, of times before 1970 neither.
    fn default() -> Self {
        Follower { next: SequenceNumber::ZERO, closed: i64::MIN, rows: BTreeMap::new() }
    }
}

impl Follower {
    /// Reads on: `stored` are all rows, which begin with the start of their bucket. Answers with
    /// the closed buckets whose rows are others although nothing was said of them, and these rows,
    /// as they were and as they are.
    pub(crate) fn read_on(
        &mut self,
        stored: &[Vec<String>],
        closed: Timestamp,
        told: &[Restatement],
    ) -> BTreeMap<i64, [Vec<Vec<String>>; 2]> {
        let mut now: BTreeMap<i64, Vec<Vec<String>>> = BTreeMap::new();
        for row in stored {
            now.entry(row[0].parse().unwrap()).or_default().push(row.clone());
        }
        let closed = closed.as_nanos();
        let is_told = |start: i64| {
            let at = Timestamp::from_nanos(start);
            told.iter().any(|one| {
                one.bucket.is_none_or(|bucket| bucket <= at)
                    && one.bucket_end.is_none_or(|end| at < end)
            })
        };
        let mut untold = BTreeMap::new();
        let starts: BTreeSet<i64> = now.keys().chain(self.rows.keys()).copied().collect();
        for start in starts.into_iter().filter(|start| *start < closed) {
            let rows = now.get(&start);
            if self.rows.get(&start) != rows && start < self.closed && !is_told(start) {
                let both =
                    [self.rows.get(&start), rows].map(|rows| rows.cloned().unwrap_or_default());
                untold.insert(start, both);
            }
            match rows {
                Some(rows) => drop(self.rows.insert(start, rows.clone())),
                None => drop(self.rows.remove(&start)),
            }
        }
        self.closed = closed;
        untold
    }
}
