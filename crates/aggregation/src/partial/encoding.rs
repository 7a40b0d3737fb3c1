//! The bytes all partials share: a header of two bytes, varints, shortest integers.
//!
//! This is a file format, described in `docs/format/partials.md`: add, never reorder.

use std::fmt;

use highwater_core::FieldType;

/// Version of the encoding, in the upper three bits of the first byte.
pub const VERSION: u8 = 1;

/// Form of a partial that has seen nothing; nothing follows its header.
pub(super) const EMPTY: u8 = 15;

/// Function a partial belongs to; the number is the lower five bits of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Function {
    /// See [`Count`](super::Count).
    Count = 1,
    /// See [`ExactSum`](super::ExactSum) and [`IntegerSum`](super::IntegerSum).
    Sum = 2,
    /// See [`Mean`](super::Mean).
    Mean = 3,
    /// See [`Min`](super::Min).
    Min = 4,
    /// See [`Max`](super::Max).
    Max = 5,
    /// See [`First`](super::First).
    First = 6,
    /// See [`Last`](super::Last).
    Last = 7,
    /// See [`Moments`](super::Moments).
    Moments = 8,
    /// See [`Distinct`](super::Distinct).
    Distinct = 9,
    /// See [`ApproxDistinct`](super::ApproxDistinct).
    ApproxDistinct = 10,
    /// See [`Percentiles`](super::Percentiles).
    Percentiles = 11,
    /// See [`Counter`](super::Counter).
    Counter = 12,
    /// See [`TimeWeighted`](super::TimeWeighted).
    TimeWeighted = 13,
    /// See [`FastSum`](super::FastSum); over integers, [`IntegerSum`](super::IntegerSum).
    SumFast = 14,
    /// See [`Histogram`](super::Histogram).
    Histogram = 15,
}

impl Function {
    /// Every function with a partial.
    pub const ALL: [Function; 15] = [
        Function::Count,
        Function::Sum,
        Function::Mean,
        Function::Min,
        Function::Max,
        Function::First,
        Function::Last,
        Function::Moments,
        Function::Distinct,
        Function::ApproxDistinct,
        Function::Percentiles,
        Function::Counter,
        Function::TimeWeighted,
        Function::SumFast,
        Function::Histogram,
    ];

    /// The name of the partial; that of a function in SQL, where only one has it.
    pub fn name(self) -> &'static str {
        match self {
            Function::Count => "count",
            Function::Sum => "sum",
            Function::Mean => "mean",
            Function::Min => "min",
            Function::Max => "max",
            Function::First => "first",
            Function::Last => "last",
            Function::Moments => "moments",
            Function::Distinct => "distinct",
            Function::ApproxDistinct => "approx_distinct",
            Function::Percentiles => "approx_percentile",
            Function::Counter => "counter",
            Function::TimeWeighted => "time_weighted_average",
            Function::SumFast => "sum_fast",
            Function::Histogram => "histogram",
        }
    }
}

impl Function {
    /// Whether its partials over values of different types differ in kind.
    pub fn is_typed(self) -> bool {
        match self {
            Function::Count
            | Function::Mean
            | Function::Moments
            | Function::ApproxDistinct
            | Function::Percentiles
            | Function::Histogram => false,
            Function::Sum
            | Function::SumFast
            | Function::Min
            | Function::Max
            | Function::First
            | Function::Last
            | Function::Distinct
            | Function::Counter
            | Function::TimeWeighted => true,
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the first two bytes of a partial say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose partial it is.
    pub function: Function,
    /// Type of the values it was made of; `None` where that makes no difference.
    pub values: Option<FieldType>,
    /// Which of the function's forms of body follows.
    form: u8,
}

impl Header {
    /// The header of an encoded partial.
    ///
    /// # Errors
    /// [`DecodeError`] if there is none, or one of another version.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let &[first, second, ..] = bytes else { return Err(DecodeError::Truncated) };
        if first >> 5 != VERSION {
            return Err(DecodeError::UnknownVersion { version: first >> 5 });
        }
        let function = Function::ALL.into_iter().find(|function| *function as u8 == first & 31);
        Ok(Header {
            function: function.ok_or(DecodeError::UnknownFunction { number: first & 31 })?,
            values: field_type(second & 15)?,
            form: second >> 4,
        })
    }
}

/// Appends a header.
#[inline]
pub(super) fn put_header(
    bytes: &mut Vec<u8>,
    function: Function,
    values: Option<FieldType>,
    form: u8,
) {
    bytes.extend_from_slice(&[VERSION << 5 | function as u8, type_number(values) | form << 4]);
}

/// Checks that a partial is of this function and type; gives its form and its body.
#[inline]
pub(super) fn body_of(
    bytes: &[u8],
    function: Function,
    values: Option<FieldType>,
) -> Result<(u8, &[u8]), DecodeError> {
    match bytes {
        &[first, second, ref body @ ..]
            if first == VERSION << 5 | function as u8 && second & 15 == type_number(values) =>
        {
            Ok((second >> 4, body))
        }
        _ => Err(DecodeError::Unexpected { function, values, found: Header::read(bytes)? }),
    }
}

fn type_number(values: Option<FieldType>) -> u8 {
    match values {
        None | Some(FieldType::Partial) => 0,
        Some(FieldType::Float) => 1,
        Some(FieldType::Integer) => 2,
        Some(FieldType::Unsigned) => 3,
        Some(FieldType::Boolean) => 4,
        Some(FieldType::String) => 5,
        Some(FieldType::Timestamp) => 6,
    }
}

fn field_type(number: u8) -> Result<Option<FieldType>, DecodeError> {
    Ok(match number {
        0 => None,
        1 => Some(FieldType::Float),
        2 => Some(FieldType::Integer),
        3 => Some(FieldType::Unsigned),
        4 => Some(FieldType::Boolean),
        5 => Some(FieldType::String),
        6 => Some(FieldType::Timestamp),
        _ => return Err(DecodeError::UnknownType { number }),
    })
}

/// Appends an unsigned LEB128 varint: seven bits a byte, lowest first.
#[inline]
pub(super) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes a varint off the front of `bytes`.
#[inline]
pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        *bytes = rest;
        let digit = u64::from(byte & 0x7f);
        if (digit << shift) >> shift != digit {
            return Err(DecodeError::OutOfRange);
        }
        value |= digit << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(DecodeError::OutOfRange)
}

/// Small numbers of either sign as small unsigned ones: 0, -1, 1, -2, ..
#[inline]
pub(super) fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}

/// Undoes [`zigzag`].
#[inline]
pub(super) fn unzigzag(value: u64) -> Result<i32, DecodeError> {
    let value = u32::try_from(value).map_err(|_| DecodeError::OutOfRange)?;
    Ok((value >> 1) as i32 ^ -((value & 1) as i32))
}

/// Appends the fewest little-endian two's complement bytes that hold `value`; none for 0.
#[inline]
pub(super) fn put_shortest(bytes: &mut Vec<u8>, value: i128) {
    let sign = (value >> 127) as u128;
    let bits = 129 - (value as u128 ^ sign).leading_zeros() as usize;
    let length = if value == 0 { 0 } else { bits.div_ceil(8) };
    bytes.extend_from_slice(&value.to_le_bytes()[..length]);
}

/// The integer of which all of `bytes` are the little-endian two's complement.
#[inline]
pub(super) fn shortest(bytes: &[u8]) -> Result<i128, DecodeError> {
    let Some(&last) = bytes.last() else { return Ok(0) };
    let mut whole = [if last < 0x80 { 0 } else { 0xff }; 16];
    whole.get_mut(..bytes.len()).ok_or(DecodeError::OutOfRange)?.copy_from_slice(bytes);
    Ok(i128::from_le_bytes(whole))
}

/// Bytes that are not the partial they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("partial ends too early")]
    Truncated,
    /// Written by a newer release, or no partial.
    #[error("partial has version {version}, this release reads version {VERSION}")]
    UnknownVersion {
        /// What was found.
        version: u8,
    },
    /// Written by a newer release, or no partial.
    #[error("partial is of unknown function number {number}")]
    UnknownFunction {
        /// What was found.
        number: u8,
    },
    /// Written by a newer release, or no partial.
    #[error("partial has values of unknown type number {number}")]
    UnknownType {
        /// What was found.
        number: u8,
    },
    /// A sound header, of another function or type.
    #[error(
        "partial is of {}, expected one of {}",
        described(found.function, found.values),
        described(*function, *values)
    )]
    Unexpected {
        /// The function that was expected.
        function: Function,
        /// The type that was expected.
        values: Option<FieldType>,
        /// What was found.
        found: Header,
    },
    /// The function does not have this form.
    #[error("partial of {function} has unknown form {form}")]
    UnknownForm {
        /// Whose partial it is.
        function: Function,
        /// What was found.
        form: u8,
    },
    /// A number that no partial holds.
    #[error("partial holds a number out of range")]
    OutOfRange,
    /// Bytes after the end.
    #[error("partial is followed by stray bytes")]
    Trailing,
    /// A string that is no UTF-8.
    #[error("partial holds a string that is not UTF-8")]
    NotUtf8,
}

fn described(function: Function, values: Option<FieldType>) -> String {
    match values {
        Some(values) => format!("{function} of {values}"),
        None => function.to_string(),
    }
}

/// Checks that nothing is left over.
pub(super) fn finished(rest: &[u8]) -> Result<(), DecodeError> {
    if rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back() {
        for value in [0, 1, 127, 128, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut rest = bytes.as_slice();
            assert_eq!(take_varint(&mut rest), Ok(value));
            assert!(rest.is_empty());
        }
        assert_eq!(take_varint(&mut [0xff; 9].as_slice()), Err(DecodeError::Truncated));
        assert_eq!(take_varint(&mut [0xff; 12].as_slice()), Err(DecodeError::OutOfRange));
    }

    #[test]
    fn integers_take_as_few_bytes_as_they_need() {
        let cases = [(0, 0), (127, 1), (128, 2), (-1, 1), (-128, 1), (-129, 2)];
        for (value, length) in cases.into_iter().chain([(i128::MAX, 16), (i128::MIN, 16)]) {
            let mut bytes = Vec::new();
            put_shortest(&mut bytes, value);
            assert_eq!((bytes.len(), shortest(&bytes)), (length, Ok(value)), "{value}");
        }
        assert_eq!(shortest(&[1; 17]), Err(DecodeError::OutOfRange));
    }

    #[test]
    fn zigzag_is_undone() {
        for value in [0, 1, -1, 1000, -1000, i32::MAX, i32::MIN] {
            assert_eq!(unzigzag(zigzag(value)), Ok(value));
        }
        assert_eq!(zigzag(-52), 103);
        assert_eq!(unzigzag(u64::MAX), Err(DecodeError::OutOfRange));
    }

    #[test]
    fn strange_headers_are_told_apart() {
        assert_eq!(Header::read(&[]), Err(DecodeError::Truncated));
        assert_eq!(Header::read(&[0x41, 0]), Err(DecodeError::UnknownVersion { version: 2 }));
        assert_eq!(Header::read(&[0x3f, 0]), Err(DecodeError::UnknownFunction { number: 31 }));
        assert_eq!(Header::read(&[0x21, 9]), Err(DecodeError::UnknownType { number: 9 }));
        let error = body_of(&[0x22, 2], Function::Sum, Some(FieldType::Float)).unwrap_err();
        assert_eq!(error.to_string(), "partial is of sum of integer, expected one of sum of float");
    }
}
