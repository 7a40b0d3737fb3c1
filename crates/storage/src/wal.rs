//! The write-ahead log: commits that are durable before they are in segments.
//!
//! A log is one file that only grows, and self-contained: a series is spelled out where the file
//! first names it. The bytes are described in `docs/format/wal.md`.

mod column;
mod encoding;
mod frame;
mod reader;
mod record;
mod window;
mod writer;

pub(crate) use reader::{LogReading, WalReader};
pub(crate) use record::Record;
pub(crate) use writer::WalWriter;

/// Folder of all logs.
pub(crate) const LOGS_FOLDER: &str = "wal";

/// Length of a log without commits.
pub(crate) const EMPTY_LOG_BYTES: u64 = frame::FILE_HEADER.len() as u64;

/// Path of the log with this number.
pub(crate) fn log_path(number: u64) -> String {
    format!("{LOGS_FOLDER}/{number:020}.wal")
}

/// Number of the log with this path; `None` if it is not the path of a log.
pub(crate) fn log_number(path: &str) -> Option<u64> {
    let number = path.strip_prefix(LOGS_FOLDER)?.strip_prefix('/')?.strip_suffix(".wal")?;
    number.parse().ok().filter(|number| log_path(*number) == path)
}

#[cfg(test)]
mod tests;
