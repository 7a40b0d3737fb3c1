//! How many values there were.

use super::Partial;
use super::encoding::{
    DecodeError, Function, body_of, finished, put_header, put_varint, take_varint,
};

/// A count of points, or of the points that have a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count(u64);

impl Count {
    /// So many values.
    pub(super) fn of(values: u64) -> Self {
        Count(values)
    }

    /// Takes in one value.
    #[inline]
    pub fn update(&mut self) {
        self.0 = self.0.saturating_add(1);
    }

    /// How many values were seen.
    pub fn finish(&self) -> u64 {
        self.0
    }
}

impl Partial for Count {
    fn merge(&mut self, other: &Self) {
        self.0 = self.0.saturating_add(other.0);
    }

    fn is_empty(&self) -> bool {
        self.0 == 0
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        put_header(bytes, Function::Count, None, 0);
        put_varint(bytes, self.0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (form, mut body) = body_of(bytes, Function::Count, None)?;
        if form != 0 {
            return Err(DecodeError::UnknownForm { function: Function::Count, form });
        }
        let count = take_varint(&mut body)?;
        finished(body)?;
        Ok(Count(count))
    }
}
