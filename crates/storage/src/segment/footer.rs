//! The footer of a segment, parsed.

use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::file::metadata::{KeyValue, ParquetMetaData};

use super::checksums::BlockChecksums;
use super::writer::FIRST_TAG_KEYS_KEY;

/// What a segment says of its columns, row groups and pages.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(super) arrow: ArrowReaderMetadata,
    pub(super) checksums: BlockChecksums,
    pub(super) bytes: usize,
}

impl Footer {
    /// With the Arrow types of the columns.
    pub(crate) fn arrow(&self) -> &ArrowReaderMetadata {
        &self.arrow
    }

    /// As Parquet has it, page index included.
    pub(crate) fn parquet(&self) -> &ParquetMetaData {
        self.arrow.metadata()
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of row groups.
    pub(crate) fn row_groups(&self) -> usize {
        self.parquet().num_row_groups()
    }

    /// Key of the tags of the first row of every row group, under the schema of the segment.
    pub(crate) fn first_tag_keys(&self) -> Option<Vec<Vec<u8>>> {
        let pairs = self.parquet().file_metadata().key_value_metadata();
        let keys = value_of(pairs, FIRST_TAG_KEYS_KEY)?.split(',').map(from_hex);
        let keys: Option<Vec<Vec<u8>>> = keys.collect();
        keys.filter(|keys| keys.len() == self.row_groups())
    }
}

/// The value of a key of a file's metadata.
pub(super) fn value_of<'a>(pairs: Option<&'a Vec<KeyValue>>, key: &str) -> Option<&'a str> {
    pairs?.iter().find(|pair| pair.key == key)?.value.as_deref()
}

/// Reads [`to_hex`](super::writer::to_hex); `None` if it is not that.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}
