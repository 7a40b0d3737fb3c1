//! The value of one field, as it is written in a line.

use highwater_core::FieldType;

use super::number::{self, NotANumber};
use super::refusal::Refusal;
use super::text;

/// A value as written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Float(f64),
    Integer(i64),
    Unsigned(u64),
    Boolean(bool),
    String(Quoted<'a>),
}

/// What stands between two quotes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quoted<'a> {
    pub(super) inside: &'a [u8],
    pub(super) has_escapes: bool,
}

impl<'a> Value<'a> {
    /// Reads the value at `at` and the position after it; `field` is for messages.
    pub(super) fn read(
        body: &'a [u8],
        at: usize,
        field: &str,
    ) -> Result<(Value<'a>, usize), Refusal> {
        if body.get(at) == Some(&b'"') {
            return quoted(body, at + 1, field);
        }
        let end = end_of_token(body, at);
        let token = &body[at..end];
        let value = bare(token).map_err(|reason| refusal(token, field, &reason))?;
        Ok((value, end))
    }

    /// Type of a field that begins with this value.
    pub(super) fn field_type(&self) -> FieldType {
        match self {
            Value::Float(_) => FieldType::Float,
            Value::Integer(_) => FieldType::Integer,
            Value::Unsigned(_) => FieldType::Unsigned,
            Value::Boolean(_) => FieldType::Boolean,
            Value::String(_) => FieldType::String,
        }
    }
}

fn quoted<'a>(body: &'a [u8], at: usize, field: &str) -> Result<(Value<'a>, usize), Refusal> {
    let (end, has_escapes) =
        text::closing_quote(body, at).ok_or_else(|| Refusal::OpenString(field.to_owned()))?;
    let after = end + 1;
    let is_over =
        matches!(body.get(after), Some(b',' | b' ')) || text::after_line_end(body, after).is_some();
    if is_over {
        Ok((Value::String(Quoted { inside: &body[at..end], has_escapes }), after))
    } else {
        Err(Refusal::TextAfterString(field.to_owned()))
    }
}

fn end_of_token(body: &[u8], at: usize) -> usize {
    let rest = &body[at..];
    let len = rest.iter().position(|b| matches!(b, b',' | b' ' | b'\n')).unwrap_or(rest.len());
    let ends_in_cr = !matches!(rest.get(len), Some(b',' | b' ')) && rest[..len].ends_with(b"\r");
    at + len - usize::from(ends_in_cr)
}

fn bare(token: &[u8]) -> Result<Value<'static>, NotANumber> {
    match token {
        b"t" | b"T" | b"true" | b"True" | b"TRUE" => Ok(Value::Boolean(true)),
        b"f" | b"F" | b"false" | b"False" | b"FALSE" => Ok(Value::Boolean(false)),
        [digits @ .., b'i'] => number::integer(digits).map(Value::Integer),
        [digits @ .., b'u'] => number::integer(digits).map(Value::Unsigned),
        _ => number::float(token).map(Value::Float),
    }
}

fn refusal(token: &[u8], field: &str, reason: &NotANumber) -> Refusal {
    let (field, value) = (field.to_owned(), text::excerpt(token, 64));
    let field_type = match token.last() {
        None => return Refusal::NoFieldValue(field),
        Some(b'i') => FieldType::Integer,
        Some(b'u') => FieldType::Unsigned,
        Some(_) => FieldType::Float,
    };
    match reason {
        NotANumber::Malformed => Refusal::BadValue { field, value },
        NotANumber::OutOfRange => Refusal::ValueRange { field, value, field_type },
    }
}
