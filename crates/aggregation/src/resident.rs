//! Storage `hybrid`: what is stored of an aggregate stays in memory, too.
//!
//! Which aggregates that are stands in their definitions, what fits is decided by storage: the first
//! by name come first. Reads never ask; they find decoded segments or read files.

use std::time::Duration;

use highwater_core::MeasurementId;
use highwater_storage::guarded;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::catalog::Aggregate;
use crate::definition::Storage;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::memory;
use crate::runtime::Aggregates;

/// However many commits come, looks are at least this far apart.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// What is in memory of an aggregate with storage `hybrid` or `memory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResidentStatus {
    /// Stored rows in memory, hidden ones included until compaction.
    pub rows: u64,
    /// Memory that they take.
    pub bytes: u64,
    /// Why reads come from disk or from the source, if some do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

impl Aggregates {
    /// Loads what is stored of aggregates with storage `hybrid` into memory, as far as it is not
    /// there and `aggregation.resident_mb` has room, and lets go of what is not to be there.
    ///
    /// # Errors
    /// If a stored definition cannot be read. What cannot be loaded is read from disk, and its status
    /// says so.
    pub async fn keep_resident(&self) -> Result<(), AggregationError> {
        let most_bytes = self.settings().resident_bytes();
        self.engine().keep_resident(&self.hybrids()?, most_bytes).await;
        Ok(())
    }

    /// Does so after every commit until told to stop.
    pub(crate) async fn follow_residents(&self, stop: &CancellationToken) {
        let mut commits = self.engine().commits();
        loop {
            commits.mark_unchanged();
            if let Err(error) = guarded(self.keep_resident()).await {
                error!(error = &error as &dyn std::error::Error, "could not load aggregates");
            }
            let next = async {
                tokio::time::sleep(LEAST_PAUSE).await;
                commits.changed().await
            };
            match stop.run_until_cancelled(next).await {
                Some(Ok(())) => {}
                // Told to stop, or the engine is gone.
                None | Some(Err(_)) => return,
            }
        }
    }

    /// Where the aggregates with storage `hybrid` are stored, by name.
    fn hybrids(&self) -> Result<Vec<MeasurementId>, AggregationError> {
        let version = self.engine().version();
        let mut hybrids = Vec::new();
        for database in self.databases() {
            let catalog = self.catalog(&version, &database)?;
            let own = catalog.iter().filter(|one| one.definition.storage == Storage::Hybrid);
            hybrids.extend(own.map(|one| one.stored()));
        }
        Ok(hybrids)
    }
}

/// What stays in memory of an aggregate; `None` if it is not to.
pub(crate) fn resident_status(reader: &Reader, aggregate: &Aggregate) -> Option<ResidentStatus> {
    match aggregate.definition.storage {
        Storage::Durable => return None,
        Storage::Memory => return Some(memory::resident_status(reader, aggregate)),
        Storage::Hybrid => {}
    }
    let residency = reader.session().engine().storage().residency(&aggregate.stored());
    let reason = match residency {
        None => Some("it is not loaded yet"),
        Some(residency) if residency.is_whole => None,
        Some(_) => Some("it cannot be loaded, or aggregation.resident_mb has no room for it"),
    };
    let residency = residency.unwrap_or_default();
    Some(ResidentStatus { rows: residency.rows, bytes: residency.bytes, reason })
}
