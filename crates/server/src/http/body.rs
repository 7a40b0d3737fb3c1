//! Bodies of requests: read whole, within limits, decompressed.

use std::io::Read;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, StatusCode};
use flate2::read::MultiGzDecoder;
use futures::TryStreamExt;
use serde::de::DeserializeOwned;

use crate::app::Server;
use crate::respond::Refusal;
use crate::settings::Limits;

/// Work on bodies longer than this moves off the threads that answer requests.
pub(super) const LARGE_BYTES: usize = 64 << 10;

/// How deep JSON may nest.
const MAX_JSON_DEPTH: usize = 64;

/// Reads a body to its end and decompresses it.
///
/// # Errors
/// 413 beyond the limits, 415 for an encoding other than gzip, 400 for a body that is cut off or
/// no gzip.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
) -> Result<Bytes, Refusal> {
    let gzip = is_gzip(headers)?;
    let sent = read_as_sent(headers, body, limits.body_bytes).await?;
    if !gzip {
        return Ok(sent);
    }
    let limit = limits.decompressed_bytes;
    if sent.len() <= LARGE_BYTES / 16 {
        return decompress(&sent, limit);
    }
    tokio::task::spawn_blocking(move || decompress(&sent, limit))
        .await
        .map_err(|e| Refusal::of(&e, highwater_core::ErrorKind::Internal))?
}

/// A body that is JSON of this shape. Refused is what [`read`] refuses, what has another shape, and
/// what nests too deep.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Server> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, server: &Server) -> Result<Self, Refusal> {
        from_json(&read_request(request, server).await?).map(JsonBody)
    }
}

/// The same; a body that is empty stands for all defaults.
pub(super) struct OptionalJsonBody<T>(pub(super) T);

impl<T: DeserializeOwned + Default> FromRequest<Server> for OptionalJsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, server: &Server) -> Result<Self, Refusal> {
        let bytes = read_request(request, server).await?;
        let is_empty = bytes.trim_ascii().is_empty();
        if is_empty { Ok(T::default()) } else { from_json(&bytes) }.map(OptionalJsonBody)
    }
}

async fn read_request(request: Request, server: &Server) -> Result<Bytes, Refusal> {
    let (parts, body) = request.into_parts();
    read(&parts.headers, body, &server.settings().limits).await
}

/// Reads bytes as JSON.
pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if depth(bytes) > MAX_JSON_DEPTH {
        let message = format!("the JSON in the body nests deeper than {MAX_JSON_DEPTH} levels");
        return Err(Refusal::invalid(message));
    }
    serde_json::from_slice(bytes)
        .map_err(|e| Refusal::invalid(format!("the JSON in the body: {e}")))
}

/// Deepest nesting of brackets outside of strings.
fn depth(json: &[u8]) -> usize {
    let (mut now, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                now += 1;
                deepest = deepest.max(now);
            }
            b'}' | b']' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Refusal> {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else { return Ok(false) };
    match encoding.to_str().map(str::to_ascii_lowercase).as_deref() {
        Ok("gzip" | "x-gzip") => Ok(true),
        Ok("identity" | "") => Ok(false),
        _ => {
            let message =
                format!("Content-Encoding {encoding:?} is not supported; send gzip or no encoding");
            Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid", message))
        }
    }
}

async fn read_as_sent(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let announced: usize = announced.unwrap_or(0);
    if announced > limit {
        return Err(too_large("sent", limit));
    }
    let mut chunks = body.into_data_stream();
    let cut_off = |e| Refusal::invalid(format!("the body ended too early, nothing is stored: {e}"));
    let first = chunks.try_next().await.map_err(cut_off)?.unwrap_or_default();
    let Some(second) = chunks.try_next().await.map_err(cut_off)? else {
        return if first.len() > limit { Err(too_large("sent", limit)) } else { Ok(first) };
    };
    let mut whole = Vec::with_capacity(announced.max(first.len() + second.len()));
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    while let Some(chunk) = chunks.try_next().await.map_err(cut_off)? {
        if whole.len() + chunk.len() > limit {
            return Err(too_large("sent", limit));
        }
        whole.extend_from_slice(&chunk);
    }
    if whole.len() > limit { Err(too_large("sent", limit)) } else { Ok(whole.into()) }
}

fn decompress(sent: &[u8], limit: usize) -> Result<Bytes, Refusal> {
    let mut plain = Vec::with_capacity(sent.len().saturating_mul(4).min(limit));
    MultiGzDecoder::new(sent)
        .take(limit as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|e| Refusal::invalid(format!("the body is not whole gzip: {e}")))?;
    if plain.len() > limit { Err(too_large("decompressed", limit)) } else { Ok(plain.into()) }
}

fn too_large(what: &str, limit: usize) -> Refusal {
    let message = format!("the body is longer than {limit} bytes {what}; split it");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    async fn status(encoding: Option<&'static str>, body: Vec<u8>) -> Result<usize, StatusCode> {
        let limits = Limits { body_bytes: 5_000, decompressed_bytes: 10_000, ..Limits::default() };
        let mut headers = HeaderMap::new();
        if let Some(encoding) = encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let read = read(&headers, Body::from(body), &limits).await;
        read.map(|bytes| bytes.len()).map_err(|refusal| refusal.status)
    }

    #[tokio::test]
    async fn bodies_stay_within_their_limits() {
        assert_eq!(status(None, vec![1; 5_000]).await, Ok(5_000));
        assert_eq!(status(None, vec![1; 5_001]).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(status(Some("gzip"), gzip(&[1; 10_000])).await, Ok(10_000));
        let bomb = gzip(&[1; 10_001]);
        assert_eq!(status(Some("gzip"), bomb).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(status(Some("br"), vec![]).await, Err(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        assert_eq!(status(Some("identity"), vec![1]).await, Ok(1));
    }

    #[tokio::test]
    async fn broken_gzip_is_refused() {
        let whole = gzip(b"cpu usage=1 1\n");
        let cut = whole[..whole.len() - 4].to_vec();
        assert_eq!(status(Some("gzip"), cut).await, Err(StatusCode::BAD_REQUEST));
        assert_eq!(
            status(Some("gzip"), b"cpu usage=1".to_vec()).await,
            Err(StatusCode::BAD_REQUEST)
        );
    }

    #[test]
    fn json_may_not_nest_without_end() {
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(from_json::<serde_json::Value>(nested(64).as_bytes()).is_ok());
        assert!(from_json::<serde_json::Value>(nested(65).as_bytes()).is_err());
        let text = format!("{:?}", "[{\"".repeat(100));
        assert!(from_json::<serde_json::Value>(text.as_bytes()).is_ok());
    }
}
