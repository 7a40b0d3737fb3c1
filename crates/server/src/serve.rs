//! The life of a server: bind, open, run, stop.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Server, ServerClock};
use crate::respond::in_one_line;
use crate::rules::apply_folder;
use crate::settings::Settings;
use crate::threads::{Threads, main_runtime};
use crate::{http, telemetry};

/// Flags of `highwater serve`; each wins over its variable and its key in the file.
#[derive(Args, Clone, Debug)]
pub struct ServeFlags {
    /// The data folder; made when it is missing
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The folder of rule files
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// Address of the HTTP interface; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS")]
    http: Option<std::net::SocketAddr>,
    /// When an acknowledged write is on disk: every_write, periodic, os, none
    #[arg(long, value_name = "WHEN", value_parser = durability)]
    durability: Option<highwater_storage::Durability>,
    /// A settings file; `highwater config default` prints one
    #[arg(long, value_name = "FILE", env = "HIGHWATER_CONFIG")]
    config: Option<PathBuf>,
    /// Open an object store without the logs of the data folder that had it open last: points that
    /// were acknowledged there and not flushed are lost
    #[arg(long)]
    abandon_logs: bool,
    /// For tests: time stands at 1970 until POST /debug/clock moves it, background work runs in
    /// POST /debug/tick only
    #[arg(long)]
    manual_clock: bool,
    /// For tests: POST /debug/fault damages what is stored
    #[arg(long)]
    fault_injection: bool,
    /// Address of the PostgreSQL interface: `off` is all that is supported yet
    #[arg(long, value_name = "ADDRESS", value_parser = only_off)]
    postgres: Option<String>,
}

fn durability(text: &str) -> Result<highwater_storage::Durability, String> {
    serde_json::from_value(serde_json::Value::from(text))
        .map_err(|_| "choose every_write, periodic, os or none".to_owned())
}

fn only_off(text: &str) -> Result<String, String> {
    let message = "the PostgreSQL interface is not supported yet; leave the flag out or say `off`";
    if text == "off" { Ok(text.to_owned()) } else { Err(message.to_owned()) }
}

impl ServeFlags {
    fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = Settings::load(self.config.as_deref(), std::env::vars())?;
        if let Some(data) = &self.data {
            settings.data = data.clone();
        }
        if let Some(rules) = &self.rules {
            settings.rules = Some(rules.clone());
        }
        if let Some(http) = self.http {
            settings.http = http;
        }
        if let Some(durability) = self.durability {
            settings.storage.durability = durability;
        }
        settings.storage.abandon_logs = self.abandon_logs;
        settings.server.fault_injection = self.fault_injection;
        settings.validate()?;
        Ok(settings)
    }
}

/// Runs a server until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever kept it from starting, or from flushing at the end.
pub fn run(flags: &ServeFlags) -> anyhow::Result<()> {
    telemetry::log_to_stderr("info").map_err(anyhow::Error::msg)?;
    let settings = flags.settings()?;
    let clock = if flags.manual_clock { ServerClock::manual() } else { ServerClock::real() };
    main_runtime()?.block_on(async {
        let serving = serve(settings, clock, stop_on_signal()?, |milestone| match milestone {
            Milestone::Listening(address) => say(&format!("http listening on {address}")),
            Milestone::Ready(_) => say("ready"),
        });
        tokio::spawn(serving).await?
    })
}

/// How far a server has come.
pub(crate) enum Milestone {
    /// The port is bound: the URL of the HTTP interface.
    Listening(String),
    /// Every route answers.
    Ready(App),
}

/// Serves until `stop`, and calls `reached` on the way.
pub(crate) async fn serve(
    settings: Settings,
    clock: ServerClock,
    stop: CancellationToken,
    reached: impl Fn(Milestone),
) -> anyhow::Result<()> {
    let metrics = telemetry::record_metrics().context("could not install the metrics")?;
    let listener = TcpListener::bind(settings.http)
        .await
        .with_context(|| format!("could not listen on {}", settings.http))?;
    let address = format!("http://{}", listener.local_addr()?);
    reached(Milestone::Listening(address.clone()));

    let threads = Threads::start()?;
    let server = Server::new(settings, address, clock, metrics);
    let mut requests = tokio::spawn(http::serve(listener, server.clone(), stop.clone()));
    let opened = tokio::select! {
        opened = App::open(server.settings(), server.clock(), &threads) => Some(opened),
        () = stop.cancelled() => None,
    };
    let outcome = match opened {
        Some(Ok(app)) => {
            let background =
                app.start_background(server.settings(), server.clock(), &threads, &stop);
            server.ready(app.clone());
            reached(Milestone::Ready(app.clone()));
            stop_well(&server, app, background, &stop, &mut requests).await
        }
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    stop.cancel();
    outcome
}

/// Waits for `stop`, reading the rule files again when asked to; then lets everything end that
/// runs, and closes.
async fn stop_well(
    server: &Server,
    app: App,
    background: Vec<JoinHandle<()>>,
    stop: &CancellationToken,
    requests: &mut JoinHandle<std::io::Result<()>>,
) -> anyhow::Result<()> {
    reload_rules_until_stopped(server, &app, stop).await?;
    tracing::info!("stopping");
    server.stopping();
    let patience = Duration::from_secs(server.settings().limits.shutdown_secs);
    if tokio::time::timeout(patience, &mut *requests).await.is_err() {
        tracing::warn!("some requests did not end in time and are cut off");
        requests.abort();
    }
    if tokio::time::timeout(patience, futures::future::join_all(background)).await.is_err() {
        tracing::warn!("background work did not end in time and is cut off");
    }
    app.close().await
}

/// Reads the rule files again at every SIGHUP; wrong ones change nothing.
async fn reload_rules_until_stopped(
    server: &Server,
    app: &App,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut hangups = signal(SignalKind::hangup()).context("could not wait for SIGHUP")?;
    while stop.run_until_cancelled(hangups.recv()).await.is_some() {
        let Some(folder) = &server.settings().rules else {
            tracing::warn!("there is no rules folder to read again");
            continue;
        };
        if let Err(error) = apply_folder(&app.aggregates, folder).await {
            tracing::error!(error = in_one_line(&error), "the rule files are not applied");
        }
    }
    Ok(())
}

/// Cancelled by the first SIGTERM or SIGINT.
pub(crate) fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("could not wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("could not wait for SIGINT")?;
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(stop)
}

/// One line on stdout, for people and for programs that start a server.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        tracing::debug!(line, "nobody reads stdout");
    }
}
