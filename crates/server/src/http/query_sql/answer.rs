//! Rows on their way out.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use datafusion::execution::SendableRecordBatchStream;
use futures::{StreamExt, stream};
use highwater_query::{QueryError, QueryResult};

use crate::formats::{Format, RowWriter};
use crate::queries::RunningQuery;
use crate::respond::{Refusal, in_one_line};

/// Rows are held back until there is this much of them, so that an error among the first rows
/// can still be an error status.
const HELD_BACK_BYTES: usize = 1 << 20;

/// The rest of an answer.
struct Rows {
    batches: SendableRecordBatchStream,
    writer: Box<dyn RowWriter>,
    running: RunningQuery,
}

impl Rows {
    /// Appends the text of the next batch; `false` once there is none.
    async fn write_next(&mut self, text: &mut String) -> Result<bool, Refusal> {
        let Some(batch) = self.running.in_time(self.batches.next()).await? else {
            self.writer.finish(text);
            return Ok(false);
        };
        let batch = batch.map_err(QueryError::from)?;
        self.writer.write(&batch, text).map_err(|error| {
            Refusal::invalid(format!("the rows cannot be written as text: {}", in_one_line(&error)))
        })?;
        Ok(true)
    }
}

/// The answer to a query: whole if it is short, in pieces if it is long.
pub(super) async fn respond(
    result: QueryResult,
    format: Format,
    running: RunningQuery,
) -> Result<Response, Refusal> {
    let writer = format.writer(result.schema);
    let mut rows = Rows { batches: result.batches, writer, running };
    let content_type = [(CONTENT_TYPE, format.content_type())];
    let mut text = String::new();
    while rows.write_next(&mut text).await? {
        if text.len() > HELD_BACK_BYTES {
            return Ok((content_type, in_pieces(text, rows)).into_response());
        }
    }
    Ok((content_type, text).into_response())
}

/// An error among later rows breaks the answer off: the client sees that it is not whole.
fn in_pieces(first: String, rows: Rows) -> Body {
    let rest = stream::try_unfold(Some(rows), |rows| async move {
        let Some(mut rows) = rows else { return Ok(None) };
        let mut text = String::new();
        match rows.write_next(&mut text).await {
            Ok(true) => Ok(Some((text, Some(rows)))),
            Ok(false) => Ok(Some((text, None))),
            Err(refusal) => {
                tracing::warn!(error = refusal.message, "an answer broke off");
                Err(std::io::Error::other(refusal.message))
            }
        }
    });
    Body::from_stream(stream::iter([Ok(first)]).chain(rest))
}
