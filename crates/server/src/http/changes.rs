//! `/api/v1/aggregates/{name}/changes`: the restatements of an aggregate, as lines of JSON.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::{Stream, StreamExt, stream};
use highwater_aggregation::Restatements;
use highwater_core::SequenceNumber;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::database::choose;
use super::params::UrlParams;
use crate::app::{App, Server};
use crate::respond::Refusal;

/// Entries are written in parts of so many, so that a slow client holds up little.
const ENTRIES_PER_PART: usize = 1_000;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/api/v1/aggregates/{name}/changes", get(changes))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangesParams {
    db: Option<String>,
    since: Option<SequenceNumber>,
    follow: Option<bool>,
}

/// Answers with one line for each restatement, then one that says where to go on: `{"next": 42}`.
/// Who follows gets more of both whenever there are any.
async fn changes(
    State(server): State<Server>,
    Path(name): Path<String>,
    UrlParams(params): UrlParams<ChangesParams>,
) -> Result<Response, Refusal> {
    let app = server.app()?;
    let database = choose(&app.engine.version(), params.db)?.to_string();
    let mut commits = app.engine.commits();
    commits.mark_unchanged();
    let first = app.aggregates.restatements(&database, &name, params.since).await?;
    let next = first.next;
    let body = match params.follow.unwrap_or(false) {
        false => Body::from_stream(parts(first).map(Ok::<_, std::convert::Infallible>)),
        true => {
            let stop = server.ending().clone();
            let following = Following { app, database, name, next: Some(next), commits, stop };
            let later = stream::unfold(following, Following::later).flatten();
            Body::from_stream(parts(first).chain(later).map(Ok::<_, std::convert::Infallible>))
        }
    };
    Ok(([(CONTENT_TYPE, "application/jsonl")], body).into_response())
}

/// Somebody who follows a feed.
struct Following {
    app: App,
    database: String,
    name: String,
    /// Where to go on; `None` if it does not.
    next: Option<SequenceNumber>,
    commits: watch::Receiver<SequenceNumber>,
    stop: CancellationToken,
}

impl Following {
    /// Waits for a commit that adds to the feed, or ends it.
    async fn later(mut self) -> Option<(stream::BoxStream<'static, Bytes>, Self)> {
        let since = self.next?;
        loop {
            self.stop.run_until_cancelled(self.commits.changed()).await?.ok()?;
            let read = self.app.aggregates.restatements(&self.database, &self.name, Some(since));
            match read.await {
                Ok(more) if more.entries.is_empty() => {}
                Ok(more) => {
                    self.next = Some(more.next);
                    return Some((parts(more).boxed(), self));
                }
                Err(error) => {
                    let refusal = Refusal::from(error);
                    let last = json!({ "error": refusal.message, "code": refusal.code });
                    self.next = None;
                    return Some((stream::iter([line(&last)]).boxed(), self));
                }
            }
        }
    }
}

/// The lines of entries, then of where to go on.
fn parts(read: Restatements) -> impl Stream<Item = Bytes> + Send + 'static {
    let next = line(&json!({ "next": read.next }));
    let mut entries = read.entries.into_iter();
    let parts = std::iter::from_fn(move || {
        let part: Vec<u8> =
            entries.by_ref().take(ENTRIES_PER_PART).flat_map(|e| line(&e)).collect();
        (!part.is_empty()).then(|| Bytes::from(part))
    });
    stream::iter(parts.chain([next]))
}

fn line(value: &impl Serialize) -> Bytes {
    // What is written here has no key that is not a text, so it cannot fail.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
