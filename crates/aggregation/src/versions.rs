//! Versions of stored partials: a number for the next, and giving one up.

use std::sync::Arc;

use highwater_core::MeasurementId;
use highwater_query::view_query;
use highwater_storage::{Edit, MeasurementKind};

use crate::catalog::{Aggregate, shadow_key, shadow_progress_key};
use crate::definition::AggregateId;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::jobs::retired;

/// A version that no stored partials of this name have or had within reach.
pub(crate) fn unused_version(reader: &Reader, id: &AggregateId) -> u32 {
    let catalog = reader.catalog();
    let known = [catalog.get(&id.name), catalog.shadow(&id.name)].into_iter().flatten();
    let previous = catalog.previous().get(&id.name);
    let versions = known
        .map(|one| one.document.version)
        .chain(previous.map(|previous| previous.document.version));
    let mut version = versions.max().unwrap_or(0) + 1;
    let is_used = |version| {
        let stored = MeasurementId::new(Arc::clone(&id.database), format!("{}@{version}", id.name));
        let others = catalog.iter().chain(catalog.shadows()).map(|one| one.stored());
        let kept = catalog.previous().iter().map(|(name, previous)| {
            previous.document.stored(&AggregateId::new(Arc::clone(&id.database), Arc::clone(name)))
        });
        others.chain(kept).any(|other| other == stored)
            || reader.session().version().measurement(&stored).is_some()
    };
    while is_used(version) {
        version += 1;
    }
    version
}

/// A measurement of points hides an aggregate of its name.
pub(crate) fn refuse_taken_name(reader: &Reader, id: &AggregateId) -> Result<(), AggregationError> {
    let measurement = MeasurementId::new(Arc::clone(&id.database), Arc::clone(&id.name));
    let version = reader.session().version();
    let taken = version.measurement(&measurement);
    let kind = match taken.filter(|taken| taken.kind() == MeasurementKind::Points) {
        Some(_) => "measurement",
        None if view_query(version, &id.database, &id.name).is_some() => "view",
        None => return Ok(()),
    };
    Err(AggregationError::Conflict(format!(
        "there is a {kind} named {}; choose another name for the aggregate",
        id.name
    )))
}

/// The edits that end the building of a shadow; its job is kept as a cancelled one.
pub(crate) fn cancelled(reader: &Reader, shadow: &Aggregate) -> Vec<Edit> {
    let keys = [shadow_key(shadow.id()), shadow_progress_key(shadow.id())];
    let documents = keys.into_iter().map(|key| Edit::PutDocument { key, text: None });
    let documents = documents.chain(retired(reader, shadow));
    documents.chain(drop_stored(reader, &shadow.stored())).collect()
}

/// The edit that drops stored partials, if there are any.
pub(crate) fn drop_stored(reader: &Reader, id: &MeasurementId) -> Option<Edit> {
    reader.session().version().measurement(id)?;
    Some(Edit::DropMeasurement { id: id.clone() })
}
