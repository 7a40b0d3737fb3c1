//! Bars for what takes a while.

use std::fmt::Write;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::grouped;
use super::report::no_colour;

const BAR: &str = "   {spinner} {bar:32} {human_pos} of {human_len}";

/// A bar on stderr that goes away when it is finished; none if stderr is no terminal or
/// `NO_COLOR` is set.
pub(crate) fn bar(length: u64, unit: &str, with_rate: bool) -> ProgressBar {
    if !is_bar_wanted() {
        return ProgressBar::hidden();
    }
    let rate = if with_rate { ", {rate}/s" } else { "" };
    let style = ProgressStyle::with_template(&format!("{BAR} {unit}{rate}"));
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.with_key("rate", write_rate))
}

/// Whether stderr is a terminal and the environment does not ask for plain text.
pub(crate) fn is_bar_wanted() -> bool {
    std::io::stderr().is_terminal() && !no_colour()
}

fn write_rate(state: &ProgressState, text: &mut dyn Write) {
    // A terminal that cannot be written to shows no bar; that harms nothing.
    let _ = text.write_str(&grouped(state.per_sec() as u64));
}
