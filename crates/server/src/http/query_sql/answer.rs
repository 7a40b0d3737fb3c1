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
    body_of(first, received)
}

/// Bytes, or why there are no more; `None` at the end of a whole answer.
type Piece = Option<std::io::Result<Vec<u8>>>;

/// Breaks off where pieces stop coming before the end, as they do if the query's task dies.
fn body_of(first: Vec<u8>, received: mpsc::Receiver<Piece>) -> Body {
    let rest = stream::unfold(Some(received), |received| async move {
        let mut received = received?;
        match received.recv().await {
            Some(Some(piece)) => Some((piece, Some(received))),
            Some(None) => None,
            None => Some((Err(std::io::Error::other("the query ended early")), None)),
        }
    });
    Body::from_stream(stream::iter([Ok(first)]).chain(rest))
}

async fn send_rest(mut rows: Rows, pieces: &mpsc::Sender<Piece>) {
    loop {
        let mut bytes = Vec::new();
        let goes_on = match rows.write_next(&mut bytes).await {
            Ok(goes_on) => goes_on,
            Err(refusal) => {
                tracing::warn!(error = refusal.message, "an answer broke off");
                drop(pieces.send(Some(Err(std::io::Error::other(refusal.message)))).await);
                return;
            }
        };
        // Batches may become no bytes yet, and an empty piece would say nothing.
        if !bytes.is_empty() && pieces.send(Some(Ok(bytes))).await.is_err() {
            return;
        }
        if !goes_on {
            drop(pieces.send(None).await);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn an_answer_without_an_end_is_broken_off() {
        let answer = async |rest: Vec<Piece>| {
            let (pieces, received) = mpsc::channel(rest.len().max(1));
            for piece in rest {
                pieces.send(piece).await.unwrap();
            }
            drop(pieces);
            to_bytes(body_of(b"a".to_vec(), received), 10).await.ok()
        };
        let piece = || Some(Ok(b"b".to_vec()));
        assert_eq!(answer(vec![piece(), None]).await.as_deref(), Some(&b"ab"[..]));
        assert_eq!(answer(vec![piece()]).await, None);
        assert_eq!(answer(vec![]).await, None);
        let failed = Some(Err(std::io::Error::other("no memory")));
        assert_eq!(answer(vec![piece(), failed]).await, None);
    }
}
