//! What a Parquet file says about the columns of a measurement, beside their types.

use arrow::datatypes::{Field, Schema};
use highwater_core::schema::tag_data_type;

/// Key and value in the metadata of an Arrow field that is a tag.
const ROLE: (&str, &str) = ("highwater.role", "tag");

/// The same schema, with a mark on each column that has the type of a tag.
pub(super) fn with_marked_tags(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| {
        let mut field = Field::clone(field);
        if *field.data_type() == tag_data_type() {
            let mut metadata = field.metadata().clone();
            metadata.insert(ROLE.0.to_owned(), ROLE.1.to_owned());
            field.set_metadata(metadata);
        }
        field
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// Whether a column of a file that Highwater wrote is a tag.
pub fn is_marked_tag(field: &Field) -> bool {
    field.metadata().get(ROLE.0).is_some_and(|role| role == ROLE.1)
}
