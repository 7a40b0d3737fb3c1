//! Writing a log: encode into memory, write, sync; each step once for many commits.

use highwater_core::{MeasurementId, PointBatch, SequenceNumber, TimeRanges};

use super::frame::{self, FILE_HEADER, Kind};
use super::log_path;
use super::record::{SeriesNumbers, check_points, encode_delete, encode_points};
use crate::error::StorageError;
use crate::file_store::{FileStore, LogFile};
use crate::manifest::Tombstone;

/// Memory for encoding that is kept between writes.
const KEPT_BUFFER_BYTES: usize = 4 << 20;

/// The writer of one log. All calls but the appending ones block.
///
/// After a failed write or sync it is not known what the file holds, so from then on everything
/// fails with [`StorageError::Poisoned`].
#[derive(Debug)]
pub(crate) struct WalWriter {
    number: u64,
    file: Box<dyn LogFile>,
    /// Encoded and not written.
    unwritten: Vec<u8>,
    /// Bytes of the file that are known to be durable.
    durable: u64,
    series: SeriesNumbers,
    poisoned: Option<String>,
}

impl WalWriter {
    /// A new log, which exists durably when this returns.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] if there is a log of this number; [`StorageError::Io`] otherwise.
    pub(crate) fn create(files: &FileStore, number: u64) -> Result<WalWriter, StorageError> {
        WalWriter::begin(files.create_log(&log_path(number))?, number)
    }

    /// Begins the empty log `file`.
    pub(super) fn begin(file: Box<dyn LogFile>, number: u64) -> Result<WalWriter, StorageError> {
        let mut writer = WalWriter {
            number,
            file,
            unwritten: FILE_HEADER.to_vec(),
            durable: 0,
            series: SeriesNumbers::default(),
            poisoned: None,
        };
        writer.sync()?;
        Ok(writer)
    }

    /// Number of the log.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of the log, with those that are not written yet.
    pub(crate) fn bytes(&self) -> u64 {
        self.file.len() + self.unwritten.len() as u64
    }

    /// Adds the points of a commit; sequence numbers ascend.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if a log cannot hold them; nothing has been added then.
    pub(crate) fn append_points(
        &mut self,
        seq: SequenceNumber,
        batches: &[(MeasurementId, PointBatch)],
    ) -> Result<(), StorageError> {
        self.check_sound()?;
        self.unwritten.reserve(check_points(batches)? + 64);
        let at = frame::start(&mut self.unwritten, Kind::Points, seq, self.durable);
        encode_points(&mut self.unwritten, batches, &mut self.series);
        frame::finish(&mut self.unwritten, at);
        Ok(())
    }

    /// Adds a delete, whose commit is that of the tombstone.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if a log cannot hold it; nothing has been added then.
    pub(crate) fn append_delete(
        &mut self,
        id: &MeasurementId,
        tombstone: &Tombstone,
        touched: &TimeRanges,
    ) -> Result<(), StorageError> {
        self.check_sound()?;
        let body = encode_delete(id, tombstone, touched)?;
        let at = frame::start(&mut self.unwritten, Kind::Delete, tombstone.seq, self.durable);
        self.unwritten.extend_from_slice(&body);
        frame::finish(&mut self.unwritten, at);
        Ok(())
    }

    /// Whether something has been appended since the last write.
    pub(crate) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Hands what was appended to the operating system: it survives the end of the process.
    ///
    /// # Errors
    /// [`StorageError::Io`], and [`StorageError::Poisoned`] after any error.
    pub(crate) fn write(&mut self) -> Result<(), StorageError> {
        self.check_sound()?;
        if self.has_unwritten() {
            let written = self.file.append(&self.unwritten);
            written.inspect_err(|error| self.poisoned = Some(error.to_string()))?;
            self.unwritten.clear();
            self.unwritten.shrink_to(KEPT_BUFFER_BYTES);
        }
        Ok(())
    }

    /// Writes and makes durable what was appended: it survives the end of the machine.
    ///
    /// # Errors
    /// [`StorageError::Io`], and [`StorageError::Poisoned`] after any error.
    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        self.write()?;
        if self.durable < self.file.len() {
            let synced = self.file.sync();
            synced.inspect_err(|error| self.poisoned = Some(error.to_string()))?;
            self.durable = self.file.len();
        }
        Ok(())
    }

    fn check_sound(&self) -> Result<(), StorageError> {
        match &self.poisoned {
            Some(reason) => Err(StorageError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }
}
