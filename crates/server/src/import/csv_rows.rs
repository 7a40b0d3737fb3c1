//! CSV files with a header row.

use std::io::Read;

use anyhow::Context;
use csv::ByteRecord;
use highwater_core::Timestamp;

use super::batch::{Batch, BatchSize, RefusedPoint, Source};
use super::cell_type::CellType;
use super::columns::{ColumnChoice, Role};
use super::points::{Key, PointLines};
use crate::line_protocol::Precision;

/// Rows from which the types of columns are decided.
const SAMPLE_ROWS: usize = 1_000;
/// An unclosed quote would swallow the rest of the file.
const MAX_ROW_BYTES: u64 = 32 << 20;

/// A CSV file.
pub(super) struct CsvRows {
    reader: csv::Reader<Allowance>,
    /// The first rows, until they are handed out; in reverse.
    sample: Vec<ByteRecord>,
    meaning: Meaning,
    points: PointLines,
    size: BatchSize,
    /// Rows before the next one.
    rows: u64,
    /// Rows that were sent earlier.
    skipped: u64,
}

/// How to read a CSV file.
#[derive(Clone, Debug)]
pub(super) struct CsvReading<'a> {
    pub(super) measurement: &'a str,
    pub(super) choice: &'a ColumnChoice,
    pub(super) precision: Precision,
    /// A text that means the same as an empty cell.
    pub(super) null: Option<&'a str>,
    pub(super) size: BatchSize,
}

impl CsvRows {
    /// The rows of `text` after the first `skipped` ones.
    ///
    /// # Errors
    /// There is no header, or it does not have the columns that were chosen.
    pub(super) fn new(
        text: Box<dyn Read>,
        reading: &CsvReading<'_>,
        skipped: u64,
    ) -> anyhow::Result<Self> {
        let text = Allowance { text, left: MAX_ROW_BYTES };
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text);
        let header = reader.headers().context("could not read the header row")?;
        let names: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        let mut rows = CsvRows {
            reader,
            sample: Vec::new(),
            meaning: Meaning::of(&names, reading)?,
            points: PointLines::new(reading.measurement)?,
            size: reading.size,
            rows: 0,
            skipped,
        };
        while rows.sample.len() < SAMPLE_ROWS
            && let Some(row) = rows.read_row()?
        {
            rows.sample.push(row);
        }
        rows.meaning.decide_all(&rows.sample);
        rows.sample.reverse();
        Ok(rows)
    }

    fn read_row(&mut self) -> anyhow::Result<Option<ByteRecord>> {
        self.reader.get_mut().left = MAX_ROW_BYTES;
        let mut row = ByteRecord::new();
        let line = self.reader.position().line();
        let is_row = self
            .reader
            .read_byte_record(&mut row)
            .with_context(|| format!("could not read on at line {line}"))?;
        Ok(is_row.then_some(row))
    }

    fn next_row(&mut self) -> anyhow::Result<Option<ByteRecord>> {
        let row = self.sample.pop();
        let row = if row.is_some() { row } else { self.read_row()? };
        self.rows += u64::from(row.is_some());
        Ok(row)
    }
}

impl Source for CsvRows {
    fn next(&mut self) -> anyhow::Result<Option<Batch>> {
        let mut refused = Vec::new();
        while self.points.len() + refused.len() < self.size.lines
            && self.points.bytes() < self.size.bytes
        {
            let Some(row) = self.next_row()? else { break };
            self.meaning.decide(&row);
            if self.rows <= self.skipped {
                continue;
            }
            let place = row.position().map_or(0, csv::Position::line);
            if let Err(reason) = self.meaning.add(&row, place, &mut self.points) {
                refused.push(RefusedPoint { place, reason });
            }
        }
        if self.points.len() + refused.len() == 0 {
            return Ok(None);
        }
        let (body, points, places) = self.points.take();
        Ok(Some(Batch { body, points, end: self.rows, places, refused }))
    }
}

/// What the cells of a row mean.
struct Meaning {
    /// Tags, then fields.
    columns: Vec<Column>,
    /// Position of the time.
    time: usize,
    /// How many cells a row has.
    cells: usize,
    precision: Precision,
    null: Option<String>,
}

struct Column {
    at: usize,
    key: Key,
    is_tag: bool,
    /// Of a field; decided by its first value where the sample has none.
    cell_type: Option<CellType>,
}

impl Meaning {
    fn of(names: &[String], reading: &CsvReading<'_>) -> anyhow::Result<Self> {
        let roles = reading.choice.roles(names, &[])?;
        let mut columns = Vec::new();
        for wanted in [Role::Tag, Role::Field] {
            for (at, name) in names.iter().enumerate().filter(|(at, _)| roles[*at] == wanted) {
                let is_tag = wanted == Role::Tag;
                columns.push(Column { at, key: Key::new(name)?, is_tag, cell_type: None });
            }
        }
        let time =
            roles.iter().position(|role| *role == Role::Time).context("no column of times")?;
        let null = reading.null.map(str::to_owned);
        Ok(Meaning { columns, time, cells: names.len(), precision: reading.precision, null })
    }

    fn decide_all(&mut self, sample: &[ByteRecord]) {
        for at in 0..self.columns.len() {
            let column = self.columns[at].at;
            let cells = sample.iter().filter_map(|row| self.cell(row, column).ok()?);
            self.columns[at].cell_type = CellType::of(cells);
        }
    }

    /// Columns without a value in the sample have the type of their first value.
    fn decide(&mut self, row: &ByteRecord) {
        for at in 0..self.columns.len() {
            if self.columns[at].cell_type.is_none() {
                let cell = self.cell(row, self.columns[at].at).ok().flatten();
                self.columns[at].cell_type = CellType::of(cell.into_iter());
            }
        }
    }

    /// The text of a cell; none if it is empty.
    fn cell<'a>(&self, row: &'a ByteRecord, at: usize) -> Result<Option<&'a str>, String> {
        let cell = row.get(at).unwrap_or_default();
        let cell = std::str::from_utf8(cell)
            .map_err(|_| format!("cell {} of the row is not UTF-8", at + 1))?;
        Ok(Some(cell).filter(|cell| !cell.is_empty() && self.null.as_deref() != Some(cell)))
    }

    /// Makes a point of a row.
    fn add(&self, row: &ByteRecord, line: u64, points: &mut PointLines) -> Result<(), String> {
        if row.len() != self.cells {
            return Err(format!("the row has {} cells, the header has {}", row.len(), self.cells));
        }
        let time = self.time(row)?;
        points.begin();
        for column in &self.columns {
            let Some(cell) = self.cell(row, column.at)? else { continue };
            match column.cell_type {
                _ if column.is_tag => points.tag(&column.key, cell)?,
                None => {}
                Some(cell_type) => {
                    let value = cell_type.read(cell).ok_or_else(|| {
                        let name = &column.key.name;
                        format!("{name} is {cell_type} by its first values, and {cell:?} is not")
                    })?;
                    points.field(&column.key, value)?;
                }
            }
        }
        points.end(time, line)
    }

    fn time(&self, row: &ByteRecord) -> Result<i64, String> {
        let text = self.cell(row, self.time)?.ok_or("the row has no time")?.trim();
        match text.parse::<i64>() {
            Ok(ticks) => self
                .precision
                .to_nanos(ticks)
                .ok_or_else(|| format!("the time {text} is outside 1678-01-01 to 2262-01-01")),
            Err(_) => Timestamp::parse(text).map(Timestamp::as_nanos),
        }
    }
}

/// A text of which only so much may be read for one row.
struct Allowance {
    text: Box<dyn Read>,
    left: u64,
}

impl Read for Allowance {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let message =
                format!("a row is longer than {MAX_ROW_BYTES} bytes; is a quote not closed?");
            return Err(std::io::Error::other(message));
        }
        let read = self.text.read(buffer)?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn read(text: &str, tags: &[&str], skipped: u64) -> (String, Vec<(u64, String)>, u64) {
        let tags = Some(tags.iter().map(|tag| (*tag).to_owned()).collect());
        let choice = ColumnChoice { time: "time".to_owned(), tags, fields: None };
        let reading = CsvReading {
            measurement: "m",
            choice: &choice,
            precision: Precision::Second,
            null: Some("NA"),
            size: BatchSize { lines: 2, bytes: 1 << 20 },
        };
        let text = Box::new(Cursor::new(text.to_owned()));
        let mut rows = CsvRows::new(text, &reading, skipped).unwrap();
        let (mut lines, mut refused, mut end) = (String::new(), Vec::new(), 0);
        while let Some(batch) = rows.next().unwrap() {
            lines.push_str(std::str::from_utf8(&batch.body).unwrap());
            refused.extend(batch.refused.into_iter().map(|r| (r.place, r.reason)));
            end = batch.end;
        }
        (lines, refused, end)
    }

    #[test]
    fn cells_have_the_types_of_their_columns() {
        let text = "\u{feff}time,host,n,x,ok,note\n\
            1,a,1,1,true,\"two\nlines\"\n\
            1970-01-01T00:00:02Z,,-2,2.5,FALSE,7\n\
            3,\"b c\",,NA,,\n\
            4,d,,1e3,,";
        let (lines, refused, end) = read(text, &["host"], 0);
        assert_eq!(
            lines,
            "m,host=a n=1i,x=1.0,ok=true,note=\"two\nlines\" 1000000000\n\
             m n=-2i,x=2.5,ok=false,note=\"7\" 2000000000\n\
             m,host=d x=1000.0 4000000000\n"
        );
        assert_eq!((refused, end), (vec![(5, "no field has a value".to_owned())], 4));
    }

    #[test]
    fn rows_that_do_not_fit_are_refused_with_their_line() {
        let fit = "time,n,late\n".to_owned() + &"1,1,\n".repeat(SAMPLE_ROWS);
        let text = fit + "2,1.5,\n3,2,x\n\"4\",3,\"y\"\n5,4\nnoon,5,\n,6,\n7,7,NA\n";
        let (lines, refused, end) = read(&text, &[], SAMPLE_ROWS as u64);
        assert_eq!(
            lines,
            "m n=2i,late=\"x\" 3000000000\nm n=3i,late=\"y\" 4000000000\nm n=7i 7000000000\n"
        );
        let refused: Vec<String> =
            refused.iter().map(|(line, reason)| format!("{line}: {reason}")).collect();
        assert_eq!(
            refused,
            [
                "1002: n is integer by its first values, and \"1.5\" is not",
                "1005: the row has 2 cells, the header has 3",
                "1006: cannot read \"noon\" as a time; write it like 2024-01-31T13:00:00Z",
                "1007: the row has no time",
            ]
        );
        assert_eq!(end, SAMPLE_ROWS as u64 + 7);
    }

    #[test]
    fn a_quote_that_is_never_closed_ends_the_reading() {
        let text = format!("time,n\n1,\"{}", "x".repeat(2 * MAX_ROW_BYTES as usize));
        let choice = ColumnChoice { time: "time".to_owned(), tags: None, fields: None };
        let reading = CsvReading {
            measurement: "m",
            choice: &choice,
            precision: Precision::Second,
            null: None,
            size: BatchSize { lines: 2, bytes: 1 << 20 },
        };
        let error = CsvRows::new(Box::new(Cursor::new(text)), &reading, 0).err().unwrap();
        assert!(format!("{error:#}").contains("is a quote not closed?"), "{error:#}");
    }
}
