//! The bar of an import: bytes read, points stored, time left.

use std::fmt::Write;

use highwater_core::Stopwatch;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::demo::{grouped, is_bar_wanted};

const BAR: &str = "{spinner} {bar:32} {bytes} of {total_bytes}, {msg}, {left} left";

/// A bar that knows how many points there were.
pub(super) struct Progress {
    pub(super) bar: ProgressBar,
    pub(super) stopwatch: Stopwatch,
}

impl Progress {
    /// A bar on stderr over so many bytes, where there is a terminal.
    pub(super) fn over(bytes: u64) -> Self {
        let bar = if is_bar_wanted() { visible(bytes) } else { ProgressBar::hidden() };
        Progress { bar, stopwatch: Stopwatch::start() }
    }

    /// Shows how many points are stored since the start.
    pub(super) fn show(&self, points: u64) {
        let rate = points as f64 / self.stopwatch.elapsed().as_secs_f64().max(1e-9);
        self.bar.set_message(format!("{} points, {}/s", grouped(points), grouped(rate as u64)));
    }
}

fn visible(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(bytes).with_style(style.with_key("left", write_left));
    bar.with_message("0 points")
}

fn write_left(state: &ProgressState, text: &mut dyn Write) {
    // A terminal that cannot be written to shows no bar; that harms nothing.
    let _ = write!(text, "{} s", state.eta().as_secs());
}
