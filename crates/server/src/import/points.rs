//! Points as line protocol.

use std::io::Write;

use anyhow::ensure;
use highwater_core::schema::TIME_COLUMN;

use super::batch::Places;

/// A name of a tag or field, and how line protocol writes it.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: String,
    /// With its escapes and the equals sign.
    written: Vec<u8>,
}

impl Key {
    /// # Errors
    /// Line protocol cannot say this name.
    pub(super) fn new(name: &str) -> anyhow::Result<Self> {
        check_name(name)?;
        ensure!(
            name != TIME_COLUMN,
            "column time is the time of the points; choose the tags and fields by --tags and --fields"
        );
        let mut written = Vec::new();
        push_escaped(name, &mut written);
        written.push(b'=');
        Ok(Key { name: name.to_owned(), written })
    }
}

/// A value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Boolean(bool),
    String(&'a str),
}

/// Points of one measurement, one after another. A point is begun, gets its tags, then its fields,
/// and is ended; what was begun and not ended is gone with the next one.
#[derive(Debug)]
pub(super) struct PointLines {
    measurement: Vec<u8>,
    body: Vec<u8>,
    points: Vec<(u32, u64)>,
    /// Where the points that are ended end.
    whole: usize,
    /// Lines of the body that they take.
    lines: u32,
    has_fields: bool,
}

impl PointLines {
    /// # Errors
    /// Line protocol cannot say the name of the measurement.
    pub(super) fn new(measurement: &str) -> anyhow::Result<Self> {
        check_name(measurement)?;
        ensure!(!measurement.starts_with(['#', '\t']), "{measurement:?} cannot be a measurement");
        let mut written = Vec::new();
        push_escaped(measurement, &mut written);
        Ok(PointLines {
            measurement: written,
            body: Vec::new(),
            points: Vec::new(),
            whole: 0,
            lines: 0,
            has_fields: false,
        })
    }

    pub(super) fn begin(&mut self) {
        self.body.truncate(self.whole);
        self.body.extend_from_slice(&self.measurement);
        self.has_fields = false;
    }

    /// An empty value is a missing tag.
    ///
    /// # Errors
    /// Line protocol cannot say this value.
    pub(super) fn tag(&mut self, key: &Key, value: &str) -> Result<(), String> {
        if value.is_empty() {
            return Ok(());
        }
        if value.contains('\n') {
            return Err(format!("tag {} holds a newline", key.name));
        }
        if value.ends_with('\\') {
            return Err(format!("tag {} ends with a backslash", key.name));
        }
        self.body.push(b',');
        self.body.extend_from_slice(&key.written);
        push_escaped(value, &mut self.body);
        Ok(())
    }

    /// # Errors
    /// A float that is not finite.
    pub(super) fn field(&mut self, key: &Key, value: Value<'_>) -> Result<(), String> {
        self.body.push(if self.has_fields { b',' } else { b' ' });
        self.has_fields = true;
        self.body.extend_from_slice(&key.written);
        match value {
            Value::Integer(value) => push_fmt(&mut self.body, format_args!("{value}i")),
            Value::Unsigned(value) => push_fmt(&mut self.body, format_args!("{value}u")),
            Value::Float(value) if !value.is_finite() => {
                return Err(format!("field {} is {value}, which cannot be stored", key.name));
            }
            // The shortest text that reads back to the same float.
            Value::Float(value) => push_fmt(&mut self.body, format_args!("{value:?}")),
            Value::Boolean(value) => push_fmt(&mut self.body, format_args!("{value}")),
            Value::String(value) => push_quoted(value, &mut self.body),
        }
        Ok(())
    }

    /// Ends the point with its time, in nanoseconds, and its line or row in the file.
    ///
    /// # Errors
    /// It has no fields.
    pub(super) fn end(&mut self, time: i64, place: u64) -> Result<(), String> {
        if !self.has_fields {
            return Err("no field has a value".to_owned());
        }
        push_fmt(&mut self.body, format_args!(" {time}\n"));
        self.points.push((self.lines + 1, place));
        let newlines = memchr::memchr_iter(b'\n', &self.body[self.whole..]).count();
        self.lines += newlines as u32;
        self.whole = self.body.len();
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    /// Bytes of the points that are ended.
    pub(super) fn bytes(&self) -> usize {
        self.whole
    }

    /// The body, how many points it holds and where they come from; then there are none.
    pub(super) fn take(&mut self) -> (Vec<u8>, u64, Places) {
        self.body.truncate(self.whole);
        (self.whole, self.lines) = (0, 0);
        let points = std::mem::take(&mut self.points);
        (std::mem::take(&mut self.body), points.len() as u64, Places::Points(points))
    }
}

fn check_name(name: &str) -> anyhow::Result<()> {
    ensure!(!name.is_empty(), "a column has no name; choose the others by --tags and --fields");
    ensure!(
        !name.contains(['\n', '\0']) && !name.ends_with('\\'),
        "line protocol cannot write the name {name:?}"
    );
    Ok(())
}

fn push_fmt(body: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    body.write_fmt(text).expect("writing to memory never fails");
}

/// A name or the value of a tag.
fn push_escaped(text: &str, body: &mut Vec<u8>) {
    for byte in text.bytes() {
        if matches!(byte, b',' | b'=' | b' ') {
            body.push(b'\\');
        }
        body.push(byte);
    }
}

fn push_quoted(text: &str, body: &mut Vec<u8>) {
    body.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            body.push(b'\\');
        }
        body.push(byte);
    }
    body.push(b'"');
}

#[cfg(test)]
mod tests {
    use highwater_core::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::line_protocol::{Limits, Precision, parse};

    #[test]
    fn places_follow_newlines_in_strings() {
        let key = Key::new("f").unwrap();
        let mut lines = PointLines::new("m").unwrap();
        for (text, place) in [("a\nb", 10), ("", 11), ("\"\\", 13)] {
            lines.begin();
            lines.field(&key, Value::String(text)).unwrap();
            lines.end(1, place).unwrap();
        }
        lines.begin();
        assert!(lines.end(1, 14).is_err());
        let (body, points, places) = lines.take();
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "m f=\"a\nb\" 1\nm f=\"\" 1\nm f=\"\\\"\\\\\" 1\n"
        );
        let batch = super::super::batch::Batch {
            body: Vec::new(),
            points,
            end: 0,
            places,
            refused: Vec::new(),
        };
        assert_eq!([1, 2, 3, 4].map(|line| batch.place_of(line)), [10, 10, 11, 13]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            measurement in "[a-z=, \"\\\\#é]{0,6}[a-z]", tag in "[a-z=, \"\\\\\r]{0,6}[a-z]",
            value in "[a-z=, \"\\\\\r]{0,6}[a-z]", text in "[a-z=, \"\\\\\r\n]{0,8}",
            float in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
        ) {
            prop_assume!(!measurement.starts_with('#'));
            let mut lines = PointLines::new(&measurement).unwrap();
            lines.begin();
            lines.tag(&Key::new(&tag).unwrap(), &value).unwrap();
            lines.field(&Key::new("text field").unwrap(), Value::String(&text)).unwrap();
            lines.field(&Key::new("x=y").unwrap(), Value::Float(float)).unwrap();
            lines.end(-5, 1).unwrap();
            let body = lines.take().0;
            let parsed =
                parse(&body, Precision::Nanosecond, Timestamp::EPOCH, &Limits::default());
            prop_assert_eq!(parsed.refused, []);
            let point = &parsed.batches[0];
            prop_assert_eq!((&*point.measurement, point.times[0]), (&*measurement, -5));
            prop_assert_eq!(point.tag_sets[0].get(&tag), Some(&*value));
            let strings = arrow::array::AsArray::as_string::<i32>(&*point.fields[0].1);
            prop_assert_eq!(strings.value(0), text);
            use arrow::datatypes::Float64Type;
            let floats = arrow::array::AsArray::as_primitive::<Float64Type>(&*point.fields[1].1);
            prop_assert_eq!(floats.value(0).to_bits(), float.to_bits());
        }
    }
}
