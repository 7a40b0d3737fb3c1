//! Backups: the files of one moment as one stream.
//!
//! A line of JSON says what is to come, then each file is a line of JSON with `path` and `bytes`
//! and that many bytes, and the last line is `{"complete":true}`.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use futures::{StreamExt, stream};
use highwater_storage::{BackupFile, SegmentMeta, StorageError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::run_to_end;
use crate::app::{App, Server};
use crate::respond::{Refusal, in_one_line};

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/api/v1/backup", post(backup))
}

/// What the receiver has already.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    /// Paths of segments.
    have: HashSet<String>,
}

/// The first line.
#[derive(Debug, Serialize)]
struct Head<'a> {
    /// Of what is to come, file contents only.
    bytes: u64,
    /// Tells the database from others.
    identity: &'a str,
    segments: Vec<HeadSegment<'a>>,
}

/// A segment of the backup, with what tells whether a file of its name is the same.
#[derive(Debug, Serialize)]
struct HeadSegment<'a> {
    path: &'a str,
    bytes: u64,
    footer_at: u64,
    footer_crc: u32,
}

impl<'a> HeadSegment<'a> {
    fn of(segment: &'a Arc<SegmentMeta>) -> Self {
        let SegmentMeta { bytes, footer_at, footer_crc, .. } = **segment;
        HeadSegment { path: &segment.path, bytes, footer_at, footer_crc }
    }
}

async fn backup(app: App, wanted: Option<Json<Wanted>>) -> Result<Response, Refusal> {
    let Wanted { have } = wanted.map(|Json(wanted)| wanted).unwrap_or_default();
    let backup = run_to_end(async move { Ok(app.engine.backup(&have).await?) }).await?;
    let segments = backup.segments().iter().map(HeadSegment::of).collect();
    let head = line(&json!(Head { bytes: backup.bytes(), identity: backup.identity(), segments }));
    let files = backup.into_files().flat_map(|file| stream::iter(parts(file)));
    let end = line(&json!({"complete": true}));
    let body = stream::iter([Ok(head)]).chain(files).chain(stream::iter([Ok(end)]));
    let content_type = [(CONTENT_TYPE, "application/octet-stream")];
    Ok((content_type, Body::from_stream(body)).into_response())
}

/// An error breaks the stream off: the receiver sees that it is not complete.
fn parts(file: Result<BackupFile, StorageError>) -> Vec<io::Result<Bytes>> {
    match file {
        Ok(BackupFile { path, bytes }) => {
            vec![Ok(line(&json!({"path": path, "bytes": bytes.len()}))), Ok(bytes)]
        }
        Err(error) => {
            let error = in_one_line(&error);
            tracing::warn!(error, "a backup broke off");
            vec![Err(io::Error::other(error))]
        }
    }
}

fn line(value: &serde_json::Value) -> Bytes {
    format!("{value}\n").into()
}
