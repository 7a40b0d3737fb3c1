//! Talking to a server over HTTP.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::Value;
use ureq::http::{Request, Response, StatusCode};
use ureq::{Agent, Body};

/// Which server to talk to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Host {
    /// The server to talk to
    #[arg(
        long,
        visible_alias = "server",
        value_name = "URL",
        env = "HIGHWATER_HOST",
        default_value = "http://127.0.0.1:8086",
        global = true
    )]
    host: String,
}

/// A request body and what it is.
pub(crate) enum Payload {
    None,
    Json(Value),
    Text(Vec<u8>),
    Gzip(Vec<u8>),
}

/// A client of one server.
pub(crate) struct Client {
    agent: Agent,
    host: String,
}

impl Client {
    pub(crate) fn new(host: &Host) -> Self {
        Client::at(&host.host)
    }

    /// A client of the server at this URL.
    pub(crate) fn at(host: &str) -> Self {
        // A status is an answer here, not an error of the transport.
        let config = Agent::config_builder().http_status_as_error(false).build();
        Client { agent: config.into(), host: host.trim_end_matches('/').to_owned() }
    }

    /// Sends a request; what the server refuses is an error with the server's own words.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        payload: Payload,
    ) -> anyhow::Result<Response<Body>> {
        let (content, encoding, bytes) = match payload {
            Payload::None => (None, None, Vec::new()),
            Payload::Json(value) => (Some("application/json"), None, value.to_string().into()),
            Payload::Text(text) => (Some("text/plain; charset=utf-8"), None, text),
            Payload::Gzip(bytes) => (Some("text/plain; charset=utf-8"), Some("gzip"), bytes),
        };
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}{}", self.host, pairs(query)));
        if let Some(content) = content {
            request = request.header("content-type", content);
        }
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        let request = request.body(bytes).context("the --host makes no URL")?;
        let response = self
            .agent
            .run(request)
            .with_context(|| format!("could not reach {}; is the server running?", self.host))?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response)) }
    }

    /// Sends a request and reads the answer as JSON.
    pub(crate) fn json(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        payload: Payload,
    ) -> anyhow::Result<Value> {
        let mut response = self.send(method, path, query, payload)?;
        let text = response.body_mut().read_to_string().context("could not read the answer")?;
        serde_json::from_str(&text).with_context(|| format!("the answer is no JSON: {text}"))
    }
}

/// What a server says instead of a success.
#[derive(Debug, thiserror::Error)]
#[error("{message}{}", lines.iter().map(|(at, why)| format!("\n  line {at}: {why}")).collect::<String>())]
pub(crate) struct Refused {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The server's own words.
    pub(crate) message: String,
    /// Of a write: lines of the body, counted from 1, and what is wrong with them.
    pub(crate) lines: Vec<(u64, String)>,
    /// When to come back, where the server says so.
    pub(crate) retry_after: Option<Duration>,
}

/// The error in an answer: its message, then one line per refused line of a write.
fn refused(response: Response<Body>) -> anyhow::Error {
    let status = response.status();
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    let retry_after = retry_after.map(Duration::from_secs);
    let mut text = String::new();
    if let Err(e) = response.into_body().into_reader().read_to_string(&mut text) {
        return anyhow!("the server answered {status}, and then: {e}");
    }
    let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let lines = answer.get("data").and_then(Value::as_array).into_iter().flatten();
    let lines =
        lines.map(|line| (line["line_number"].as_u64().unwrap_or(0), words(line).to_owned()));
    let message = match answer.get("error").and_then(Value::as_str) {
        Some(error) => error.to_owned(),
        None => format!("the server answered {}: {text}", reason(status)),
    };
    let (status, lines) = (status.as_u16(), lines.collect());
    Refused { status, message, lines, retry_after }.into()
}

fn words(line: &Value) -> &str {
    line["error_message"].as_str().unwrap_or_default()
}

fn reason(status: StatusCode) -> String {
    format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default())
}

fn pairs(query: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (at, (key, value)) in query.iter().enumerate() {
        text.push(if at == 0 { '?' } else { '&' });
        text.push_str(key);
        text.push('=');
        text.push_str(&escaped(value));
    }
    text
}

/// A part of a path or query, with everything escaped that could mean something there.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// A name as SQL quotes it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
