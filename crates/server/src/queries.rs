//! How many queries run at once, for how long, and on which threads.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use highwater_core::ErrorKind;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::respond::Refusal;
use crate::settings::QuerySettings;

/// Admits queries while there are not too many.
#[derive(Clone, Debug)]
pub struct Queries {
    places: Arc<Semaphore>,
    settings: QuerySettings,
    threads: Handle,
}

impl Queries {
    /// Nothing is running yet; what will be runs on these threads.
    pub fn new(settings: QuerySettings, threads: Handle) -> Self {
        Queries { places: Arc::new(Semaphore::new(settings.max_queries)), settings, threads }
    }

    /// Works on a query away from the threads that answer requests, as long as the client waits.
    ///
    /// # Errors
    /// Those of the work, and a defect in it.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let work = AbortOnDropHandle::new(self.threads.spawn(work));
        work.await.map_err(|e| Refusal::of(&e, ErrorKind::Internal))?
    }

    /// Admits a query.
    ///
    /// # Errors
    /// 503 while as many run as may.
    pub fn begin(&self) -> Result<RunningQuery, Refusal> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let message =
                format!("{} queries are running; try again shortly", self.settings.max_queries);
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message));
        };
        metrics::gauge!("highwater_query_active_queries").increment(1);
        let timeout = Duration::from_secs(self.settings.timeout_secs);
        Ok(RunningQuery { _place: place, timeout, deadline: Instant::now() + timeout })
    }
}

/// A query that is running, until it is dropped.
#[derive(Debug)]
pub struct RunningQuery {
    _place: OwnedSemaphorePermit,
    timeout: Duration,
    deadline: Instant,
}

impl RunningQuery {
    /// Waits for a part of the query.
    ///
    /// # Errors
    /// 503 once the query has taken too long.
    pub async fn in_time<T>(&self, part: impl Future<Output = T>) -> Result<T, Refusal> {
        timeout_at(self.deadline, part).await.map_err(|_| {
            let message = format!(
                "the query took longer than {} s and was stopped; ask for less, or raise \
                 query.timeout_secs",
                self.timeout.as_secs()
            );
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message)
        })
    }
}

impl Drop for RunningQuery {
    fn drop(&mut self) {
        metrics::gauge!("highwater_query_active_queries").decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_are_only_so_many_places() {
        let settings = QuerySettings { max_queries: 2, ..QuerySettings::default() };
        let queries = Queries::new(settings, Handle::current());
        let (first, _second) = (queries.begin().unwrap(), queries.begin().unwrap());
        let refused = queries.begin().unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        assert!(queries.begin().is_ok());
    }

    #[tokio::test]
    async fn a_query_that_takes_too_long_is_stopped() {
        let settings = QuerySettings { timeout_secs: 0, ..QuerySettings::default() };
        let query = Queries::new(settings, Handle::current()).begin().unwrap();
        let refused = query.in_time(std::future::pending::<()>()).await.unwrap_err();
        assert_eq!((refused.status, refused.code), (StatusCode::SERVICE_UNAVAILABLE, "timeout"));
    }
}
