//! A set of rows of one row group.

use std::ops::Range;

use parquet::arrow::arrow_reader::RowSelection;

/// Disjoint, ascending, non-empty ranges of row numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowRanges(Vec<Range<usize>>);

impl RowRanges {
    /// The first `rows` rows.
    pub(crate) fn first(rows: usize) -> Self {
        let mut ranges = RowRanges::default();
        ranges.push(0..rows);
        ranges
    }

    /// Adds rows after all rows so far.
    pub(crate) fn push(&mut self, rows: Range<usize>) {
        match self.0.last_mut() {
            _ if rows.is_empty() => {}
            Some(last) if last.end == rows.start => last.end = rows.end,
            _ => self.0.push(rows),
        }
    }

    /// Whether there are no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.0.iter().map(Range::len).sum()
    }

    /// The ranges, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<usize>> {
        self.0.iter().cloned()
    }

    /// The rows in both.
    pub(crate) fn intersect(&self, other: &RowRanges) -> RowRanges {
        let (mut own, mut others) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut common = RowRanges::default();
        while let (Some(a), Some(b)) = (own.peek(), others.peek()) {
            common.push(a.start.max(b.start)..a.end.min(b.end));
            if a.end <= b.end {
                own.next();
            } else {
                others.next();
            }
        }
        common
    }

    /// The same for Parquet, among `total` rows.
    pub(crate) fn selection(&self, total: usize) -> RowSelection {
        RowSelection::from_consecutive_ranges(self.0.iter().cloned(), total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_both_sets_remain() {
        let of = |ranges: &[Range<usize>]| {
            let mut set = RowRanges::default();
            ranges.iter().for_each(|range| set.push(range.clone()));
            set
        };
        let both = of(&[0..5, 7..9, 20..30]).intersect(&of(&[3..8, 22..23, 23..40]));
        assert_eq!(both, of(&[3..5, 7..8, 22..30]));
        assert_eq!(both.rows(), 11);
        assert_eq!(both.intersect(&of(&[5..7, 8..22])), RowRanges::default());
    }
}
