//! What an import did, for people.

use std::time::Duration;

use super::input::Input;
use super::ledger::{FileProgress, Ledger};
use crate::cli::counted;
use crate::demo::grouped;

/// What all files hold together.
pub(super) fn totals(files: &[FileProgress]) -> (u64, u64) {
    files
        .iter()
        .fold((0, 0), |(points, refused), file| (points + file.points, refused + file.refused))
}

/// How much was sent and how fast, then the first refused points with file and line.
pub(super) fn text(inputs: &[Input], ledger: &Ledger, before: u64, elapsed: Duration) -> String {
    let (points, refused) = totals(ledger.files());
    let files = ledger.files().iter().filter(|file| file.is_complete).count();
    let of = if files == inputs.len() { String::new() } else { format!("{files} of ") };
    let earlier = match before {
        0 => String::new(),
        before => format!(" ({} of them earlier)", grouped(before)),
    };
    let seconds = elapsed.as_secs_f64();
    let rate = grouped(((points - before) as f64 / seconds.max(1e-9)) as u64);
    let mut text = format!(
        "{of}{}, {} sent{earlier}, {} refused, {seconds:.1} s, {rate} points/s\n",
        counted(inputs.len() as u64, "file"),
        counted(points, "point"),
        grouped(refused),
    );
    for (file, point) in ledger.remembered() {
        let input = &inputs[*file];
        let (path, word) = (input.path.display(), input.format.place());
        text.push_str(&format!("  {path} {word} {}: {}\n", point.place, point.reason));
    }
    let more = refused.saturating_sub(ledger.remembered().len() as u64);
    if more > 0 && !ledger.remembered().is_empty() {
        text.push_str(&format!("  and {} more\n", grouped(more)));
    }
    text
}
