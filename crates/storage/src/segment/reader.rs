//! Reading a segment: only the row groups, pages and columns that are needed.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
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

use super::prune::{GroupPlan, plan_row_group};
use super::selection::{Selection, at_times, of_series, with_columns};
use super::store::{Footer, SegmentHandle};
use crate::error::StorageError;

/// Rows per batch.
pub(crate) const BATCH_ROWS: usize = 8 * 1024;

/// Reads the selected rows of some row groups of a segment.
///
/// Columns of a batch: those of the selection. Sorted by `(tags, time)`.
pub(crate) struct SegmentReader {
    segment: Arc<SegmentHandle>,
    selection: Arc<Selection>,
    row_groups: Range<usize>,
    current: Option<(ParquetRecordBatchReader, GroupPlan)>,
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
            while let Some((reader, plan)) = &mut self.current {
                let Some(batch) = reader.next() else {
                    self.current = None;
                    break;
                };
                let mut batch = batch.map_err(|e| self.segment.damaged(ParquetError::from(e)))?;
                if plan.filter_times {
                    batch = at_times(batch, &self.selection.times)?;
                }
                if batch.num_rows() > 0 {
                    return Ok(Some(with_columns(&batch, &self.selection.columns)?));
                }
            }
            let footer = self.segment.footer().await?;
            self.row_groups.end = self.row_groups.end.min(footer.row_groups());
            let Some(group) = self.row_groups.next() else { return Ok(None) };
            if let Some(plan) = plan_row_group(footer.parquet(), group, &self.selection) {
                let reader = self.open(&footer, group, &plan).await?;
                self.current = reader.map(|reader| (reader, plan));
            }
        }
    }

    async fn open(
        &mut self,
        footer: &Footer,
        group: usize,
        plan: &GroupPlan,
    ) -> Result<Option<ParquetRecordBatchReader>, StorageError> {
        let mut decoder = self.decoder(footer, group, plan).map_err(|e| self.segment.damaged(e))?;
        loop {
            match decoder.try_next_reader().map_err(|e| self.segment.damaged(e))? {
                DecodeResult::Data(reader) => return Ok(Some(reader)),
                DecodeResult::NeedsData(ranges) => {
                    let bytes = self.segment.fetch_data(footer, &ranges).await?;
                    decoder.push_ranges(ranges, bytes).map_err(|e| self.segment.damaged(e))?;
                }
                DecodeResult::Finished if self.selection.series.is_some() => return Ok(None),
                DecodeResult::Finished => {
                    return Err(self.segment.corrupt(0, format!("row group {group} is empty")));
                }
            }
        }
    }

    fn decoder(
        &self,
        footer: &Footer,
        group: usize,
        plan: &GroupPlan,
    ) -> Result<ParquetPushDecoder, ParquetError> {
        let arrow: &ArrowReaderMetadata = footer.arrow();
        let fields = arrow.schema().fields();
        let is_needed = |name: &str| {
            (plan.filter_times && name == TIME_COLUMN)
                || self.selection.columns.column_with_name(name).is_some()
        };
        let needed = (0..fields.len()).filter(|at| is_needed(fields[*at].name()));
        let mask = ProjectionMask::roots(arrow.parquet_schema(), needed);
        let mut builder = ParquetPushDecoderBuilder::new_with_metadata(arrow.clone())
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS);
        if let Some(rows) = &plan.rows {
            builder = builder.with_row_selection(rows.clone());
        }
        if let Some(series) = &self.selection.series {
            builder = builder.with_row_filter(row_filter(arrow, series));
        }
        builder.build()
    }
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
