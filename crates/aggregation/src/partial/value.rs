//! Values that can be the smallest, greatest, first or last of their kind.

use std::cmp::Ordering;
use std::fmt::Debug;

use highwater_core::{FieldType, Timestamp};

use super::encoding::DecodeError;

/// A field's value in order and in bytes.
///
/// Floats follow the IEEE total order (-NaN, -infinity, .., -0.0, 0.0, .., infinity, NaN), false
/// comes before true, strings go by their bytes.
pub trait Value: Clone + Debug + Send + Sync + 'static {
    /// Type of such a field.
    const TYPE: FieldType;

    /// The value without a copy of its text.
    type Ref<'a>: Copy;

    /// Borrows the value.
    fn borrowed(&self) -> Self::Ref<'_>;

    /// Keeps a borrowed value.
    fn owned(value: Self::Ref<'_>) -> Self;

    /// Replaces the value, in place where that saves an allocation.
    #[inline]
    fn assign(&mut self, value: Self::Ref<'_>) {
        *self = Self::owned(value);
    }

    /// The order of two values.
    fn compare(a: Self::Ref<'_>, b: Self::Ref<'_>) -> Ordering;

    /// Appends the value's bytes.
    fn encode(&self, bytes: &mut Vec<u8>);

    /// Reads a value that takes up all of `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] for bytes that are none.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;

    /// Whether `heap_bytes` is worth asking for.
    const HAS_HEAP: bool = false;

    /// Bytes held outside of the value itself.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// The eight bytes that make up all of `bytes`.
fn eight(bytes: &[u8]) -> Result<[u8; 8], DecodeError> {
    bytes.try_into().map_err(|_| match bytes.len() {
        0..8 => DecodeError::Truncated,
        _ => DecodeError::Trailing,
    })
}

macro_rules! eight_byte_value {
    ($value:ty, $field_type:expr, $compare:expr) => {
        impl Value for $value {
            const TYPE: FieldType = $field_type;
            type Ref<'a> = $value;

            #[inline]
            fn borrowed(&self) -> $value {
                *self
            }

            #[inline]
            fn owned(value: $value) -> Self {
                value
            }

            #[inline]
            fn compare(a: $value, b: $value) -> Ordering {
                $compare(&a, &b)
            }

            #[inline]
            fn encode(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                Ok(<$value>::from_le_bytes(eight(bytes)?))
            }
        }
    };
}

eight_byte_value!(f64, FieldType::Float, f64::total_cmp);
eight_byte_value!(i64, FieldType::Integer, i64::cmp);
eight_byte_value!(u64, FieldType::Unsigned, u64::cmp);

impl Value for Timestamp {
    const TYPE: FieldType = FieldType::Timestamp;
    type Ref<'a> = Timestamp;

    fn borrowed(&self) -> Timestamp {
        *self
    }

    fn owned(value: Timestamp) -> Self {
        value
    }

    fn compare(a: Timestamp, b: Timestamp) -> Ordering {
        a.cmp(&b)
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        Value::encode(&self.as_nanos(), bytes);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        <i64 as Value>::decode(bytes).map(Timestamp::from_nanos)
    }
}

impl Value for bool {
    const TYPE: FieldType = FieldType::Boolean;
    type Ref<'a> = bool;

    fn borrowed(&self) -> bool {
        *self
    }

    fn owned(value: bool) -> Self {
        value
    }

    fn compare(a: bool, b: bool) -> Ordering {
        a.cmp(&b)
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push((*self).into());
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes {
            [] => Err(DecodeError::Truncated),
            [0] => Ok(false),
            [1] => Ok(true),
            [_] => Err(DecodeError::OutOfRange),
            _ => Err(DecodeError::Trailing),
        }
    }
}

impl Value for String {
    const TYPE: FieldType = FieldType::String;
    type Ref<'a> = &'a str;

    fn borrowed(&self) -> &str {
        self
    }

    fn owned(value: &str) -> Self {
        value.to_owned()
    }

    fn assign(&mut self, value: &str) {
        self.clear();
        self.push_str(value);
    }

    fn compare(a: &str, b: &str) -> Ordering {
        a.cmp(b)
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError::NotUtf8)
    }

    const HAS_HEAP: bool = true;

    fn heap_bytes(&self) -> usize {
        self.capacity()
    }
}
