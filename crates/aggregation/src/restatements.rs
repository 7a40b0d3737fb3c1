//! Reading feeds of restatements: for whoever follows one, in SQL, and keeping them short.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use highwater_core::SequenceNumber;
use highwater_core::schema::time_data_type;
use highwater_storage::Commit;

use crate::definition::AggregateId;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::feed::{Feed, Restatement, trimmed};
use crate::functions::through_a_plan;
use crate::runtime::{Aggregates, no_such};
use crate::system::{of_rows, schema_of};

/// A part of the feed of one aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restatements {
    /// Oldest first.
    pub entries: Vec<Restatement>,
    /// Where to go on: what comes later has a greater `seq`.
    pub next: SequenceNumber,
}

impl Aggregates {
    /// The closed buckets of an aggregate whose stored values changed in commits after `since`;
    /// without it, all that are kept.
    ///
    /// # Errors
    /// If there is none of that name; [`AggregationError::FeedGone`] if entries after `since` were
    /// dropped already.
    pub async fn restatements(
        &self,
        database: &str,
        name: &str,
        since: Option<SequenceNumber>,
    ) -> Result<Restatements, AggregationError> {
        let reader = self.reader(&database.into())?;
        let (_, aggregate) = reader.find(name).ok_or_else(|| no_such(&reader, name))?;
        let (version, id) = (reader.session().version(), aggregate.id());
        let Some(feed) = Feed::of(version, id)? else {
            return Ok(Restatements { entries: Vec::new(), next: since.unwrap_or_default() });
        };
        let entries = feed.since(version, id, since).await?;
        Ok(Restatements { entries, next: feed.seq.max(since.unwrap_or_default()) })
    }

    /// Drops entries that are too many or too old. Returns how many feeds are shorter.
    pub(crate) async fn trim_feeds(&self) -> Result<usize, AggregationError> {
        let mut count = 0;
        for database in self.databases() {
            for id in self.long_feeds(&self.reader(&database)?)? {
                count += usize::from(self.trim_feed(&id).await?);
            }
        }
        Ok(count)
    }

    fn long_feeds(&self, reader: &Reader) -> Result<Vec<AggregateId>, AggregationError> {
        let (most, horizon) = self.feed_bounds();
        let mut long = Vec::new();
        for one in reader.catalog().iter() {
            let feed = Feed::of(reader.session().version(), one.id())?;
            if feed.is_some_and(|feed| feed.is_long(most, horizon)) {
                long.push(one.id().clone());
            }
        }
        Ok(long)
    }

    fn feed_bounds(&self) -> (u64, highwater_core::Timestamp) {
        let settings = self.settings();
        (settings.restatements_kept, settings.restatements_age.before(self.now()))
    }

    async fn trim_feed(&self, id: &AggregateId) -> Result<bool, AggregationError> {
        let _running = self.lock_refreshes().await;
        let version = self.engine().version();
        let Some(feed) = Feed::of(&version, id)? else { return Ok(false) };
        let entries = feed.entries(&version, id).await?;
        let commit: Option<Commit> = trimmed(&version, id, &feed, &entries, self.feed_bounds())?;
        let Some(commit) = commit else { return Ok(false) };
        self.engine().commit(commit).await?;
        Ok(true)
    }
}

/// `system.restatements`: the feeds of all aggregates of a database.
pub(crate) struct RestatementsTable {
    reader: Reader,
}

impl std::fmt::Debug for RestatementsTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("restatements")
    }
}

impl RestatementsTable {
    pub(crate) fn new(reader: Reader) -> Self {
        RestatementsTable { reader }
    }

    async fn rows(&self) -> Result<Vec<Restatement>, AggregationError> {
        let version = self.reader.session().version();
        let mut rows = Vec::new();
        for aggregate in self.reader.catalog().iter() {
            if let Some(feed) = Feed::of(version, aggregate.id())? {
                rows.extend(feed.entries(version, aggregate.id()).await?);
            }
        }
        Ok(rows)
    }
}

fn columns() -> [(&'static str, DataType); 7] {
    [
        ("aggregate", DataType::Utf8),
        ("bucket", time_data_type()),
        ("bucket_end", time_data_type()),
        ("revision", DataType::UInt64),
        ("seq", DataType::UInt64),
        ("at", time_data_type()),
        ("reason", DataType::Utf8),
    ]
}

#[async_trait]
impl TableProvider for RestatementsTable {
    fn schema(&self) -> SchemaRef {
        schema_of(&columns())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let table = match self.rows().await {
            Ok(rows) => of_rows(&columns(), &rows),
            Err(error) => Err(error),
        };
        let table = table.map_err(|error| through_a_plan(error.kind(), &error))?;
        table.scan(state, projection, filters, limit).await
    }
}
