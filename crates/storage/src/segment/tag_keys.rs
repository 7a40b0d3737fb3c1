//! Tags of rows as bytes that sort like the rows do.
//!
//! Rows are ordered by their tags in the order of the schema, NULL first, each compared byte by
//! byte. The key of a row has that order as a plain byte string:
//!
//! ```text
//! NULL     00
//! "a\0b"   01  61 00 FF 62  00 01
//!              value, 00 escaped    end
//! ```
//!
//! A tag that is added to the schema later only appends to the key.

use std::ops::Range;

use arrow::array::{Array, AsArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use hashbrown::HashMap;
use highwater_core::Schema;

use crate::error::StorageError;

/// The tag columns of a batch.
#[derive(Clone, Debug)]
pub(crate) struct TagColumns(Vec<TagColumn>);

/// One tag column: per row a position among `values`.
#[derive(Clone, Debug)]
pub(crate) struct TagColumn {
    keys: Int32Array,
    values: StringArray,
}

impl TagColumns {
    /// The columns of `schema`'s tags in `batch`, in the order of the schema.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if one is missing or is no dictionary of strings.
    pub(crate) fn of(schema: &Schema, batch: &RecordBatch) -> Result<Self, StorageError> {
        TagColumns::of_names(schema.tags().iter().map(|tag| &**tag), batch)
    }

    /// The columns of these tags, in this order.
    ///
    /// # Errors
    /// As [`TagColumns::of`].
    pub(crate) fn of_names<'a>(
        names: impl IntoIterator<Item = &'a str>,
        batch: &RecordBatch,
    ) -> Result<Self, StorageError> {
        let columns = names.into_iter().map(|tag| TagColumn::of(tag, batch));
        Ok(TagColumns(columns.collect::<Result<_, _>>()?))
    }

    /// The columns, in the order of the schema.
    pub(crate) fn columns(&self) -> &[TagColumn] {
        &self.0
    }

    /// Cuts `rows` rows into runs of equal tags. Neighbouring runs may have equal tags too, if a
    /// dictionary holds a value twice.
    pub(crate) fn runs(&self, rows: usize) -> Vec<Range<usize>> {
        let mut starts_run = vec![false; rows];
        if let Some(first) = starts_run.first_mut() {
            *first = true;
        }
        for column in &self.0 {
            column.mark_changes(&mut starts_run);
        }
        let starts = starts_run.iter().enumerate().filter(|(_, starts)| **starts).map(|(i, _)| i);
        let mut runs: Vec<Range<usize>> = starts.map(|start| start..rows).collect();
        for i in 1..runs.len() {
            runs[i - 1].end = runs[i].start;
        }
        runs
    }

    /// Appends the key of a row to `key`.
    pub(crate) fn append_key(&self, row: usize, key: &mut Vec<u8>) {
        for column in &self.0 {
            append_value(column.value(row), key);
        }
    }

    /// Per row: the rank of its tags among all tags of these rows.
    pub(crate) fn ranks(&self, rows: usize) -> Vec<u32> {
        let mut rank_of_id: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut ids = Vec::with_capacity(rows);
        let mut key = Vec::new();
        for run in self.runs(rows) {
            key.clear();
            self.append_key(run.start, &mut key);
            let next = rank_of_id.len() as u32;
            let id = *rank_of_id.entry_ref(key.as_slice()).or_insert(next);
            ids.resize(run.end, id);
        }
        let mut by_key: Vec<(Vec<u8>, u32)> = rank_of_id.into_iter().collect();
        by_key.sort_unstable();
        let mut ranks = vec![0_u32; by_key.len()];
        for (rank, (_, id)) in by_key.into_iter().enumerate() {
            ranks[id as usize] = rank as u32;
        }
        ids.iter_mut().for_each(|id| *id = ranks[*id as usize]);
        ids
    }
}

impl TagColumn {
    /// The column of the tag called `tag`.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if it is missing or is no dictionary of strings.
    pub(crate) fn of(tag: &str, batch: &RecordBatch) -> Result<Self, StorageError> {
        let parts = || {
            let column = batch.column_by_name(tag)?.as_dictionary_opt::<Int32Type>()?;
            let values = column.values().as_string_opt::<i32>()?;
            Some(TagColumn { keys: column.keys().clone(), values: values.clone() })
        };
        parts().ok_or_else(|| StorageError::Invalid(format!("there is no tag column {tag}")))
    }

    /// Value of a row, NULL if it lacks the tag.
    pub(crate) fn value(&self, row: usize) -> Option<&str> {
        let at = self.key(row)?;
        Some(self.values.value(at))
    }

    /// Position of a row's value among [`TagColumn::values`], `None` for NULL.
    pub(crate) fn key(&self, row: usize) -> Option<usize> {
        let at = self.keys.is_valid(row).then(|| self.keys.value(row) as usize)?;
        self.values.is_valid(at).then_some(at)
    }

    /// The values that keys refer to; some may be in use by no row.
    pub(crate) fn values(&self) -> &StringArray {
        &self.values
    }

    fn mark_changes(&self, starts_run: &mut [bool]) {
        let rows = starts_run.len();
        if self.keys.null_count() == 0 {
            let keys = &self.keys.values()[..rows];
            for ((starts, a), b) in
                starts_run.iter_mut().skip(1).zip(keys).zip(&keys[1.min(rows)..])
            {
                *starts |= a != b;
            }
        } else if self.keys.null_count() < rows {
            for (row, starts) in starts_run.iter_mut().enumerate().skip(1) {
                *starts |= self.key(row) != self.key(row - 1);
            }
        }
    }
}

/// Appends one tag's value to a key.
pub(crate) fn append_value(value: Option<&str>, key: &mut Vec<u8>) {
    let Some(value) = value else {
        key.push(0);
        return;
    };
    key.push(1);
    for (i, part) in value.as_bytes().split(|byte| *byte == 0).enumerate() {
        if i > 0 {
            key.extend_from_slice(&[0, 0xFF]);
        }
        key.extend_from_slice(part);
    }
    key.extend_from_slice(&[0, 1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_like_tags() {
        let values = [
            None,
            Some(""),
            Some("\0"),
            Some("\0\0"),
            Some("a"),
            Some("a\0"),
            Some("a\u{1}"),
            Some("aa"),
        ];
        let keys = values.map(|value| {
            let mut key = Vec::new();
            append_value(value, &mut key);
            append_value(Some("z"), &mut key);
            key
        });
        assert!(keys.is_sorted(), "{keys:?}");
        let longer = keys.clone().map(|key| [key, vec![0]].concat());
        assert!(longer.windows(2).all(|two| two[0] < two[1]));
    }
}
