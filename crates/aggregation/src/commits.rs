//! Refreshes that are ready at the same time share one commit.

use std::sync::Arc;

use highwater_storage::{Engine, StorageError};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::catalog::Aggregate;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::lanes::Lane;
use crate::refresh::{self, Computed};
use crate::runtime::Aggregates;

/// A step of a refresh that has been computed, and the version it was computed at.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) reader: Reader,
    pub(crate) aggregate: Arc<Aggregate>,
    pub(crate) computed: Computed,
}

/// What waits to be committed with the next commit.
#[derive(Default)]
pub(crate) struct Commits {
    waiting: Mutex<Vec<Waiting>>,
    turn: AsyncMutex<()>,
}

type Waiting = (Ready, oneshot::Sender<Result<(), AggregationError>>);

impl std::fmt::Debug for Commits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Commits({} waiting)", self.waiting.lock().len())
    }
}

impl Ready {
    /// # Errors
    /// [`StorageError::Conflict`] if the aggregate was redefined since.
    fn check(&self, engine: &Engine) -> Result<(), AggregationError> {
        let (then, now) = (self.reader.session().version(), engine.version());
        for key in self.aggregate.keys() {
            if then.document(&key) != now.document(&key) {
                return Err(StorageError::Conflict { what: key }.into());
            }
        }
        Ok(())
    }
}

impl Aggregates {
    /// Commits a step: stored partials, progress and watermark, or nothing. A large step commits
    /// alone, so that no other waits for its files to be written.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] if the aggregate was redefined since it was computed, and those
    /// of storing.
    pub(crate) async fn commit_refresh(
        &self,
        ready: Ready,
        lane: Lane,
    ) -> Result<(), AggregationError> {
        self.switches().before_commit(self.stop()).await?;
        if lane == Lane::Backfill {
            let _unchanging = self.keep_definitions().await;
            return refresh::commit(self.engine(), vec![ready]).await;
        }
        let (outcome, committed) = oneshot::channel();
        self.commits().waiting.lock().push((ready, outcome));
        {
            let _turn = self.commits().turn.lock().await;
            let waiting = std::mem::take(&mut *self.commits().waiting.lock());
            if !waiting.is_empty() {
                let _unchanging = self.keep_definitions().await;
                self.commit_waiting(waiting).await;
            }
        }
        committed.await.map_err(|_| AggregationError::Stopping)?
    }

    async fn commit_waiting(&self, waiting: Vec<Waiting>) {
        let mut fitting = Vec::with_capacity(waiting.len());
        for (ready, outcome) in waiting {
            match ready.check(self.engine()) {
                Ok(()) => fitting.push((ready, outcome)),
                Err(error) => tell(outcome, Err(error)),
            }
        }
        if fitting.len() > 1 {
            let together = fitting.iter().map(|(ready, _)| ready.clone()).collect();
            if refresh::commit(self.engine(), together).await.is_ok() {
                fitting.into_iter().for_each(|(_, outcome)| tell(outcome, Ok(())));
                return;
            }
        }
        // One that cannot be committed disturbs no other.
        for (ready, outcome) in fitting {
            tell(outcome, refresh::commit(self.engine(), vec![ready]).await);
        }
    }
}

/// Nobody may be waiting any more; that is fine.
fn tell(
    outcome: oneshot::Sender<Result<(), AggregationError>>,
    result: Result<(), AggregationError>,
) {
    drop(outcome.send(result));
}
