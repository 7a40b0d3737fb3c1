//! Reading a segment: only the row groups, pages and columns that are needed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use highwater_core::SeriesRanges;
use highwater_core::schema::{TIME_COLUMN, tag_data_type, time_data_type};
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderMetadata, ParquetRecordBatchReader, RowFilter,
};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::errors::ParquetError;

use super::blocks::{Block, block_rows, blocks_of, compact};
use super::footer::Footer;
use super::prune::{GroupPlan, plan_row_group};
use super::row_ranges::RowRanges;
use super::selection::{Selection, at_times, keep, of_series, with_columns};
use super::store::SegmentHandle;
use crate::error::StorageError;

/// Rows per batch.
pub(crate) const BATCH_ROWS: usize = 8 * 1024;

/// Segments that stay in memory are read by blocks, as is this: where only some series or tags are
/// wanted, row groups of which no more rows than these have to be
/// decoded are read by blocks, which are kept.
const FEW_ROWS: usize = 32 * 1024;

/// Reads the selected rows of some row groups of a segment.
///
/// Columns of a batch: those of the selection. Sorted by `(tags, time)`.
pub(crate) struct SegmentReader {
    segment: Arc<SegmentHandle>,
    selection: Arc<Selection>,
    row_groups: Range<usize>,
    current: Option<(GroupRows, GroupPlan)>,
}

/// What is left to read of a row group.
enum GroupRows {
    /// Rows that are decoded as they are needed.
    Decoding(ParquetRecordBatchReader),
    /// Rows of decoded blocks.
    Decoded(std::vec::IntoIter<RecordBatch>),
}

impl Iterator for GroupRows {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            GroupRows::Decoding(reader) => reader.next(),
            GroupRows::Decoded(batches) => batches.next().map(Ok),
        }
    }
}

impl SegmentReader {
    /// A reader of `row_groups`; numbers past the last one are ignored.
    pub(crate) fn new(
        segment: Arc<SegmentHandle>,
        selection: Arc<Selection>,
        row_groups: Range<usize>,
    ) -> Self {
        SegmentReader { segment, selection, row_groups, current: None }
    }

    /// Leaves out other row groups than these.
    pub(crate) fn limit_row_groups(&mut self, row_groups: Range<usize>) {
        let own = &mut self.row_groups;
        *own = own.start.max(row_groups.start)..own.end.min(row_groups.end);
    }

    /// The next batch, never empty; `None` at the end.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] or [`StorageError::Parquet`] if the file is missing or damaged,
    /// [`StorageError::Io`] if it cannot be read.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, StorageError> {
        loop {
            while let Some((rows, plan)) = &mut self.current {
                let Some(batch) = rows.next() else {
                    self.current = None;
                    break;
                };
                let mut batch = batch.map_err(|e| self.segment.damaged(ParquetError::from(e)))?;
                if plan.filter_times {
                    batch = at_times(batch, &self.selection.times)?;
                }
                let is_decoded = matches!(rows, GroupRows::Decoded(_));
                batch = with_columns(&batch, &self.selection.columns)?;
                if let Some(series) = self.selection.series.as_ref().filter(|_| is_decoded) {
                    let wanted = of_series(&batch, series)?;
                    batch = keep(batch, &wanted)?;
                }
                if batch.num_rows() > 0 {
                    return Ok(Some(batch));
                }
            }
            let footer = self.segment.footer().await?;
            self.row_groups.end = self.row_groups.end.min(footer.row_groups());
            let Some(group) = self.row_groups.next() else { return Ok(None) };
            if let Some(plan) = plan_row_group(footer.parquet(), group, &self.selection) {
                let rows = self.open(&footer, group, &plan).await?;
                self.current = rows.map(|rows| (rows, plan));
            }
        }
    }

    async fn open(
        &mut self,
        footer: &Footer,
        group: usize,
        plan: &GroupPlan,
    ) -> Result<Option<GroupRows>, StorageError> {
        let columns = self.columns_of(footer, plan);
        let rows = plan.rows.clone();
        let rows = rows.unwrap_or_else(|| RowRanges::first(rows_of(footer, group)));
        let selects = self.selection.series.is_some() || !self.selection.tags.is_empty();
        let is_resident = self.segment.resident().is_some();
        if is_resident || selects && rows.rows() <= FEW_ROWS {
            let batches = blocks(&self.segment, footer, group, &columns, &rows).await?;
            return Ok(Some(GroupRows::Decoded(batches.into_iter())));
        }
        let series = self.selection.series.as_ref();
        let rows = plan.rows.as_ref();
        let part = Part { group, columns: &columns, rows, series };
        let reader = decode(&self.segment, footer, part).await?;
        Ok(reader.map(GroupRows::Decoding))
    }

    /// Positions of the columns that are needed.
    fn columns_of(&self, footer: &Footer, plan: &GroupPlan) -> Vec<usize> {
        let fields = footer.arrow().schema().fields();
        let is_needed = |name: &str| {
            (plan.filter_times && name == TIME_COLUMN)
                || self.selection.columns.column_with_name(name).is_some()
        };
        (0..fields.len()).filter(|at| is_needed(fields[*at].name())).collect()
    }
}

/// These rows of a row group, out of decoded blocks.
async fn blocks(
    segment: &SegmentHandle,
    footer: &Footer,
    group: usize,
    columns: &[usize],
    rows: &RowRanges,
) -> Result<Vec<RecordBatch>, StorageError> {
    let schema = Arc::new(footer.arrow().schema().project(columns)?);
    let mut batches = Vec::new();
    let (block_rows, group_rows) = (block_rows(footer.arrow().schema()), rows_of(footer, group));
    for range in rows.iter() {
        for (number, all) in blocks_of(&range, block_rows, group_rows) {
            let block = block(segment, footer, group, number, &all, columns).await?;
            let arrays = columns.iter().map(|at| Arc::clone(&block[at])).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(all.len()));
            let schema = Arc::clone(&schema);
            let batch = RecordBatch::try_new_with_options(schema, arrays, &options)?;
            let wanted = range.start.max(all.start)..range.end.min(all.end);
            batches.push(batch.slice(wanted.start - all.start, wanted.len()));
        }
    }
    Ok(batches)
}

/// The block with these rows: all of `columns`, decoded now as far as it is not kept.
async fn block(
    segment: &SegmentHandle,
    footer: &Footer,
    group: usize,
    number: usize,
    rows: &Range<usize>,
    columns: &[usize],
) -> Result<Arc<Block>, StorageError> {
    if let Some(block) = segment.resident().and_then(|rows| rows.block(group, number).cloned()) {
        return Ok(block);
    }
    let key = (segment.meta().path.clone(), group, number);
    let kept = segment.blocks().get(&key);
    let missing: Vec<usize> = columns.iter().copied().filter(|at| !kept.contains_key(at)).collect();
    if missing.is_empty() {
        return Ok(kept);
    }
    let decoded = decode_block(segment, footer, group, rows, &missing).await?;
    let mut block = Block::clone(&kept);
    block.extend(missing.into_iter().zip(decoded));
    let block = Arc::new(block);
    segment.blocks().put(key, Arc::clone(&block));
    Ok(block)
}

/// All blocks of a segment with all columns, by row group and number.
pub(super) async fn all_blocks(
    segment: &SegmentHandle,
    footer: &Footer,
) -> Result<BTreeMap<(usize, usize), Arc<Block>>, StorageError> {
    let columns: Vec<usize> = (0..footer.arrow().schema().fields().len()).collect();
    let mut blocks = BTreeMap::new();
    let block_rows = block_rows(footer.arrow().schema());
    for group in 0..footer.row_groups() {
        let all = rows_of(footer, group);
        for (number, rows) in blocks_of(&(0..all), block_rows, all) {
            let decoded = decode_block(segment, footer, group, &rows, &columns).await?;
            let block = columns.iter().copied().zip(decoded).collect();
            blocks.insert((group, number), Arc::new(block));
        }
    }
    Ok(blocks)
}

/// These columns of the rows of a block.
async fn decode_block(
    segment: &SegmentHandle,
    footer: &Footer,
    group: usize,
    rows: &Range<usize>,
    columns: &[usize],
) -> Result<Vec<ArrayRef>, StorageError> {
    let mut range = RowRanges::default();
    range.push(rows.clone());
    let part = Part { group, columns, rows: Some(&range), series: None };
    let is_short = || segment.corrupt(0, format!("rows of row group {group} are missing"));
    let reader = decode(segment, footer, part).await?.ok_or_else(is_short)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>();
    let batches = batches.map_err(|e| segment.damaged(ParquetError::from(e)))?;
    let batch = concat_batches(&schema, &batches)?;
    if batch.num_rows() != rows.len() {
        return Err(is_short());
    }
    Ok(batch.columns().iter().map(compact).collect::<Result<_, _>>()?)
}

/// A reader of a part of a row group; `None` if no row is left.
async fn decode(
    segment: &SegmentHandle,
    footer: &Footer,
    part: Part<'_>,
) -> Result<Option<ParquetRecordBatchReader>, StorageError> {
    let (group, may_be_empty) = (part.group, part.series.is_some());
    let mut decoder = decoder(footer.arrow(), part).map_err(|e| segment.damaged(e))?;
    loop {
        match decoder.try_next_reader().map_err(|e| segment.damaged(e))? {
            DecodeResult::Data(reader) => return Ok(Some(reader)),
            DecodeResult::NeedsData(ranges) => {
                let bytes = segment.fetch_data(footer, &ranges).await?;
                decoder.push_ranges(ranges, bytes).map_err(|e| segment.damaged(e))?;
            }
            DecodeResult::Finished if may_be_empty => return Ok(None),
            DecodeResult::Finished => {
                return Err(segment.corrupt(0, format!("row group {group} is empty")));
            }
        }
    }
}

/// What to decode of a row group.
struct Part<'a> {
    group: usize,
    /// Positions of columns.
    columns: &'a [usize],
    /// Which rows, if not all.
    rows: Option<&'a RowRanges>,
    /// The series and times that are wanted, if not all.
    series: Option<&'a Arc<SeriesRanges>>,
}

fn rows_of(footer: &Footer, group: usize) -> usize {
    footer.parquet().row_group(group).num_rows() as usize
}

fn decoder(
    arrow: &ArrowReaderMetadata,
    part: Part<'_>,
) -> Result<ParquetPushDecoder, ParquetError> {
    let columns = part.columns.iter().copied();
    let mask = ProjectionMask::roots(arrow.parquet_schema(), columns);
    let total = arrow.metadata().row_group(part.group).num_rows() as usize;
    let mut builder = ParquetPushDecoderBuilder::new_with_metadata(arrow.clone())
        .with_row_groups(vec![part.group])
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS);
    if let Some(rows) = part.rows {
        builder = builder.with_row_selection(rows.selection(total));
    }
    if let Some(series) = part.series {
        builder = builder.with_row_filter(row_filter(arrow, series));
    }
    builder.build()
}

/// Decodes `time` and tags first, and of the other columns only the rows of the wanted series.
fn row_filter(arrow: &ArrowReaderMetadata, series: &Arc<SeriesRanges>) -> RowFilter {
    let tags = series.tags().iter().map(|tag| Field::new(&**tag, tag_data_type(), true));
    let time = Field::new(TIME_COLUMN, time_data_type(), false);
    let columns = Arc::new(Schema::new(std::iter::once(time).chain(tags).collect::<Vec<_>>()));
    let fields = arrow.schema().fields().iter().enumerate();
    let needed = fields.filter(|(_, field)| columns.column_with_name(field.name()).is_some());
    let mask = ProjectionMask::roots(arrow.parquet_schema(), needed.map(|(at, _)| at));
    let series = Arc::clone(series);
    let is_wanted = move |batch: RecordBatch| {
        let keys = with_columns(&batch, &columns)?;
        of_series(&keys, &series)
    };
    let is_wanted =
        move |batch| is_wanted(batch).map_err(|e| ArrowError::from_external_error(Box::new(e)));
    RowFilter::new(vec![Box::new(ArrowPredicateFn::new(mask, is_wanted))])
}
