//! Segments that stay decoded in memory as a whole: reading them touches no disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::blocks::Block;
use super::footer::Footer;
use super::reader::all_blocks;
use super::store::SegmentHandle;
use crate::error::StorageError;

/// All rows of a segment, decoded.
#[derive(Debug)]
pub(crate) struct ResidentRows {
    footer: Arc<Footer>,
    /// By number of the row group, and of the block in it.
    blocks: BTreeMap<(usize, usize), Arc<Block>>,
    bytes: u64,
}

impl ResidentRows {
    /// What the segment says of itself.
    pub(super) fn footer(&self) -> &Arc<Footer> {
        &self.footer
    }

    /// All columns of a block.
    pub(super) fn block(&self, group: usize, number: usize) -> Option<&Arc<Block>> {
        self.blocks.get(&(group, number))
    }

    /// Memory for all of it.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl SegmentHandle {
    /// Its rows, if they stay in memory.
    pub(crate) fn resident(&self) -> Option<Arc<ResidentRows>> {
        self.resident.read().clone()
    }

    /// Decodes all rows and keeps them; they are there until [`SegmentHandle::let_go`], or until
    /// the segment itself goes.
    ///
    /// # Errors
    /// See [`SegmentReader::next`](super::SegmentReader::next).
    pub(crate) async fn make_resident(&self) -> Result<Arc<ResidentRows>, StorageError> {
        if let Some(rows) = self.resident() {
            return Ok(rows);
        }
        let footer = self.footer().await?;
        let blocks = all_blocks(self, &footer).await?;
        let columns = blocks.values().flat_map(|block| block.values());
        let of_columns: usize = columns.map(|column| column.get_array_memory_size()).sum();
        let bytes = (of_columns + footer.bytes()) as u64;
        let rows = Arc::new(ResidentRows { footer, blocks, bytes });
        *self.resident.write() = Some(Arc::clone(&rows));
        Ok(rows)
    }

    /// Reads come from the file again.
    pub(crate) fn let_go(&self) {
        *self.resident.write() = None;
    }
}
