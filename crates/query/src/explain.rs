//! What extensions say about a plan, as further rows of `EXPLAIN`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};

use crate::error::QueryError;
use crate::session::QueryResult;

/// What such a row is named in the first column.
const PLAN_TYPE: &str = "rewrite";

/// Whether a plan is shown rather than its answer.
pub(crate) fn is_explained(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_))
}

/// The rows of an explained plan (`plan_type`, `plan`), then one for each remark.
///
/// # Errors
/// Those of making the rows.
pub(crate) fn with_remarks(
    explained: QueryResult,
    remarks: &[String],
) -> Result<QueryResult, QueryError> {
    let is_text = |data_type: &DataType| *data_type == DataType::Utf8;
    let schema = Arc::clone(&explained.schema);
    let fields = schema.fields();
    if remarks.is_empty() || fields.len() != 2 || !fields.iter().all(|f| is_text(f.data_type())) {
        return Ok(explained);
    }
    let types: StringArray = remarks.iter().map(|_| Some(PLAN_TYPE)).collect();
    let remarks: StringArray = remarks.iter().map(Some).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(types), Arc::new(remarks)];
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns)
        .map_err(|error| QueryError::Internal(error.to_string()))?;
    let batches = explained.batches.chain(stream::iter([Ok(rows)]));
    let batches = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), batches));
    Ok(QueryResult { schema, batches })
}
