//! Reading a log, and telling an end that was never durable from damage.

use std::sync::Arc;

use bytes::Bytes;
use highwater_core::SequenceNumber;
use tokio::sync::mpsc;
use tracing::warn;

use super::encoding::Malformed;
use super::frame::{self, FILE_HEADER};
use super::log_path;
use super::record::{Record, SeriesNames, decode};
use crate::error::StorageError;
use crate::file_store::{FileStore, run_blocking};

/// Records that are decoded while others are put into effect.
const RECORDS_AHEAD: usize = 16;

/// Hands on the records of a log that the manifest names, in commit order. `is_last` says that no
/// newer log is named: then the end of this one may never have become durable, and is cut off; not so
/// the first `durable_bytes`.
///
/// # Errors
/// [`StorageError::Corrupt`] if the file is missing or damaged where it was durable once, after the
/// records before that; and the first error of `each`.
pub(crate) async fn read_log(
    files: &Arc<FileStore>,
    number: u64,
    is_last: bool,
    durable_bytes: u64,
    mut each: impl FnMut(Record) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let path = log_path(number);
    let bytes = files.get(&path).await?;
    let files = Arc::clone(files);
    let (decoded, mut records) = mpsc::channel(RECORDS_AHEAD);
    let reading = run_blocking(move || {
        let len = bytes.len() as u64;
        let mut reader = WalReader::new(&path, bytes, is_last)?.with_durable(durable_bytes);
        for record in reader.by_ref() {
            if decoded.blocking_send(record?).is_err() {
                // One of them was refused.
                return Ok(());
            }
        }
        if let Some(kept) = reader.torn_at() {
            warn!(path, kept, cut = len - kept, "cut off the end of the log, which is incomplete");
        }
        if is_last {
            // What was read may have been written and never synced; from now on it counts.
            files.truncate_log(&path, reader.offset())?;
        }
        Ok(())
    });
    let handing_on = async move {
        while let Some(record) = records.recv().await {
            each(record)?;
        }
        Ok(())
    };
    let (read, handed_on) = tokio::join!(reading, handing_on);
    handed_on.and(read)
}

/// The records of one log, in commit order. After an error there are no more.
#[derive(Debug)]
pub(crate) struct WalReader {
    path: String,
    is_last: bool,
    /// The beginning that was durable for sure.
    durable: u64,
    bytes: Bytes,
    offset: usize,
    last: SequenceNumber,
    names: SeriesNames,
    torn_at: Option<u64>,
    has_failed: bool,
}

impl WalReader {
    /// Reads the file `bytes`; `path` is for messages, `is_last` as in [`read_log`].
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if it is not a log that this release reads.
    pub(crate) fn new(path: &str, bytes: Bytes, is_last: bool) -> Result<WalReader, StorageError> {
        let path = path.to_owned();
        if !bytes.starts_with(FILE_HEADER) {
            let reason = "it does not begin like a log that this release reads".to_owned();
            return Err(StorageError::Corrupt { path, offset: 0, reason });
        }
        Ok(WalReader {
            path,
            is_last,
            durable: 0,
            bytes,
            offset: FILE_HEADER.len(),
            last: SequenceNumber::ZERO,
            names: SeriesNames::default(),
            torn_at: None,
            has_failed: false,
        })
    }

    /// So many bytes of the file were durable: no record in them may be incomplete.
    pub(crate) fn with_durable(self, durable: u64) -> Self {
        WalReader { durable, ..self }
    }

    /// Where the file has to be cut before another log follows, because what is there was never
    /// durable. Known once all records have been read.
    pub(crate) fn torn_at(&self) -> Option<u64> {
        self.torn_at
    }

    /// Bytes up to the end of the last record.
    pub(crate) fn offset(&self) -> u64 {
        self.offset as u64
    }

    fn read_next(&mut self) -> Result<Option<Record>, StorageError> {
        let bytes = self.bytes.slice(self.offset..);
        if bytes.is_empty() {
            let is_whole = self.offset() >= self.durable;
            let early = Malformed("the file ends before it");
            return if is_whole { Ok(None) } else { Err(self.corrupt(early)) };
        }
        let frame = match frame::read(&bytes) {
            Ok(frame) => frame,
            Err(damage) => return self.end_at(damage).map(|()| None),
        };
        if frame.seq <= self.last {
            return Err(self.corrupt(Malformed("its commit does not come after the one before")));
        }
        let record = decode(&frame, &mut self.names).map_err(|damage| self.corrupt(damage))?;
        self.offset += frame.bytes;
        self.last = frame.seq;
        Ok(Some(record))
    }

    /// Ends the log before a frame that cannot be read.
    fn end_at(&mut self, damage: Malformed) -> Result<(), StorageError> {
        let is_durable = self.offset() < self.durable;
        if !self.is_last || is_durable || frame::was_durable(&self.bytes, self.offset, self.last) {
            return Err(self.corrupt(damage));
        }
        self.torn_at = Some(self.offset as u64);
        Ok(())
    }

    fn corrupt(&self, damage: Malformed) -> StorageError {
        let Malformed(reason) = damage;
        StorageError::Corrupt {
            path: self.path.clone(),
            offset: self.offset as u64,
            reason: format!("a record cannot be read: {reason}"),
        }
    }
}

impl Iterator for WalReader {
    type Item = Result<Record, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed || self.torn_at.is_some() {
            return None;
        }
        let next = self.read_next();
        self.has_failed = next.is_err();
        next.transpose()
    }
}
