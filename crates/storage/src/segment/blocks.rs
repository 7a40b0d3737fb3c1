//! Decoded blocks of segments, kept for a while: who reads a few rows again, or rows beside them,
//! decodes nothing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use arrow::error::ArrowError;
use parking_lot::Mutex;

use crate::lru::Lru;

/// Rows of a block. Pages have as many, so that a block is decoded from few of them.
pub(super) const BLOCK_ROWS: usize = 8 * 1024;
/// Memory for blocks of one engine.
const CACHE_BYTES: u64 = 64 << 20;

/// Which rows: path of the segment, number of the row group, number of the block in it.
pub(super) type BlockKey = (String, usize, usize);

/// Some columns of [`BLOCK_ROWS`] neighbouring rows of a row group, fewer at its end; by their
/// position in the file.
pub(super) type Block = BTreeMap<usize, ArrayRef>;

/// Blocks that were read lately.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    kept: Mutex<Lru<BlockKey, Arc<Block>>>,
}

impl Blocks {
    /// What is kept of a block.
    pub(super) fn get(&self, key: &BlockKey) -> Arc<Block> {
        self.kept.lock().get(key).map(|(block, _)| Arc::clone(block)).unwrap_or_default()
    }

    /// Keeps these columns of a block, and forgets other blocks for them.
    pub(super) fn put(&self, key: BlockKey, block: Arc<Block>) {
        let bytes = block.values().map(|column| column.get_array_memory_size() as u64).sum();
        let mut kept = self.kept.lock();
        kept.remove(&key);
        kept.make_room(bytes, CACHE_BYTES);
        kept.insert(key, block, bytes);
    }

    /// The segment is gone.
    pub(super) fn forget(&self, path: &str) {
        self.kept.lock().retain(|(own, ..)| own != path);
    }
}

/// The numbers of the blocks that hold these rows.
pub(super) fn blocks_of(rows: &Range<usize>) -> Range<usize> {
    rows.start / BLOCK_ROWS..rows.end.div_ceil(BLOCK_ROWS)
}

/// The column with memory for its own values only: a block does not need the dictionary of its
/// whole row group.
///
/// # Errors
/// None are known for the types of a segment.
pub(super) fn compact(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let is_large = |own: &DictionaryArray<Int32Type>| own.values().len() > 2 * own.len();
    match column.as_dictionary_opt::<Int32Type>() {
        Some(own) if is_large(own) => {
            let texts = cast(column, &DataType::Utf8)?;
            cast(&texts, column.data_type())
        }
        _ => Ok(Arc::clone(column)),
    }
}
