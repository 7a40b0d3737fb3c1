//! Routes over HTTP, one resource per file.

mod aggregates;
mod backup;
mod body;
mod changes;
mod connection;
mod database;
mod debug;
mod downsampling;
mod health;
mod influxql;
mod jobs;
mod maintenance;
mod measurements;
mod params;
mod query_sql;
mod retention;
mod rules;
mod segments;
mod write;

use std::future::ready;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use futures::{FutureExt, StreamExt, stream};
use highwater_core::{ErrorKind, Stopwatch};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use self::write::write_lines;

use self::connection::{ActiveRequest, Activity, Patience, PatientListener};
use crate::app::Server;
use crate::respond::Refusal;

/// Answers requests until `stop`, then lets running ones end.
///
/// # Errors
/// Those of the listener.
pub async fn serve(
    listener: TcpListener,
    server: Server,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let limits = &server.settings().limits;
    let patience = Patience {
        head: Duration::from_secs(limits.head_secs),
        idle: Duration::from_secs(limits.idle_secs),
    };
    let service = router(server).into_make_service_with_connect_info::<Activity>();
    axum::serve(PatientListener { listener, patience }, service)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

/// Every route of the server.
pub fn router(server: Server) -> Router {
    let test_controls = match server.clock().manual {
        Some(_) => debug::routes(),
        None => Router::new(),
    };
    let faults = match server.settings().server.fault_injection {
        true => debug::fault_routes(),
        false => Router::new(),
    };
    Router::new()
        .merge(aggregates::routes())
        .merge(backup::routes())
        .merge(changes::routes())
        .merge(downsampling::routes())
        .merge(health::routes())
        .merge(influxql::routes())
        .merge(jobs::routes())
        .merge(maintenance::routes())
        .merge(measurements::routes())
        .merge(query_sql::routes())
        .merge(retention::routes())
        .merge(rules::routes())
        .merge(segments::routes())
        .merge(write::routes())
        .merge(test_controls)
        .merge(faults)
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(measure))
        .with_state(server)
}

/// Does work that must not stop halfway when the client loses its patience.
async fn run_to_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.map_err(|e| Refusal::of(&e, ErrorKind::Internal))?
}

async fn no_route(method: Method, uri: Uri) -> Refusal {
    Refusal::not_found(format!("there is no route {method} {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri, State(_): State<Server>) -> Refusal {
    let message = format!("the route {} does not take {method}", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// Counts requests and times them; a defect in a handler becomes a 500 instead of a cut line.
async fn measure(request: Request, next: Next) -> Response {
    let stopwatch = Stopwatch::start();
    let running = request.extensions().get::<ConnectInfo<Activity>>().map(|info| info.0.begin());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "none".to_owned());
    let (request, unread) = watch_body(request);
    let mut response =
        AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(route, "a handler panicked");
            let message = "a defect of Highwater stopped this request; the log says more";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message).into_response()
        });
    if unread.load(Ordering::Acquire) {
        // The rest of the body is still to come, so no other request can follow it.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let status = response.status().as_u16().to_string();
    let labels = [("route", route.clone()), ("status", status)];
    metrics::counter!("highwater_server_requests_total", &labels).increment(1);
    metrics::histogram!("highwater_server_request_seconds", "route" => route)
        .record(stopwatch.elapsed().as_secs_f64());
    response.map(|body| run_until_sent(body, running))
}

/// The same request, and whether something of its body is unread.
fn watch_body(request: Request) -> (Request, Arc<AtomicBool>) {
    let has_body = !HttpBody::is_end_stream(request.body());
    let unread = Arc::new(AtomicBool::new(has_body));
    if !has_body {
        return (request, unread);
    }
    let read = Arc::clone(&unread);
    let end = stream::once(async move { read.store(false, Ordering::Release) });
    let end = end.filter_map(|()| ready(None));
    (request.map(|body| Body::from_stream(body.into_data_stream().chain(end))), unread)
}

/// A body of unknown length is still being computed: its request runs until it ends.
fn run_until_sent(body: Body, running: Option<ActiveRequest>) -> Body {
    if HttpBody::size_hint(&body).exact().is_some() {
        return body;
    }
    Body::from_stream(body.into_data_stream().inspect(move |_| {
        let _still = &running;
    }))
}
