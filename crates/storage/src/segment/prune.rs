//! Which rows of a row group can be left unread, from the statistics in a segment's footer.

use std::collections::BTreeSet;

use highwater_core::schema::TIME_COLUMN;
use highwater_core::{TimeRange, TimeRanges, Timestamp};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;

use super::row_ranges::RowRanges;
use super::selection::Selection;

/// What has to be read of a row group.
#[derive(Debug, PartialEq)]
pub(crate) struct GroupPlan {
    /// The rows of the pages that are needed; `None` for all.
    pub(crate) rows: Option<RowRanges>,
    /// Whether these rows have to be filtered by time.
    pub(crate) filter_times: bool,
}

/// What has to be read of the row group numbered `group`; `None` if nothing.
pub(crate) fn plan_row_group(
    metadata: &ParquetMetaData,
    group: usize,
    selection: &Selection,
) -> Option<GroupPlan> {
    let chunk = Chunks { metadata, group };
    let times = chunk.times();
    if times.is_some_and(|bounds| !selection.times.overlaps(bounds)) {
        return None;
    }
    let filter_times = times.is_none_or(|bounds| !selection.times.covers(bounds));
    for (tag, values) in selection.tags.iter() {
        if !chunk.may_hold(chunk.position(tag)?, values) {
            return None;
        }
    }

    let mut needed = RowRanges::first(chunk.rows());
    if let Some(time) = chunk.position(TIME_COLUMN).filter(|_| filter_times) {
        needed = needed.intersect(&chunk.pages_at(time, &selection.times));
    }
    for (tag, values) in selection.tags.iter() {
        needed = needed.intersect(&chunk.pages_with(chunk.position(tag)?, values));
    }
    let is_all = needed.rows() == chunk.rows();
    let is_empty = needed.is_empty();
    let rows = (!is_all).then_some(needed);
    (!is_empty).then_some(GroupPlan { rows, filter_times })
}

/// The columns of one row group.
struct Chunks<'a> {
    metadata: &'a ParquetMetaData,
    group: usize,
}

impl Chunks<'_> {
    fn rows(&self) -> usize {
        self.metadata.row_group(self.group).num_rows() as usize
    }

    fn position(&self, column: &str) -> Option<usize> {
        let columns = self.metadata.file_metadata().schema_descr().columns();
        columns.iter().position(|own| own.name() == column)
    }

    fn statistics(&self, column: usize) -> Option<&Statistics> {
        self.metadata.row_group(self.group).column(column).statistics()
    }

    fn times(&self) -> Option<TimeRange> {
        match self.statistics(self.position(TIME_COLUMN)?)? {
            Statistics::Int64(times) => Some(closed(*times.min_opt()?, *times.max_opt()?)),
            _ => None,
        }
    }

    fn may_hold(&self, tag: usize, values: &BTreeSet<String>) -> bool {
        let Some(statistics) = self.statistics(tag) else { return true };
        match (statistics.min_bytes_opt(), statistics.max_bytes_opt()) {
            (Some(min), Some(max)) => any_within(values, min, max),
            _ => statistics.null_count_opt() != Some(self.rows() as u64),
        }
    }

    /// Rows of the pages that may have a time in `times`.
    fn pages_at(&self, time: usize, times: &TimeRanges) -> RowRanges {
        self.pages(time, |index, page| match index {
            ColumnIndexMetaData::INT64(index) => {
                let bounds = index.min_value(page).zip(index.max_value(page));
                bounds.is_none_or(|(min, max)| times.overlaps(closed(*min, *max)))
            }
            _ => true,
        })
    }

    /// Rows of the pages that may have one of the values of a tag.
    fn pages_with(&self, tag: usize, values: &BTreeSet<String>) -> RowRanges {
        self.pages(tag, |index, page| match index {
            ColumnIndexMetaData::BYTE_ARRAY(index) => {
                match index.min_value(page).zip(index.max_value(page)) {
                    Some((min, max)) => any_within(values, min, max),
                    None => !index.is_null_page(page),
                }
            }
            _ => true,
        })
    }

    /// Rows of the pages of a column that `is_needed`.
    fn pages(
        &self,
        column: usize,
        is_needed: impl Fn(&ColumnIndexMetaData, usize) -> bool,
    ) -> RowRanges {
        let indexes = self.metadata.column_index().zip(self.metadata.offset_index());
        let Some((bounds, offsets)) = indexes else { return RowRanges::first(self.rows()) };
        let bounds = &bounds[self.group][column];
        let pages = offsets[self.group][column].page_locations();
        let mut needed = RowRanges::default();
        for at in (0..pages.len()).filter(|at| is_needed(bounds, *at)) {
            let end = pages.get(at + 1).map_or(self.rows(), |next| next.first_row_index as usize);
            needed.push(pages[at].first_row_index as usize..end);
        }
        needed
    }
}

fn closed(min: i64, max: i64) -> TimeRange {
    TimeRange::new(Timestamp::from_nanos(min), Timestamp::from_nanos(max).saturating_add(1))
}

/// Whether one of the values is neither below `min` nor above `max`.
fn any_within(values: &BTreeSet<String>, min: &[u8], max: &[u8]) -> bool {
    values.iter().any(|value| min <= value.as_bytes() && value.as_bytes() <= max)
}
