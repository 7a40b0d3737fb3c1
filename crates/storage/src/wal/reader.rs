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
use super::window::Window;
use crate::error::StorageError;
use crate::file_store::{FileStore, LogBytes};

/// Bytes of a log that are decoded and handed on together, unless one record is longer.
const PART_BYTES: u64 = 1 << 20;
/// Such parts that are decoded while another one is put into effect.
const PARTS_AHEAD: usize = 2;

/// A log that the manifest names, read on a thread of its own a little ahead of whoever takes the
/// records.
#[derive(Debug)]
pub(crate) struct LogReading {
    /// Parts in commit order, then `None`.
    parts: mpsc::Receiver<Result<Option<Vec<Record>>, StorageError>>,
}

impl LogReading {
    /// Starts to read. `is_last` says that no newer log is named: then the end of this one may never
    /// have become durable, and is cut off; not so the first `durable_bytes`.
    pub(crate) fn start(
        files: &Arc<FileStore>,
        number: u64,
        is_last: bool,
        durable_bytes: u64,
    ) -> Self {
        let files = Arc::clone(files);
        let (decoded, parts) = mpsc::channel(PARTS_AHEAD);
        tokio::task::spawn_blocking(move || {
            let path = log_path(number);
            let read = || {
                let log = files.open_log(&path)?;
                let reader = WalReader::open(&path, log, is_last)?.with_durable(durable_bytes);
                hand_on(reader, &decoded)
            };
            let whole = read().and_then(|reader| {
                if is_last {
                    // What was read may have been written and never synced; from now on it counts.
                    files.truncate_log(&path, reader.offset())?;
                }
                Ok(None)
            });
            // Nobody may be waiting any more; that is fine.
            drop(decoded.blocking_send(whole));
        });
        LogReading { parts }
    }

    /// The next records; `None` when that were all.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if the file is missing or damaged where it was durable once, after
    /// the records before that; [`StorageError::Io`] if it cannot be read, or cut.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Record>>, StorageError> {
        let stopped =
            || StorageError::Defect { panic: "the log was not read to its end".to_owned() };
        self.parts.recv().await.unwrap_or_else(|| Err(stopped()))
    }
}

/// Hands on all records, in parts.
fn hand_on(
    mut reader: WalReader,
    decoded: &mpsc::Sender<Result<Option<Vec<Record>>, StorageError>>,
) -> Result<WalReader, StorageError> {
    let (mut part, mut handed_on) = (Vec::new(), reader.offset());
    while let Some(record) = reader.next() {
        part.push(record?);
        if reader.offset() - handed_on >= PART_BYTES {
            handed_on = reader.offset();
            // Whoever does not take them has no use for the rest either.
            decoded
                .blocking_send(Ok(Some(std::mem::take(&mut part))))
                .map_err(|_| StorageError::Closed)?;
        }
    }
    decoded.blocking_send(Ok(Some(part))).map_err(|_| StorageError::Closed)?;
    if let Some(kept) = reader.torn_at() {
        let (path, cut) = (&reader.path, reader.log.len() - kept);
        warn!(path, kept, cut, "cut off the end of the log, which is incomplete");
    }
    Ok(reader)
}

/// The records of one log, in commit order. After an error there are no more.
#[derive(Debug)]
pub(crate) struct WalReader {
    path: String,
    is_last: bool,
    /// The beginning that was durable for sure.
    durable: u64,
    log: Window,
    offset: u64,
    last: SequenceNumber,
    names: SeriesNames,
    torn_at: Option<u64>,
    has_failed: bool,
}

impl WalReader {
    /// Reads the file `bytes`, see [`WalReader::open`].
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if it is not a log that this release reads.
    pub(crate) fn new(path: &str, bytes: Bytes, is_last: bool) -> Result<WalReader, StorageError> {
        WalReader::open(path, LogBytes::Memory(bytes), is_last)
    }

    /// Reads a log of which little is in memory at a time; `path` is for messages, `is_last` as in
    /// [`LogReading::start`]. Reading blocks.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if it is not a log that this release reads, [`StorageError::Io`].
    pub(crate) fn open(
        path: &str,
        log: LogBytes,
        is_last: bool,
    ) -> Result<WalReader, StorageError> {
        let (path, mut log) = (path.to_owned(), Window::new(log));
        if log.at(0, FILE_HEADER.len())? != FILE_HEADER {
            let reason = "it does not begin like a log that this release reads".to_owned();
            return Err(StorageError::Corrupt { path, offset: 0, reason });
        }
        Ok(WalReader {
            path,
            is_last,
            durable: 0,
            log,
            offset: FILE_HEADER.len() as u64,
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
        self.offset
    }

    fn read_next(&mut self) -> Result<Option<Record>, StorageError> {
        if self.offset >= self.log.len() {
            let is_whole = self.offset() >= self.durable;
            let early = Malformed("the file ends before it");
            return if is_whole { Ok(None) } else { Err(self.corrupt(early)) };
        }
        let frame = match frame::read(self.log.frame(self.offset)?) {
            Ok(frame) => frame,
            Err(damage) => return self.end_at(damage).map(|()| None),
        };
        let (seq, bytes) = (frame.seq, frame.bytes);
        if seq <= self.last {
            return Err(self.corrupt(Malformed("its commit does not come after the one before")));
        }
        let record = decode(&frame, &mut self.names);
        let record = record.map_err(|damage| self.corrupt(damage))?;
        self.offset += bytes as u64;
        self.last = seq;
        Ok(Some(record))
    }

    /// Ends the log before a frame that cannot be read.
    fn end_at(&mut self, damage: Malformed) -> Result<(), StorageError> {
        let is_durable = self.offset() < self.durable;
        if !self.is_last || is_durable || frame::was_durable(&mut self.log, self.offset, self.last)?
        {
            return Err(self.corrupt(damage));
        }
        self.torn_at = Some(self.offset);
        Ok(())
    }

    fn corrupt(&self, damage: Malformed) -> StorageError {
        let Malformed(reason) = damage;
        StorageError::Corrupt {
            path: self.path.clone(),
            offset: self.offset,
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
