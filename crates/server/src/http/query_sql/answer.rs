//! Rows on their way out.

use arrow::error::ArrowError;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use datafusion::execution::SendableRecordBatchStream;
use futures::{StreamExt, TryStreamExt, stream};
use highwater_core::ErrorKind;
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
    /// None while it writes on another thread.
    writer: Option<Box<dyn RowWriter>>,
    format: Format,
    running: RunningQuery,
}

impl Rows {
    /// Appends the bytes of the next batch; `false` once there is none.
    async fn write_next(&mut self, out: &mut Vec<u8>) -> Result<bool, Refusal> {
        let batch = self.running.in_time(self.batches.next()).await?;
        let batch = batch.transpose().map_err(QueryError::from)?;
        let goes_on = batch.is_some();
        let writer = self.writer.take().ok_or_else(|| {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the writer is gone")
        })?;
        let write = move || {
            let (mut writer, mut bytes) = (writer, Vec::new());
            let written = match batch {
                Some(batch) => writer.write(&batch, &mut bytes),
                None => writer.finish(&mut bytes),
            };
            (writer, written.map(|()| bytes))
        };
        // Encoding and compressing is too much for the threads that answer requests.
        let (writer, written) = match self.format {
            Format::Parquet => tokio::task::spawn_blocking(write)
                .await
                .map_err(|e| Refusal::of(&e, ErrorKind::Internal))?,
            _ => write(),
        };
        self.writer = Some(writer);
        out.append(&mut written.map_err(|error| unwritable(&error))?);
        Ok(goes_on)
    }
}

fn unwritable(error: &ArrowError) -> Refusal {
    Refusal::invalid(format!("the rows cannot be written in this format: {}", in_one_line(error)))
}

/// The answer to a query: whole if it is short, in pieces if it is long.
pub(super) async fn respond(
    result: QueryResult,
    format: Format,
    running: RunningQuery,
) -> Result<Response, Refusal> {
    let writer = format.writer(result.schema).map_err(|error| unwritable(&error))?;
    let mut rows = Rows { batches: result.batches, writer: Some(writer), format, running };
    let content_type = [(CONTENT_TYPE, format.content_type())];
    let mut bytes = Vec::new();
    while rows.write_next(&mut bytes).await? {
        if bytes.len() > HELD_BACK_BYTES {
            return Ok((content_type, in_pieces(bytes, rows)).into_response());
        }
    }
    Ok((content_type, bytes).into_response())
}

/// An error among later rows breaks the answer off: the client sees that it is not whole.
fn in_pieces(first: Vec<u8>, rows: Rows) -> Body {
    let rest = stream::try_unfold(Some(rows), |rows| async move {
        let Some(mut rows) = rows else { return Ok(None) };
        let mut bytes = Vec::new();
        match rows.write_next(&mut bytes).await {
            Ok(true) => Ok(Some((bytes, Some(rows)))),
            Ok(false) => Ok(Some((bytes, None))),
            Err(refusal) => {
                tracing::warn!(error = refusal.message, "an answer broke off");
                Err(std::io::Error::other(refusal.message))
            }
        }
    });
    // Batches may become no bytes yet, and an empty piece would say nothing.
    let rest = rest.try_filter(|bytes| std::future::ready(!bytes.is_empty()));
    Body::from_stream(stream::iter([Ok(first)]).chain(rest))
}
