//! Sums of integers: held in 128 bits, so only the answer can overflow, never the sum.

use std::fmt::Debug;
use std::marker::PhantomData;

use highwater_core::FieldType;

use super::encoding::{DecodeError, EMPTY, Function, body_of, put_header, put_shortest, shortest};
use super::{Partial, Update};

/// The sum does not fit the type of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sum of integers overflows")]
pub struct Overflow;

/// A 64-bit integer type that fields can have.
pub trait Integer:
    Copy + Debug + Default + PartialEq + TryFrom<i128> + Into<i128> + Send + Sync + 'static
{
    /// Type of such a field.
    const TYPE: FieldType;
}

impl Integer for i64 {
    const TYPE: FieldType = FieldType::Integer;
}

impl Integer for u64 {
    const TYPE: FieldType = FieldType::Unsigned;
}

/// The sum of 64-bit integers, signed or unsigned.
///
/// Overflow is a matter of reading: a sum beyond the type is kept as it is, and a later value may
/// bring it back into range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntegerSum<N> {
    total: i128,
    seen: bool,
    values: PhantomData<N>,
}

impl<N: Integer> IntegerSum<N> {
    /// The sum; `None` of nothing.
    ///
    /// # Errors
    /// [`Overflow`] if it is not in the range of `N`.
    pub fn finish(&self) -> Result<Option<N>, Overflow> {
        if self.seen { N::try_from(self.total).map(Some).map_err(|_| Overflow) } else { Ok(None) }
    }

    /// The sum, whether it fits the type or not; 0 of nothing.
    pub(crate) fn total(&self) -> i128 {
        self.total
    }

    /// The sum as the nearest float; `None` of nothing.
    pub fn rounded(&self) -> Option<f64> {
        self.seen.then_some(self.total as f64)
    }
}

impl<N: Integer> Update<N> for IntegerSum<N> {
    #[inline]
    fn update(&mut self, value: N) {
        // 2^63 values of 64 bits fit, more than can be counted.
        self.total = self.total.wrapping_add(value.into());
        self.seen = true;
    }
}

impl<N: Integer> Partial for IntegerSum<N> {
    fn merge(&mut self, other: &Self) {
        self.total = self.total.saturating_add(other.total);
        self.seen |= other.seen;
    }

    fn is_empty(&self) -> bool {
        !self.seen
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let form = if self.seen { 0 } else { EMPTY };
        put_header(bytes, Function::Sum, Some(N::TYPE), form);
        put_shortest(bytes, self.total);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match body_of(bytes, Function::Sum, Some(N::TYPE))? {
            (0, body) => Ok(IntegerSum { total: shortest(body)?, seen: true, values: PhantomData }),
            (EMPTY, []) => Ok(IntegerSum::default()),
            (EMPTY, _) => Err(DecodeError::Trailing),
            (form, _) => Err(DecodeError::UnknownForm { function: Function::Sum, form }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[i64]) -> IntegerSum<i64> {
        let mut sum = IntegerSum::default();
        values.iter().for_each(|value| sum.update(*value));
        sum
    }

    #[test]
    fn a_sum_beyond_the_type_is_an_error_until_it_comes_back() {
        assert_eq!(sum(&[]).finish(), Ok(None));
        assert_eq!(sum(&[i64::MAX, 1]).finish(), Err(Overflow));
        assert_eq!(sum(&[i64::MAX, 1, -5]).finish(), Ok(Some(9_223_372_036_854_775_803)));
        assert_eq!(sum(&[i64::MIN]).finish(), Ok(Some(i64::MIN)));
    }

    #[test]
    fn unsigned_sums_have_their_own_range() {
        let mut sum = IntegerSum::<u64>::default();
        sum.update(u64::MAX);
        assert_eq!(sum.finish(), Ok(Some(u64::MAX)));
        sum.update(1);
        assert_eq!(sum.finish(), Err(Overflow));
    }
}
