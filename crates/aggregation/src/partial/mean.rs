//! The arithmetic mean.

use super::count::Count;
use super::encoding::{
    DecodeError, EMPTY, Function, body_of, finished, put_header, put_varint, take_varint,
};
use super::exact_sum::ExactSum;
use super::{Partial, Update};

/// An exact sum and a count: enough to merge means without seeing the points again.
///
/// The answer is the exact sum divided by the count, rounded once; so it may be finite where the
/// sum is beyond every float.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mean {
    sum: ExactSum,
    count: u64,
}

impl Mean {
    /// The mean of so many values with this sum.
    pub(crate) fn of(sum: ExactSum, count: u64) -> Self {
        if count == 0 { Mean::default() } else { Mean { sum, count } }
    }

    /// The mean of so many integers with this sum.
    pub(crate) fn of_integers(sum: i128, count: u64) -> Self {
        const HALF: u64 = 1 << 62;
        let mut exact = ExactSum::default();
        exact.update_integer_product(sum >> HALF.trailing_zeros(), HALF);
        exact.update_integer_product(sum & i128::from(HALF - 1), 1);
        Mean::of(exact, count)
    }

    /// The sum.
    pub(crate) fn sum(&self) -> &ExactSum {
        &self.sum
    }

    /// How many values.
    pub(crate) fn count(&self) -> Count {
        Count::of(self.count)
    }

    /// The mean; `None` of nothing.
    pub fn finish(&self) -> Option<f64> {
        self.sum.divided_by(self.count)
    }
}

impl Update<f64> for Mean {
    #[inline]
    fn update(&mut self, value: f64) {
        self.sum.update(value);
        self.count = self.count.saturating_add(1);
    }
}

impl Update<i64> for Mean {
    #[inline]
    fn update(&mut self, value: i64) {
        self.sum.update_integer(value.into());
        self.count = self.count.saturating_add(1);
    }
}

impl Update<u64> for Mean {
    #[inline]
    fn update(&mut self, value: u64) {
        self.sum.update_integer(value.into());
        self.count = self.count.saturating_add(1);
    }
}

impl Partial for Mean {
    fn merge(&mut self, other: &Self) {
        self.sum.merge(&other.sum);
        self.count = self.count.saturating_add(other.count);
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        if self.is_empty() {
            return put_header(bytes, Function::Mean, None, EMPTY);
        }
        let header = bytes.len();
        put_header(bytes, Function::Mean, None, 0);
        put_varint(bytes, self.count);
        self.sum.encode_body(bytes, header);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (form, mut body) = body_of(bytes, Function::Mean, None)?;
        if form == EMPTY {
            finished(body)?;
            return Ok(Mean::default());
        }
        let count = take_varint(&mut body)?;
        if count == 0 {
            return Err(DecodeError::OutOfRange);
        }
        Ok(Mean { sum: ExactSum::decode_body(Function::Mean, form, body)?, count })
    }

    fn heap_bytes(&self) -> usize {
        self.sum.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64]) -> Option<f64> {
        let mut mean = Mean::default();
        values.iter().for_each(|value| mean.update(*value));
        mean.finish()
    }

    #[test]
    fn the_sum_may_be_beyond_every_float() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[f64::MAX, f64::MAX]), Some(f64::MAX));
        assert_eq!(mean(&[0.1; 10]), Some(0.1));
        assert_eq!(mean(&[1e16, 1.0, -1e16]), Some(1.0 / 3.0));
        assert_eq!(mean(&[5e-324, 0.0]), Some(0.0));
        assert_eq!(mean(&[5e-324, 5e-324, 5e-324, 0.0]), Some(5e-324));
    }

    #[test]
    fn integers_are_not_rounded_on_their_way_in() {
        let mut mean = Mean::default();
        mean.update((1i64 << 53) + 1);
        mean.update((1i64 << 53) + 1);
        mean.update(-2i64);
        assert_eq!(mean.finish(), Some((1i64 << 54) as f64 / 3.0));
    }
}
