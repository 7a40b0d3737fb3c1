//! Columns of a measurement by name, for writes that may have thousands of them.

use std::sync::Arc;

use highwater_core::schema::TIME_COLUMN;
use highwater_core::{Column, ColumnRole, FieldType, Schema};
use imbl::HashMap;

/// A measurement may have this many tags.
pub(crate) const MAX_TAGS: usize = 250;
/// A measurement may have this many fields.
pub(crate) const MAX_FIELDS: usize = 4000;

/// A schema and the place of every column in it. Cheap to clone, grows as the schema does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    schema: Arc<Schema>,
    places: HashMap<Arc<str>, Place>,
}

/// Where a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Position among the tags.
    Tag(usize),
    /// Position among the fields, and the type.
    Field(usize, FieldType),
}

impl Columns {
    /// The columns of `schema`.
    pub(crate) fn of(schema: &Schema) -> Self {
        let mut columns = Columns::default();
        for column in schema.columns() {
            columns.insert(&column.name, column.role);
        }
        columns
    }

    /// The columns as a schema.
    pub(crate) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Where the column of that name is.
    pub(crate) fn place(&self, name: &str) -> Option<Place> {
        self.places.get(name).copied()
    }

    /// Why `measurement` cannot have this column beside those it has; `None` if it can, or has it
    /// already.
    pub(crate) fn objection(
        &self,
        measurement: &str,
        name: &str,
        role: ColumnRole,
    ) -> Option<String> {
        if name == TIME_COLUMN {
            return Some(format!("{name} is the time of a point and no name for a tag or field"));
        }
        match (self.place(name), role) {
            (Some(Place::Tag(_)), ColumnRole::Tag) => None,
            (Some(Place::Field(_, stored)), ColumnRole::Field(written)) if stored == written => {
                None
            }
            (Some(Place::Field(_, stored)), ColumnRole::Field(written)) => {
                Some(format!("field {name} of {measurement} is {stored}, not {written}"))
            }
            (Some(Place::Tag(_)), ColumnRole::Field(_)) => {
                Some(format!("{name} of {measurement} is a tag, so it cannot be a field"))
            }
            (Some(Place::Field(..)), ColumnRole::Tag) => {
                Some(format!("{name} of {measurement} is a field, so it cannot be a tag"))
            }
            (None, ColumnRole::Tag) => (self.schema.tags().len() >= MAX_TAGS)
                .then(|| format!("{measurement} has {MAX_TAGS} tags, so {name} cannot be added")),
            (None, ColumnRole::Field(_)) => (self.schema.fields().len() >= MAX_FIELDS).then(|| {
                format!("{measurement} has {MAX_FIELDS} fields, so {name} cannot be added")
            }),
        }
    }

    /// Adds a column against which there is no objection; one that is there stays where it is.
    pub(crate) fn insert(&mut self, name: &str, role: ColumnRole) -> Place {
        if let Some(place) = self.place(name) {
            return place;
        }
        let column = Column { name: name.into(), role };
        let place = match role {
            ColumnRole::Tag => Place::Tag(self.schema.tags().len()),
            ColumnRole::Field(field_type) => Place::Field(self.schema.fields().len(), field_type),
        };
        self.places.insert(Arc::clone(&column.name), place);
        assert!(
            Arc::make_mut(&mut self.schema).add(column),
            "a new column has a name that is free"
        );
        place
    }
}
