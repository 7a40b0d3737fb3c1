//! Dropping measurements: all points go, and the aggregates that read them are in the way, go too or
//! stand still.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{ObjectName, ObjectType, Statement};
use highwater_core::MeasurementId;
use highwater_query::QueryError;
use highwater_storage::{Commit, Edit, MeasurementKind};
use tracing::info;

use crate::catalog::{Aggregate, DefinitionDocument};
use crate::definition::AggregateId;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::feed;
use crate::memory;
use crate::registry::{gone, readers_of};
use crate::runtime::Aggregates;
use crate::undo;
use crate::versions::{cancelled, drop_stored};

/// What becomes of the aggregates that read a measurement, directly or not, when it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// There must be none.
    Refuse,
    /// They are dropped with all they have stored.
    Drop,
    /// They are detached: what they have stored stays readable as it stands.
    Keep,
}

/// The measurements that a statement drops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DropMeasurements {
    names: Vec<String>,
    /// Those that do not exist are no error.
    if_exists: bool,
    readers: Readers,
}

impl DropMeasurements {
    /// Reads `DROP TABLE [IF EXISTS] name, .. [CASCADE]`; `None` if the statement is something else.
    pub(crate) fn of(statement: &Statement) -> Option<Self> {
        let Statement::Drop { object_type: ObjectType::Table, names, if_exists, cascade, .. } =
            statement
        else {
            return None;
        };
        let names = names.iter().map(name).collect();
        let readers = if *cascade { Readers::Drop } else { Readers::Refuse };
        Some(DropMeasurements { names, if_exists: *if_exists, readers })
    }
}

fn name(name: &ObjectName) -> String {
    let parts = name.0.iter().filter_map(|part| part.as_ident());
    parts.map(|part| part.value.as_str()).collect::<Vec<_>>().join(".")
}

impl Aggregates {
    /// Drops a measurement with all its points, in one commit. Nothing of that can be undone.
    ///
    /// # Errors
    /// If it does not exist, or aggregates that read it are in the way; nothing is dropped then.
    pub async fn drop_measurement(
        &self,
        database: &str,
        name: &str,
        readers: Readers,
    ) -> Result<(), AggregationError> {
        let drop = DropMeasurements { names: vec![name.to_owned()], if_exists: false, readers };
        self.drop_measurements(&database.into(), &drop).await
    }

    /// Drops measurements with all their points, in one commit.
    ///
    /// # Errors
    /// [`AggregationError::Conflict`] if an aggregate, detached or not, reads one of them and shall
    /// neither go nor stand still, and an error like a query's if one does not exist; nothing is
    /// dropped then.
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
            match check(&reader, &id, drop.readers) {
                Ok(()) => {
                    edits.extend(without_root(&reader, &id, drop.readers)?);
                    edits.push(Edit::DropMeasurement { id });
                }
                Err(AggregationError::Query(QueryError::NoSuchTable { .. })) if drop.if_exists => {}
                Err(error) => return Err(error),
            }
        }
        self.engine().commit(Commit::of(edits)).await?;
        info!(%database, names = ?drop.names, readers = ?drop.readers, "measurements dropped");
        Ok(())
    }
}

/// What becomes of the aggregates at whose root a measurement is that goes.
fn without_root(
    reader: &Reader,
    root: &MeasurementId,
    readers: Readers,
) -> Result<Vec<Edit>, AggregationError> {
    let catalog = reader.catalog();
    let is_rooted = |one: &&Arc<Aggregate>| one.definition.root == *root;
    let shadows = catalog.shadows().filter(is_rooted);
    let mut edits: Vec<Edit> = shadows.flat_map(|one| cancelled(reader, one)).collect();
    // Without its points nothing can be brought back.
    for (name, _) in catalog.previous().iter().filter(|(_, one)| one.root == root.measurement) {
        let id = AggregateId::new(Arc::clone(&root.database), Arc::clone(name));
        edits.extend(undo::forgotten(reader, &id));
    }
    if readers == Readers::Keep {
        memory::check_outlives(reader, catalog.iter().filter(is_rooted))?;
    }
    let columns = reader.session().version().measurement(root).map(|root| root.schema());
    for one in catalog.iter().filter(is_rooted) {
        match readers {
            Readers::Refuse => {}
            Readers::Drop => {
                edits.extend(gone(reader, one).chain(drop_stored(reader, &one.stored())));
                edits.extend(feed::dropped(reader, one.id())?);
            }
            Readers::Keep => {
                let mut document = DefinitionDocument::clone(&one.document);
                document.detached = true;
                document.root_columns = document.root_columns.or_else(|| columns.cloned());
                edits.push(document.put(one.id())?);
            }
        }
    }
    Ok(edits)
}

/// Whether the measurement is there and may go.
fn check(reader: &Reader, id: &MeasurementId, readers: Readers) -> Result<(), AggregationError> {
    let name = &*id.measurement;
    let found = reader.session().version().measurement(id);
    if found.is_none_or(|found| found.kind() != MeasurementKind::Points) {
        return Err(match reader.find(name) {
            Some(_) => AggregationError::Invalid(format!(
                "{name} is an aggregate; drop it with `highwater aggregate drop {name} --data`"
            )),
            None => QueryError::NoSuchTable { table: name.to_owned(), close: Vec::new() }.into(),
        });
    }
    let in_the_way = readers_of(reader.catalog(), name, |_| readers == Readers::Refuse);
    let Some(first) = in_the_way.first() else { return Ok(()) };
    let all = in_the_way.iter().map(|name| &**name).collect::<Vec<_>>().join(", ");
    Err(AggregationError::Conflict(format!(
        "{name} is read by {all}; drop that first, with `highwater aggregate drop {first} --data`, \
         or all of it with DROP TABLE {name} CASCADE"
    )))
}
