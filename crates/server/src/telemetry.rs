//! Logs to stderr, numbers to `/metrics`.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Upper ends of the duration buckets, in seconds.
const DURATION_BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Sends logs to stderr. `HIGHWATER_LOG` chooses what (`debug`, `highwater_storage=trace,info`);
/// `default` stands where it is not set.
///
/// # Errors
/// What is wrong with the value of `HIGHWATER_LOG`.
pub fn log_to_stderr(default: &str) -> Result<(), String> {
    let wanted = std::env::var("HIGHWATER_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&wanted)
        .map_err(|e| format!("the environment variable HIGHWATER_LOG cannot be {wanted:?}: {e}"))?;
    // A second start in one process keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
    Ok(())
}

/// Installs the recorder that `/metrics` prints.
///
/// # Errors
/// [`BuildError`] if there is one already.
pub fn record_metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &DURATION_BUCKETS)?
        .install_recorder()
}
