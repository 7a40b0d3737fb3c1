//! SQL functions of Highwater, one file each.

pub(crate) mod bounded;
pub(crate) mod checked;
mod date;
pub(crate) mod gapfill;
mod percentile;
pub mod time_bucket;

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

/// The scalar functions that every session has beside DataFusion's own.
pub(crate) fn scalars() -> Vec<Arc<ScalarUDF>> {
    let mut all: Vec<ScalarUDF> =
        vec![time_bucket::TimeBucket::default().into(), date::DateOf::default().into()];
    all.extend(gapfill::markers());
    let named_struct = datafusion::functions::core::named_struct();
    all.push(named_struct.as_ref().clone().with_aliases(["jsonb_build_object"]));
    all.into_iter().map(Arc::new).collect()
}

/// The aggregate functions that every session has beside DataFusion's own.
pub(crate) fn aggregates() -> Vec<Arc<AggregateUDF>> {
    percentile::functions().into_iter().map(Arc::new).collect()
}
