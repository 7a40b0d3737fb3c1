//! Columns of a measurement, and the same as an Arrow schema.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::value::FieldType;

/// Name of the time column of every measurement.
pub const TIME_COLUMN: &str = "time";

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnRole {
    /// Identifies: a nullable string, NULL where the point lacks the tag.
    Tag,
    /// Is measured.
    Field(FieldType),
}

/// A named column other than `time`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Column {
    /// Name, unique in the measurement.
    pub name: Arc<str>,
    /// Tag or field.
    pub role: ColumnRole,
}

impl Column {
    /// A tag column.
    pub fn tag(name: impl Into<Arc<str>>) -> Self {
        Column { name: name.into(), role: ColumnRole::Tag }
    }

    /// A field column.
    pub fn field(name: impl Into<Arc<str>>, field_type: FieldType) -> Self {
        Column { name: name.into(), role: ColumnRole::Field(field_type) }
    }

    /// Whether this is a tag.
    pub fn is_tag(&self) -> bool {
        self.role == ColumnRole::Tag
    }

    /// The column's Arrow type: `Dictionary(Int32, Utf8)` for a tag.
    pub fn data_type(&self) -> DataType {
        match self.role {
            ColumnRole::Tag => tag_data_type(),
            ColumnRole::Field(field_type) => field_type.arrow(),
        }
    }
}

/// Arrow type of every tag column.
pub fn tag_data_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Arrow type of every time column: nanoseconds without zone, meaning UTC.
pub fn time_data_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, None)
}

/// Columns of a measurement: tags in order of appearance, then fields in order of appearance.
///
/// Columns are only ever added, each at the end of its kind, so rows sorted by `(tags, time)`
/// under an older schema are still sorted under a newer one (a missing tag is NULL and NULL comes
/// first).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    tags: Vec<Arc<str>>,
    fields: Vec<(Arc<str>, FieldType)>,
}

impl Schema {
    /// A schema of these columns, in this order.
    ///
    /// # Panics
    /// If two columns share a name or one is called `time`.
    pub fn of(columns: impl IntoIterator<Item = Column>) -> Self {
        let mut schema = Schema::default();
        for column in columns {
            assert!(
                schema.add(column.clone()),
                "column {} is there twice or reserved",
                column.name
            );
        }
        schema
    }

    /// Adds a column at the end of its kind; `false` and no change if the name is taken.
    pub fn add(&mut self, column: Column) -> bool {
        let is_new = &*column.name != TIME_COLUMN && self.column(&column.name).is_none();
        if is_new {
            match column.role {
                ColumnRole::Tag => self.tags.push(column.name),
                ColumnRole::Field(field_type) => self.fields.push((column.name, field_type)),
            }
        }
        is_new
    }

    /// Names of the tags, in the order rows are sorted by.
    pub fn tags(&self) -> &[Arc<str>] {
        &self.tags
    }

    /// Names and types of the fields.
    pub fn fields(&self) -> &[(Arc<str>, FieldType)] {
        &self.fields
    }

    /// All columns but `time`: tags, then fields.
    pub fn columns(&self) -> impl Iterator<Item = Column> + '_ {
        let tags = self.tags.iter().map(|name| Column::tag(Arc::clone(name)));
        tags.chain(self.fields.iter().map(|(name, t)| Column::field(Arc::clone(name), *t)))
    }

    /// The column of that name, if there is one.
    pub fn column(&self, name: &str) -> Option<Column> {
        let tag =
            self.tags.iter().find(|tag| &***tag == name).map(|tag| Column::tag(Arc::clone(tag)));
        let is_same = |field: &&(Arc<str>, FieldType)| &*field.0 == name;
        let field = || self.fields.iter().find(is_same);
        tag.or_else(|| field().map(|(own, t)| Column::field(Arc::clone(own), *t)))
    }

    /// Position of a tag among the tags.
    pub fn tag_position(&self, name: &str) -> Option<usize> {
        self.tags.iter().position(|tag| &**tag == name)
    }

    /// Type of a field.
    pub fn field_type(&self, name: &str) -> Option<FieldType> {
        self.fields.iter().find(|(field, _)| &**field == name).map(|(_, t)| *t)
    }

    /// As Arrow: `time` (not null), one dictionary column per tag, one column per field.
    pub fn arrow(&self) -> SchemaRef {
        let time = Field::new(TIME_COLUMN, time_data_type(), false);
        let columns = self.columns().map(|c| Field::new(&*c.name, c.data_type(), true));
        Arc::new(ArrowSchema::new(std::iter::once(time).chain(columns).collect::<Vec<_>>()))
    }
}
