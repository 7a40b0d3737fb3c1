//! From line to line through a body.

use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashSet};
use highwater_core::Timestamp;

use super::head::{Found, Heads, Place};
use super::line_end::{self, LineEnd};
use super::measurement::Measurement;
use super::number;
use super::refusal::Refusal;
use super::tags::check_name;
use super::text;
use super::{Options, Parsed, RefusedLine};

/// Bytes of a refused line that are reported.
const ORIGINAL_BYTES: usize = 1024;
/// Rows of a measurement after which room is made for as many as the rest of the body may have.
const ROWS_BEFORE_GUESS: usize = 256;

/// A body on its way into columns.
pub(super) struct Parser<'a> {
    body: &'a [u8],
    options: &'a Options<'a>,
    /// Whether all of the body is valid UTF-8, as it nearly always is.
    is_utf8: bool,
    heads: Heads<'a>,
    measurements: Vec<Measurement>,
    measurement_by_name: HashMap<Arc<str>, u32>,
    /// The measurement that the current line has found.
    current: Option<u32>,
    /// Physical line at which the current line starts.
    line_number: u32,
    /// How many missing fields the batches may still have.
    missing_left: usize,
    /// Starts of strings that lead to a broken one.
    broken: HashSet<usize>,
    /// Starts of the strings of the refused line at hand.
    opened: Vec<usize>,
    parsed: Parsed,
}

impl<'a> Parser<'a> {
    pub(super) fn new(body: &'a [u8], options: &'a Options<'a>) -> Self {
        assert!(u32::try_from(body.len()).is_ok(), "a body has less than 4 GiB");
        Parser {
            body,
            options,
            is_utf8: std::str::from_utf8(body).is_ok(),
            heads: Heads::new(body, DefaultHashBuilder::default()),
            measurements: Vec::new(),
            measurement_by_name: HashMap::new(),
            current: None,
            line_number: 1,
            missing_left: options.limits.missing_fields,
            broken: HashSet::default(),
            opened: Vec::new(),
            parsed: Parsed::default(),
        }
    }

    pub(super) fn run(mut self) -> Parsed {
        let mut at = 0;
        while at < self.body.len() {
            at = self.step(at);
        }
        let batches = self.measurements.into_iter().filter_map(Measurement::finish);
        Parsed { batches: batches.collect(), ..self.parsed }
    }

    /// Reads the line at `at` and returns where the next one starts.
    #[inline]
    fn step(&mut self, at: usize) -> usize {
        let start = text::after_blanks(self.body, at);
        if self.body.get(start) == Some(&b'#') {
            self.line_number += 1;
            return text::next_newline(self.body, start) + 1;
        }
        if let Some(next) = text::after_line_end(self.body, start) {
            self.line_number += 1;
            return next;
        }
        self.parsed.lines += 1;
        match self.line(start) {
            Ok(next) => next,
            Err(refusal) => self.refuse(start, &refusal),
        }
    }

    #[inline]
    fn line(&mut self, start: usize) -> Result<usize, Refusal> {
        let body = self.body;
        let head = self.heads.find(start)?;
        let place = match head.known {
            Some((_, place)) => place,
            None => self.new_place(start, head.end)?,
        };
        self.current = Some(place.measurement);
        let fields_at = text::after_blanks(body, head.end);
        let measurement = &mut self.measurements[place.measurement as usize];
        let (fields_end, newlines) = measurement.read_fields(body, fields_at, self.options)?;
        let (time, end) = read_time(body, fields_end, self.options)?;
        self.check(start, end, place)?;
        self.commit(start, head, place, time);
        self.line_number += 1 + newlines;
        Ok(end)
    }

    /// Whether the line may be a point although each part of it is well formed.
    #[inline]
    fn check(&mut self, start: usize, end: usize, place: Place) -> Result<(), Refusal> {
        if !self.is_utf8 && std::str::from_utf8(&self.body[start..end]).is_err() {
            return Err(Refusal::NotUtf8);
        }
        let missing = self.measurements[place.measurement as usize].missing_fields();
        self.missing_left = self.missing_left.checked_sub(missing).ok_or(Refusal::Sparse)?;
        Ok(())
    }

    #[inline]
    fn commit(&mut self, start: usize, head: Found, place: Place, time: i64) {
        let measurement = &mut self.measurements[place.measurement as usize];
        measurement.commit(place.tag_set, time, self.line_number);
        if measurement.rows() == ROWS_BEFORE_GUESS {
            // As many in every further stretch of the body that is as long as this first one.
            measurement.expect_rows(ROWS_BEFORE_GUESS * (self.body.len() / start.max(1) + 1));
        }
        match head.known {
            Some((known, _)) => self.heads.follow(known),
            None => self.heads.insert(start, head, place),
        }
    }

    fn new_place(&mut self, start: usize, end: usize) -> Result<Place, Refusal> {
        let head = std::str::from_utf8(&self.body[start..end]).map_err(|_| Refusal::NotUtf8)?;
        let comma = text::find_unescaped(head.as_bytes(), b',');
        let (name, tags) = head.split_at(comma.unwrap_or(head.len()));
        let measurement = self.measurement(&text::unescape(name))?;
        self.current = Some(measurement);
        let limits = self.options.limits;
        let tag_set =
            self.measurements[measurement as usize].tag_set(name, tags.get(1..), limits)?;
        Ok(Place { measurement, tag_set })
    }

    fn measurement(&mut self, name: &str) -> Result<u32, Refusal> {
        if let Some(known) = self.measurement_by_name.get(name) {
            return Ok(*known);
        }
        if name.is_empty() {
            return Err(Refusal::NoMeasurement);
        }
        check_name(name, "measurement", self.options.limits)?;
        let limit = self.options.limits.measurements;
        if self.measurements.len() >= limit {
            return Err(Refusal::ManyMeasurements(limit));
        }
        let (at, name) = (self.measurements.len() as u32, Arc::<str>::from(name));
        let schema = (self.options.schema_of)(&name);
        let hasher = self.measurement_by_name.hasher().clone();
        self.measurements.push(Measurement::new(Arc::clone(&name), schema, hasher));
        self.measurement_by_name.insert(name, at);
        Ok(at)
    }

    /// Takes the line back, reports it, and returns where the next one starts.
    #[cold]
    fn refuse(&mut self, start: usize, refusal: &Refusal) -> usize {
        if let Some(measurement) = self.current.take() {
            self.measurements[measurement as usize].undo();
        }
        let end = self.end_of_refused(start);
        let line = &self.body[start..end];
        self.parsed.refused_count += 1;
        if self.parsed.refused.len() < self.options.limits.reported {
            self.parsed.refused.push(RefusedLine {
                line: self.line_number,
                original: text::excerpt(line.strip_suffix(b"\r").unwrap_or(line), ORIGINAL_BYTES),
                reason: refusal.to_string(),
            });
        }
        self.line_number += 1 + memchr::memchr_iter(b'\n', line).count() as u32;
        end + 1
    }

    /// Position of the newline that ends the refused line which starts at `start`: the first one
    /// that is in no quoted string, or the very first if a string on the way there is broken, that
    /// is not closed or followed by text. A string from which a broken one was reached before is
    /// not followed again, so that many lines before the same broken string take linear time.
    fn end_of_refused(&mut self, start: usize) -> usize {
        let (opened, broken) = (&mut self.opened, &self.broken);
        let end = line_end::line_end(self.body, start, |string| {
            opened.push(string);
            !broken.contains(&string)
        });
        match end {
            LineEnd::Newline(at) => {
                self.opened.clear();
                at
            }
            LineEnd::Body => {
                self.opened.clear();
                self.body.len()
            }
            LineEnd::Broken | LineEnd::Open => {
                self.broken.extend(self.opened.drain(..));
                text::next_newline(self.body, start)
            }
        }
    }
}

/// The time of the line whose fields end at `at`, and the start of the next line.
#[inline]
fn read_time(body: &[u8], at: usize, options: &Options<'_>) -> Result<(i64, usize), Refusal> {
    if body.get(at) == Some(&b' ') {
        let from = text::after_blanks(body, at);
        if body.get(from).is_some_and(|b| b.is_ascii_digit() || *b == b'-') {
            return read_given_time(body, from, options);
        }
        return match text::after_line_end(body, from) {
            Some(next) => Ok((options.default_time.as_nanos(), next)),
            None => Err(Refusal::BadTime(rest_of_line(body, from))),
        };
    }
    match text::after_line_end(body, at) {
        Some(next) => Ok((options.default_time.as_nanos(), next)),
        None => Err(Refusal::TextAfterValue(rest_of_line(body, at))),
    }
}

#[inline]
fn read_given_time(body: &[u8], at: usize, options: &Options<'_>) -> Result<(i64, usize), Refusal> {
    let negative = body[at] == b'-';
    let from = at + usize::from(negative);
    let (digits, end) = number::digits(body, from);
    let next = text::after_line_end(body, text::after_blanks(body, end));
    let Some(next) = next.filter(|_| end > from) else {
        return Err(time_refusal(body, at));
    };
    let time = i64::try_from(digits).ok().map(|time| if negative { -time } else { time });
    let nanos = time.and_then(|time| options.precision.to_nanos(time));
    match nanos.filter(|nanos| Timestamp::from_nanos(*nanos).is_accepted()) {
        Some(nanos) => Ok((nanos, next)),
        None => Err(Refusal::TimeRange(rest_of_line(body, at))),
    }
}

#[cold]
fn time_refusal(body: &[u8], at: usize) -> Refusal {
    let rest = rest_of_line(body, at);
    let (time, after) = rest.split_once(' ').unwrap_or((&rest, ""));
    let digits = time.strip_prefix('-').unwrap_or(time);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        Refusal::BadTime(time.to_owned())
    } else if after.trim_start_matches([' ', '\t']).is_empty() {
        Refusal::TimeRange(time.to_owned())
    } else {
        Refusal::TextAfterTime(after.to_owned())
    }
}

fn rest_of_line(body: &[u8], at: usize) -> String {
    text::excerpt(body[at..text::next_newline(body, at)].trim_ascii_end(), 64)
}
