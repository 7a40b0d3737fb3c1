//! A server inside this process, as `highwater serve` runs it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use highwater_aggregation::Rules;
use highwater_core::Timestamp;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::{App, ServerClock};
use crate::serve::{self, Milestone};
use crate::settings::Settings;
use crate::threads;

/// A server that answers until it is closed, or interrupted by Ctrl-C.
pub(super) struct EmbeddedServer {
    runtime: Runtime,
    serving: JoinHandle<anyhow::Result<()>>,
    stop: CancellationToken,
    interrupted: CancellationToken,
    url: String,
    app: App,
}

impl EmbeddedServer {
    /// Starts a server with the settings of the environment and returns when it is ready.
    pub(super) fn start(data: &Path, http: SocketAddr) -> anyhow::Result<Self> {
        let mut settings = Settings {
            data: data.to_owned(),
            rules: None,
            http,
            ..Settings::load(None, std::env::vars())?
        };
        // The variable may stand there for a server; its bucket is no place for a demonstration.
        settings.storage.object_store = None;
        settings.validate()?;
        let runtime = threads::main_runtime()?;
        let interrupted = runtime.block_on(async { serve::stop_on_signal() })?;
        let stop = interrupted.child_token();
        let (sender, milestones) = mpsc::channel();
        // Nobody listens any more once the server is ready.
        let reached = move |milestone| drop(sender.send(milestone));
        let mut serving =
            runtime.spawn(serve::serve(settings, ServerClock::real(), stop.clone(), reached));
        let mut url = String::new();
        loop {
            match milestones.recv() {
                Ok(Milestone::Listening(address)) => url = address,
                Ok(Milestone::Ready(app)) => {
                    return Ok(EmbeddedServer { runtime, serving, stop, interrupted, url, app });
                }
                Err(_) => {
                    runtime.block_on(&mut serving)??;
                    return Err(anyhow!("interrupted"));
                }
            }
        }
    }

    /// The URL of the HTTP interface.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The time of the server's clock.
    pub(super) fn now(&self) -> Timestamp {
        self.app.engine.clock().now()
    }

    /// Makes these rule files, given as name and text, those in force.
    pub(super) fn apply_rules(&self, files: &[(&str, &str)]) -> anyhow::Result<()> {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let rules = Rules::load(files).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow!("the rules of the demo are wrong:\n{}", lines.join("\n"))
        })?;
        let applied = self.runtime.block_on(self.app.aggregates.apply_rules(&rules));
        applied.context("could not apply the rules").map(drop)
    }

    /// Waits, until Ctrl-C at most. Returns whether there was none.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let pause = async { tokio::time::sleep(time).await };
        self.runtime.block_on(self.interrupted.run_until_cancelled(pause)).is_some()
    }

    /// Waits for Ctrl-C.
    pub(super) fn wait_for_interrupt(&self) {
        self.runtime.block_on(self.interrupted.cancelled());
    }

    /// Whether there was a Ctrl-C.
    pub(super) fn was_interrupted(&self) -> bool {
        self.interrupted.is_cancelled()
    }

    /// Lets running requests end, flushes and closes.
    pub(super) fn close(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.runtime.block_on(self.serving)?
    }
}
