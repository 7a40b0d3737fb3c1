//! `DROP TABLE`: a measurement and all its points go, if no aggregate needs them.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{ObjectName, ObjectType, Statement};
use highwater_core::MeasurementId;
use highwater_query::QueryError;
use highwater_storage::{Commit, Edit, MeasurementKind};
use tracing::info;

use crate::error::AggregationError;
use crate::exact::Reader;
use crate::runtime::Aggregates;

/// The measurements that a statement drops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DropMeasurements {
    names: Vec<String>,
    /// Those that do not exist are no error.
    if_exists: bool,
}

impl DropMeasurements {
    /// Reads `DROP TABLE [IF EXISTS] name, ..`; `None` if the statement is something else.
    ///
    /// # Errors
    /// [`AggregationError::Invalid`] if it has a clause that is not supported.
    pub(crate) fn of(statement: &Statement) -> Result<Option<Self>, AggregationError> {
        let Statement::Drop { object_type: ObjectType::Table, names, if_exists, cascade, .. } =
            statement
        else {
            return Ok(None);
        };
        if *cascade {
            let reason = "DROP TABLE .. CASCADE is not supported; drop the aggregates first";
            return Err(AggregationError::Invalid(reason.to_owned()));
        }
        let names = names.iter().map(name).collect();
        Ok(Some(DropMeasurements { names, if_exists: *if_exists }))
    }
}

fn name(name: &ObjectName) -> String {
    let parts = name.0.iter().filter_map(|part| part.as_ident());
    parts.map(|part| part.value.as_str()).collect::<Vec<_>>().join(".")
}

impl Aggregates {
    /// Drops measurements with all their points, in one commit.
    ///
    /// # Errors
    /// [`AggregationError::Conflict`] if an aggregate, detached or not, reads one of them, and
    /// an error like a query's if one does not exist; nothing is dropped then.
    pub(crate) async fn drop_measurements(
        &self,
        database: &Arc<str>,
        drop: &DropMeasurements,
    ) -> Result<(), AggregationError> {
        let _running = self.lock_refreshes().await;
        let reader = self.reader(database)?;
        let mut edits = Vec::new();
        for name in &drop.names {
            let id = MeasurementId::new(Arc::clone(database), name.as_str());
            match check(&reader, &id) {
                Ok(()) => edits.push(Edit::DropMeasurement { id }),
                Err(AggregationError::Query(QueryError::NoSuchTable { .. })) if drop.if_exists => {}
                Err(error) => return Err(error),
            }
        }
        self.engine().commit(Commit::of(edits)).await?;
        info!(%database, names = ?drop.names, "measurements dropped");
        Ok(())
    }
}

/// Whether the measurement is there and may go.
fn check(reader: &Reader, id: &MeasurementId) -> Result<(), AggregationError> {
    let name = &*id.measurement;
    let readers: Vec<&str> =
        reader.catalog().dependants(name).map(|aggregate| &**aggregate.name()).collect();
    let found = reader.session().version().measurement(id);
    if found.is_none_or(|found| found.kind() != MeasurementKind::Points) {
        return Err(match reader.catalog().get(name) {
            Some(_) => AggregationError::Invalid(format!(
                "{name} is an aggregate; drop it with `highwater aggregate drop {name} --data`"
            )),
            None => QueryError::NoSuchTable { table: name.to_owned(), close: Vec::new() }.into(),
        });
    }
    if !readers.is_empty() {
        return Err(AggregationError::Conflict(format!(
            "{name} is read by {}; drop that first, with `highwater aggregate drop {} --data`",
            readers.join(", "),
            readers[0]
        )));
    }
    Ok(())
}
