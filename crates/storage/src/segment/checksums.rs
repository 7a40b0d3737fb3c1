//! Checksums of a segment, so that no damaged byte is ever taken for data.
//!
//! ```text
//! │ data: pages of all row groups        │ footer: page indexes, metadata │
//! │ block │ block │ block │ … │ the rest │                                │
//!   └ CRC-32C each, kept in the footer ┘   └ one CRC-32C, in the manifest ┘
//! ```
//!
//! The writer of Parquet files makes no checksums of pages, and blocks of bytes need to know nothing
//! of pages. Reads are rounded outwards to blocks.

use std::ops::Range;

use super::footer::from_hex;
use super::writer::to_hex;

/// Bytes of a block but for the last one of the data.
const BLOCK_BYTES: u64 = 8 << 10;

/// The checksums of all blocks of a segment's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockChecksums {
    /// Length of the data.
    bytes: u64,
    blocks: Vec<u32>,
}

/// A block whose bytes are not those that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DamagedBlock {
    /// Where it begins in the file.
    pub(super) offset: u64,
}

impl BlockChecksums {
    /// Those of `data`, the beginning of a file.
    pub(super) fn of(data: &[u8]) -> Self {
        let blocks = data.chunks(BLOCK_BYTES as usize).map(crc32c::crc32c).collect();
        BlockChecksums { bytes: data.len() as u64, blocks }
    }

    /// Eight hexadecimal digits per block.
    pub(super) fn to_hex(&self) -> String {
        let bytes: Vec<u8> = self.blocks.iter().flat_map(|block| block.to_be_bytes()).collect();
        to_hex(&bytes)
    }

    /// Reads [`to_hex`](BlockChecksums::to_hex) of data of so many bytes; `None` if it is not that.
    pub(super) fn from_hex(text: &str, bytes: u64) -> Option<Self> {
        let bytes_of_blocks = from_hex(text)?;
        let (blocks, rest) = bytes_of_blocks.as_chunks::<4>();
        let blocks: Vec<u32> = blocks.iter().map(|block| u32::from_be_bytes(*block)).collect();
        if !rest.is_empty() {
            return None;
        }
        (blocks.len() as u64 == bytes.div_ceil(BLOCK_BYTES))
            .then_some(BlockChecksums { bytes, blocks })
    }

    /// The range of the whole blocks that hold `range`; `None` if some of it is behind the data.
    pub(super) fn around(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let start = range.start / BLOCK_BYTES * BLOCK_BYTES;
        let end = range.end.next_multiple_of(BLOCK_BYTES).min(self.bytes);
        (range.end <= self.bytes).then_some(start..end)
    }

    /// Checks the bytes of whole blocks from `offset` on.
    ///
    /// # Errors
    /// The first damaged block.
    pub(super) fn check(&self, offset: u64, bytes: &[u8]) -> Result<(), DamagedBlock> {
        let first = (offset / BLOCK_BYTES) as usize;
        let expected = self.blocks.iter().skip(first);
        let found = bytes.chunks(BLOCK_BYTES as usize);
        match found.zip(expected).position(|(block, expected)| crc32c::crc32c(block) != *expected) {
            None => Ok(()),
            Some(at) => Err(DamagedBlock { offset: offset + at as u64 * BLOCK_BYTES }),
        }
    }

    /// Estimated memory in bytes.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_found_in_its_block() {
        let mut data: Vec<u8> = (0..2 * BLOCK_BYTES + 100).map(|at| at as u8).collect();
        let sums = BlockChecksums::of(&data);
        assert_eq!(BlockChecksums::from_hex(&sums.to_hex(), sums.bytes).as_ref(), Some(&sums));
        assert_eq!(BlockChecksums::from_hex(&sums.to_hex(), BLOCK_BYTES), None);
        assert_eq!(sums.check(0, &data), Ok(()));
        assert_eq!(sums.check(BLOCK_BYTES, &data[BLOCK_BYTES as usize..]), Ok(()));
        for at in (0..data.len()).step_by(977) {
            data[at] ^= 1 << (at % 8);
            let offset = at as u64 / BLOCK_BYTES * BLOCK_BYTES;
            assert_eq!(sums.check(0, &data), Err(DamagedBlock { offset }));
            data[at] ^= 1 << (at % 8);
        }
    }

    #[test]
    fn reads_are_rounded_to_blocks() {
        let sums = BlockChecksums::of(&vec![0; 20_000]);
        assert_eq!(sums.around(&(1..2)), Some(0..8192));
        assert_eq!(sums.around(&(8191..8193)), Some(0..16384));
        assert_eq!(sums.around(&(16384..20_000)), Some(16384..20_000));
        assert_eq!(sums.around(&(16384..20_001)), None);
    }
}
