//! The points of one measurement in one request, while its lines are read.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{FieldType, PointBatch, Schema};

use super::column::{Column, LineContext};
use super::refusal::Refusal;
use super::tags::{self, KnownTags, TagSets, check_name};
use super::text;
use super::value::Value;
use super::{Limits, Options};

/// Points of a measurement: whole lines, and possibly the beginning of one more.
///
/// A line adds its tag set ([`Measurement::tag_set`]), then its fields
/// ([`Measurement::read_fields`]), and becomes a point with [`Measurement::commit`]; a refused
/// one is taken back with [`Measurement::undo`].
#[derive(Debug)]
pub(super) struct Measurement {
    pub(super) name: Arc<str>,
    schema: Option<Arc<Schema>>,
    hasher: DefaultHashBuilder,
    known_tags: KnownTags,
    tag_sets: TagSets,
    /// Number of columns that are not in the stored schema.
    new_fields: usize,
    columns: Vec<Column>,
    column_by_name: HashTable<u32>,
    /// Columns of the fields of the latest line, in the order it had them.
    order: Vec<u32>,
    tag_set_of_row: Vec<u32>,
    times: Vec<i64>,
    lines: Vec<u32>,
    unfinished: Unfinished,
    /// Number of tag sets that points have.
    tag_sets_before: usize,
}

/// What the current line has added so far.
#[derive(Debug, Default)]
struct Unfinished {
    fields: usize,
    columns: usize,
    tags: Vec<Arc<str>>,
}

impl Measurement {
    pub(super) fn new(
        name: Arc<str>,
        schema: Option<Arc<Schema>>,
        hasher: DefaultHashBuilder,
    ) -> Self {
        Measurement {
            name,
            schema,
            known_tags: KnownTags::new(hasher.clone()),
            tag_sets: TagSets::new(hasher.clone()),
            hasher,
            new_fields: 0,
            columns: Vec::new(),
            column_by_name: HashTable::new(),
            order: Vec::new(),
            tag_set_of_row: Vec::new(),
            times: Vec::new(),
            lines: Vec::new(),
            unfinished: Unfinished::default(),
            tag_sets_before: 0,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.times.len()
    }

    /// Position in the batch of the tag set that stands after the measurement in `head`.
    ///
    /// Names are spelled in one way only, save that of a measurement: in it, `\=` is as good as `=`.
    pub(super) fn tag_set(
        &mut self,
        written_name: &str,
        tags: Option<&str>,
        limits: &Limits,
    ) -> Result<u32, Refusal> {
        if written_name.contains("\\=") {
            self.tag_sets.index();
        }
        if let Some(alike) = tags.and_then(|tags| self.tag_sets.add_alike(tags, limits)) {
            return Ok(alike);
        }
        let tags = tags.map_or(Ok(Vec::new()), |tags| tags::split(tags, limits))?;
        for tag in &tags {
            self.admit_tag(&tag.key, limits)?;
        }
        self.tag_sets.add(&tags)
    }

    fn admit_tag(&mut self, key: &str, limits: &Limits) -> Result<(), Refusal> {
        if self.known_tags.contains(key) {
            return Ok(());
        }
        if self.find_column(key).is_some() || self.stored_field(key).is_some() {
            let (name, measurement) = (key.to_owned(), self.name.to_string());
            return Err(Refusal::FieldAsTag { name, measurement });
        }
        let is_stored = self.is_stored_tag(key);
        let stored = self.schema.as_ref().map_or(0, |schema| schema.tags().len());
        if !is_stored && stored + self.known_tags.new >= limits.tags {
            let measurement = self.name.to_string();
            return Err(Refusal::ManyTags { measurement, limit: limits.tags });
        }
        let key: Arc<str> = key.into();
        self.known_tags.insert(Arc::clone(&key), is_stored);
        self.unfinished.tags.push(key);
        Ok(())
    }

    fn is_stored_tag(&self, key: &str) -> bool {
        self.schema.as_ref().is_some_and(|schema| schema.tag_position(key).is_some())
    }

    fn stored_field(&self, name: &str) -> Option<FieldType> {
        self.schema.as_ref()?.field_type(name)
    }

    /// Reads the fields at `at` into the next row and returns the position after them and the
    /// number of newlines inside their strings.
    pub(super) fn read_fields(
        &mut self,
        body: &[u8],
        mut at: usize,
        options: &Options<'_>,
    ) -> Result<(usize, u32), Refusal> {
        let row = self.rows();
        let name = Arc::clone(&self.name);
        let mut line = LineContext { options, measurement: &name, newlines: 0 };
        loop {
            let (column, value_at) = match self.guess_column(body, at) {
                Some(found) => found,
                None => self.find_or_add_column(body, at, options.limits)?,
            };
            self.unfinished.fields += 1;
            at = self.columns[column].read(body, value_at, row, &mut line)?;
            if body.get(at) != Some(&b',') {
                return Ok((at, line.newlines));
            }
            at += 1;
        }
    }

    /// The column at this place of the latest line or the one after the previous field's, if its
    /// key stands at `at`, and the position of the value.
    #[inline]
    fn guess_column(&mut self, body: &[u8], at: usize) -> Option<(usize, usize)> {
        let nth = self.unfinished.fields;
        let column = *self.order.get(nth)? as usize;
        if let Some(value_at) = self.columns.get(column)?.value_at(body, at) {
            return Some((column, value_at));
        }
        let column = column + 1;
        let value_at = self.columns.get(column)?.value_at(body, at)?;
        self.order[nth] = column as u32;
        Some((column, value_at))
    }

    fn find_or_add_column(
        &mut self,
        body: &[u8],
        at: usize,
        limits: &Limits,
    ) -> Result<(usize, usize), Refusal> {
        let key = field_key(body, at)?;
        let value_at = at + key.len();
        let written = std::str::from_utf8(&key[..key.len() - 1]).map_err(|_| Refusal::NotUtf8)?;
        let name = text::unescape(written);
        let column = match self.find_column(&name) {
            Some(column) => column,
            None => self.add_column(&name, key, Value::read(body, value_at, &name)?.0, limits)?,
        };
        let nth = self.unfinished.fields;
        self.order.resize(self.order.len().max(nth + 1), 0);
        self.order[nth] = column as u32;
        Ok((column, value_at))
    }

    fn find_column(&self, name: &str) -> Option<usize> {
        let is_it = |&at: &u32| *self.columns[at as usize].name == *name;
        self.column_by_name.find(self.hasher.hash_one(name), is_it).map(|&at| at as usize)
    }

    fn add_column(
        &mut self,
        name: &str,
        key: &[u8],
        first: Value<'_>,
        limits: &Limits,
    ) -> Result<usize, Refusal> {
        check_name(name, "field", limits)?;
        if name == TIME_COLUMN {
            return Err(Refusal::NamedTime("field"));
        }
        if self.known_tags.contains(name) || self.is_stored_tag(name) {
            let (name, measurement) = (name.to_owned(), self.name.to_string());
            return Err(Refusal::TagAsField { name, measurement });
        }
        let field_type = self.type_of_new_field(name, first.field_type(), limits)?;
        let name: Arc<str> = name.into();
        let hash = self.hasher.hash_one(&*name);
        let at = self.columns.len();
        let column = Column::new(name, key, field_type).ok_or_else(|| Refusal::FieldType {
            field: String::from_utf8_lossy(key).into_owned(),
            measurement: self.name.to_string(),
            stored: field_type,
            written: first.field_type(),
        })?;
        self.columns.push(column);
        self.unfinished.columns += 1;
        let (columns, hasher) = (&self.columns, &self.hasher);
        let hash_of = |&at: &u32| hasher.hash_one(&*columns[at as usize].name);
        self.column_by_name.insert_unique(hash, at as u32, hash_of);
        Ok(at)
    }

    /// The stored type if there is one, else that of the value; counts new fields.
    fn type_of_new_field(
        &mut self,
        name: &str,
        written: FieldType,
        limits: &Limits,
    ) -> Result<FieldType, Refusal> {
        let Some(stored) = self.stored_field(name) else {
            let stored = self.schema.as_ref().map_or(0, |schema| schema.fields().len());
            if stored + self.new_fields >= limits.fields {
                let measurement = self.name.to_string();
                return Err(Refusal::ManyFields { measurement, limit: limits.fields });
            }
            self.new_fields += 1;
            return Ok(written);
        };
        let fits =
            stored == written || (stored, written) == (FieldType::Timestamp, FieldType::Integer);
        if fits {
            return Ok(stored);
        }
        let (field, measurement) = (name.to_owned(), self.name.to_string());
        Err(Refusal::FieldType { field, measurement, stored, written })
    }

    /// How many missing fields the batch will have more once the current line is a point.
    #[inline]
    pub(super) fn missing_fields(&self) -> usize {
        let before = self.unfinished.columns * self.rows();
        before + self.columns.len() - self.unfinished.fields
    }

    /// Makes a point of the current line.
    #[inline]
    pub(super) fn commit(&mut self, tag_set: u32, time: i64, line: u32) {
        self.tag_set_of_row.push(tag_set);
        self.times.push(time);
        self.lines.push(line);
        self.unfinished.fields = 0;
        self.unfinished.columns = 0;
        self.tag_sets_before = self.tag_sets.len();
        if !self.unfinished.tags.is_empty() {
            self.unfinished.tags.clear();
        }
    }

    /// Forgets the current line.
    pub(super) fn undo(&mut self) {
        let row = self.rows();
        let Unfinished { fields, columns, tags } = std::mem::take(&mut self.unfinished);
        for &column in &self.order[..fields.min(self.order.len())] {
            self.columns[column as usize].undo(row);
        }
        for _ in 0..columns {
            self.remove_last_column();
        }
        self.tag_sets.truncate(self.tag_sets_before);
        if !tags.is_empty() {
            self.tag_sets.forget_layout();
        }
        for tag in tags {
            self.known_tags.remove(&tag, self.is_stored_tag(&tag));
        }
    }

    fn remove_last_column(&mut self) {
        let Some(column) = self.columns.pop() else { return };
        let at = self.columns.len() as u32;
        self.new_fields -= usize::from(self.stored_field(&column.name).is_none());
        let hash = self.hasher.hash_one(&*column.name);
        if let Ok(found) = self.column_by_name.find_entry(hash, |&own| own == at) {
            found.remove();
        }
    }

    /// Makes room for `rows` rows in all.
    pub(super) fn expect_rows(&mut self, rows: usize) {
        let so_far = self.rows();
        let more = rows.saturating_sub(so_far);
        self.tag_set_of_row.reserve_exact(more);
        self.times.reserve_exact(more);
        self.lines.reserve_exact(more);
        for column in &mut self.columns {
            column.expect_rows(so_far, rows);
        }
    }

    /// The points; `None` if every line was refused.
    pub(super) fn finish(self) -> Option<PointBatch> {
        let rows = self.rows();
        (rows > 0).then(|| PointBatch {
            measurement: self.name,
            tag_sets: self.tag_sets.into_vec(),
            tag_set_of_row: self.tag_set_of_row,
            times: self.times,
            fields: self.columns.into_iter().map(|column| column.finish(rows)).collect(),
            lines: self.lines,
        })
    }
}

/// The key at `at` with the equals sign after it.
fn field_key(body: &[u8], at: usize) -> Result<&[u8], Refusal> {
    let rest = &body[at..];
    let ends = |(i, b): (usize, &u8)| match b {
        b'=' | b',' | b' ' => !text::is_escaped(rest, i),
        b'\n' => true,
        _ => false,
    };
    match rest.iter().enumerate().position(ends) {
        Some(0) => Err(Refusal::NoFieldKey),
        Some(end) if rest[end] == b'=' => Ok(&rest[..=end]),
        end => {
            let key = &rest[..end.unwrap_or(rest.len())];
            Err(match text::excerpt(key, 64).trim_end_matches('\r') {
                "" => Refusal::NoFieldKey,
                key => Refusal::NoFieldValue(key.to_owned()),
            })
        }
    }
}
