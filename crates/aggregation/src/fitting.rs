//! Whether definitions fit what is known of their sources.

use std::collections::BTreeMap;

use highwater_core::{MeasurementId, Schema};

use crate::definition::{Definition, Resolved, SourceColumns};
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::filter;
use crate::rules::MeasurementRule;

/// Checks that definitions, sources first, fit what is known of their sources, so that none is
/// stored that could not be read. One that is there already and need not fit stays as it is.
pub(crate) fn check_sources<'a>(
    reader: &Reader,
    definitions: &'a [Definition],
    declared: &[MeasurementRule],
    must_fit: impl Fn(&Definition) -> bool,
) -> Result<BTreeMap<&'a str, Resolved>, AggregationError> {
    let mut known: BTreeMap<&str, Resolved> = BTreeMap::new();
    for definition in definitions {
        match resolved(reader, definition, declared, &known) {
            Ok(resolved) => drop(known.insert(&definition.id.name, resolved)),
            Err(error) if must_fit(definition) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(known)
}

/// The groups and outputs of a definition; `known` are those of definitions that it may read.
pub(crate) fn resolved(
    reader: &Reader,
    definition: &Definition,
    declared: &[MeasurementRule],
    known: &BTreeMap<&str, Resolved>,
) -> Result<Resolved, AggregationError> {
    let Some(parent) = definition.parent() else {
        let schema = schema_of(reader, &definition.root, declared);
        if let Some(condition) = &definition.filter {
            filter::check_type(&reader.session().state(), condition, &schema)
                .map_err(|error| error.of_aggregate(&definition.id.name))?;
        }
        return Ok(definition.resolve(SourceColumns::Points(&schema))?);
    };
    let stored = match (known.get(&*parent.name), reader.catalog().get(&parent.name)) {
        (Some(parent), _) => return Ok(definition.resolve(SourceColumns::Partials(parent))?),
        (None, Some(parent)) => reader.resolve(parent)?,
        (None, None) => {
            return Err(AggregationError::NoSuchAggregate {
                database: parent.database.to_string(),
                name: parent.name.to_string(),
            });
        }
    };
    Ok(definition.resolve(SourceColumns::Partials(&stored))?)
}

/// The columns of a measurement, and those that are about to be declared.
pub(crate) fn schema_of(
    reader: &Reader,
    id: &MeasurementId,
    declared: &[MeasurementRule],
) -> Schema {
    let stored = reader.session().version().measurement(id);
    let declared = declared.iter().filter(|rule| rule.name == id.measurement);
    let mut schema = stored.map_or_else(Schema::default, |stored| Schema::clone(stored.schema()));
    for column in declared.flat_map(|rule| &rule.columns) {
        // A column that is there stays what it is.
        schema.add(column.clone());
    }
    schema
}
