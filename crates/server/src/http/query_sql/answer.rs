//! Rows on their way out.

use arrow::error::ArrowError;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use datafusion::execution::SendableRecordBatchStream;
use futures::{StreamExt, stream};
use highwater_query::{QueryError, QueryResult};
use tokio::sync::mpsc;

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
    /// Appends the bytes of the next batch; `false` once there is none.
    async fn write_next(&mut self, out: &mut Vec<u8>) -> Result<bool, Refusal> {
        let batch = self.running.in_time(self.batches.next()).await?;
        let batch = batch.transpose().map_err(QueryError::from)?;
        let written = match &batch {
            Some(batch) => self.writer.write(batch, out),
            None => self.writer.finish(out),
        };
        written.map_err(|error| unwritable(&error))?;
        Ok(batch.is_some())
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
    let mut rows = Rows { batches: result.batches, writer, running };
    let content_type = [(CONTENT_TYPE, format.content_type())];
    let mut bytes = Vec::new();
    while rows.write_next(&mut bytes).await? {
        if bytes.len() > HELD_BACK_BYTES {
            return Ok((content_type, in_pieces(bytes, rows)).into_response());
        }
    }
    Ok((content_type, bytes).into_response())
}

/// The rest follows piece by piece, as fast as the client takes it, and ends when it goes away. An
/// error among later rows breaks the answer off: the client sees that it is not whole.
fn in_pieces(first: Vec<u8>, rows: Rows) -> Body {
    let (pieces, received) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            () = pieces.closed() => {}
            () = send_rest(rows, &pieces) => {}
        }
    });
    let rest = stream::unfold(received, |mut received| async move {
        received.recv().await.map(|piece| (piece, received))
    });
    Body::from_stream(stream::iter([Ok(first)]).chain(rest))
}

type Piece = std::io::Result<Vec<u8>>;

async fn send_rest(mut rows: Rows, pieces: &mpsc::Sender<Piece>) {
    loop {
        let mut bytes = Vec::new();
        let (piece, goes_on) = match rows.write_next(&mut bytes).await {
            // Batches may become no bytes yet, and an empty piece would say nothing.
            Ok(true) if bytes.is_empty() => continue,
            Ok(false) if bytes.is_empty() => return,
            Ok(goes_on) => (Ok(bytes), goes_on),
            Err(refusal) => {
                tracing::warn!(error = refusal.message, "an answer broke off");
                (Err(std::io::Error::other(refusal.message)), false)
            }
        };
        if pieces.send(piece).await.is_err() || !goes_on {
            return;
        }
    }
}
