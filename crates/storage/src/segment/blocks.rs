//! Decoded blocks of segments, kept for a while: who reads a few rows again, or rows beside them,
//! decodes nothing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Schema};
use arrow::error::ArrowError;
use parking_lot::Mutex;

use crate::lru::Lru;

/// Rows of a block of points. Pages have as many, so that a block is decoded from few of them.
const BLOCK_ROWS: usize = 8 * 1024;
/// The same of partials, which are larger than values, and of which many reads want one.
const PARTIAL_BLOCK_ROWS: usize = 1024;
/// Memory for blocks of one engine.
const CACHE_BYTES: u64 = 64 << 20;

/// Which rows: path of the segment, number of the row group, number of the block in it.
pub(super) type BlockKey = (String, usize, usize);

/// Some columns of the neighbouring rows of a row group that make up a block, by their position in
/// the file.
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

/// Rows of a block, and of a page, of a segment with these columns; the last one of a row group may
/// have fewer.
pub(super) fn block_rows(schema: &Schema) -> usize {
    let has_partials = schema.fields().iter().any(|field| *field.data_type() == DataType::Binary);
    if has_partials { PARTIAL_BLOCK_ROWS } else { BLOCK_ROWS }
}

/// The blocks of so many rows each that hold these rows of a row group with `all` of them: their
/// numbers and rows.
pub(super) fn blocks_of(
    rows: &Range<usize>,
    block_rows: usize,
    all: usize,
) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
    let numbers = rows.start / block_rows..rows.end.div_ceil(block_rows);
    numbers.map(move |at| (at, at * block_rows..all.min((at + 1) * block_rows)))
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
