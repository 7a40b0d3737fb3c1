//! Variance and standard deviation.

use num_bigint::{BigInt, BigUint};

use super::encoding::{
    DecodeError, EMPTY, Function, body_of, finished, put_header, put_varint, take_varint,
};
use super::exact_sum::{ExactSquares, ExactSum, Quotient};
use super::{Partial, Update};

/// Bits of the form: whether the sum, the squares are wide; alone: some value is not finite.
mod form {
    pub(super) const WIDE_SUM: u8 = 1;
    pub(super) const WIDE_SQUARES: u8 = 2;
    pub(super) const NOT_FINITE: u8 = 4;
}

/// Whether the values are a sample of something larger, or all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spread {
    /// Divides by n - 1.
    Sample,
    /// Divides by n.
    Population,
}

/// How many values there are, their exact sum and the exact sum of their squares.
///
/// The variance is (n Σx² - (Σx)²) / (n (n - 1)), or n² below the line; in real numbers, rounded
/// once. The standard deviation is the root of that same real number, rounded once, so it may be
/// finite where the variance is beyond every float. A NaN or an infinity makes both NaN.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    count: u64,
    sum: ExactSum,
    squares: ExactSquares,
}

impl Moments {
    /// The variance; `None` of nothing, and of a sample of one value.
    pub fn variance(&self, spread: Spread) -> Option<f64> {
        self.answer(spread, Quotient::rounded)
    }

    /// The standard deviation; `None` where there is no variance.
    pub fn stddev(&self, spread: Spread) -> Option<f64> {
        self.answer(spread, Quotient::root)
    }

    fn answer(&self, spread: Spread, rounded: impl Fn(&Quotient) -> f64) -> Option<f64> {
        let degrees = match spread {
            Spread::Sample => self.count.checked_sub(1)?,
            Spread::Population => self.count,
        };
        if degrees == 0 {
            return None;
        }
        if !self.sum.is_finite() {
            return Some(f64::NAN);
        }
        Some(rounded(&self.quotient(degrees)))
    }

    fn quotient(&self, degrees: u64) -> Quotient {
        let (sum, sum_exponent) = self.sum.integer();
        let (squares, exponent) = self.squares.integer();
        let (of_sum, of_squares) = (&sum * &sum, squares * self.count);
        let lowest = exponent.min(2 * sum_exponent);
        let spread: BigInt =
            (of_squares << (exponent - lowest)) - (of_sum << (2 * sum_exponent - lowest));
        Quotient {
            // Never negative but for bytes that no update has made.
            dividend: spread.to_biguint().unwrap_or_default(),
            divisor: BigUint::from(self.count) * degrees,
            exponent: lowest,
        }
    }
}

impl Update<f64> for Moments {
    #[inline]
    fn update(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        self.sum.update(value);
        if value.is_finite() {
            self.squares.update_square(value);
        }
    }
}

impl Moments {
    #[inline]
    fn update_integer(&mut self, value: i128) {
        self.count = self.count.saturating_add(1);
        self.sum.update_integer(value);
        self.squares.update_integer_square(value);
    }
}

impl Update<i64> for Moments {
    #[inline]
    fn update(&mut self, value: i64) {
        self.update_integer(value.into());
    }
}

impl Update<u64> for Moments {
    #[inline]
    fn update(&mut self, value: u64) {
        self.update_integer(value.into());
    }
}

impl Partial for Moments {
    fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum.merge(&other.sum);
        self.squares.merge_finite(&other.squares);
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        if self.is_empty() {
            return put_header(bytes, Function::Moments, None, EMPTY);
        }
        if !self.sum.is_finite() {
            put_header(bytes, Function::Moments, None, form::NOT_FINITE);
            return put_varint(bytes, self.count);
        }
        let (mut sum, mut squares) = (Vec::new(), Vec::new());
        let wide_sum = self.sum.encode_finite(&mut sum) * form::WIDE_SUM;
        let wide_squares = self.squares.encode_finite(&mut squares) * form::WIDE_SQUARES;
        put_header(bytes, Function::Moments, None, wide_sum | wide_squares);
        put_varint(bytes, self.count);
        put_varint(bytes, sum.len() as u64);
        bytes.extend_from_slice(&sum);
        bytes.extend_from_slice(&squares);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (form, mut body) = body_of(bytes, Function::Moments, None)?;
        if form == EMPTY {
            return finished(body).map(|()| Moments::default());
        }
        if form > form::NOT_FINITE {
            return Err(DecodeError::UnknownForm { function: Function::Moments, form });
        }
        let count = take_varint(&mut body)?;
        if count == 0 {
            return Err(DecodeError::OutOfRange);
        }
        if form == form::NOT_FINITE {
            finished(body)?;
            return Ok(Moments { count, sum: ExactSum::nan(), ..Moments::default() });
        }
        let length = usize::try_from(take_varint(&mut body)?).unwrap_or(usize::MAX);
        let (sum, squares) = body.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        Ok(Moments {
            count,
            sum: ExactSum::decode_finite(form & form::WIDE_SUM != 0, sum)?,
            squares: ExactSquares::decode_finite(form & form::WIDE_SQUARES != 0, squares)?,
        })
    }

    const HAS_HEAP: bool = true;

    fn heap_bytes(&self) -> usize {
        self.sum.heap_bytes() + self.squares.heap()
    }
}

impl PartialEq for Moments {
    fn eq(&self, other: &Self) -> bool {
        let bytes_of = |moments: &Self| {
            let mut bytes = Vec::new();
            moments.encode(&mut bytes);
            bytes
        };
        bytes_of(self) == bytes_of(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Spread::{Population, Sample};
    use super::*;

    fn of<N: Copy>(values: &[N]) -> Moments
    where
        Moments: Update<N>,
    {
        let mut moments = Moments::default();
        values.iter().for_each(|value| moments.update(*value));
        moments
    }

    #[test]
    fn sample_and_population() {
        let moments = of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!(moments.variance(Sample), Some(4.571428571428571));
        assert_eq!(moments.stddev(Sample), Some(2.138089935299395));
        assert_eq!(moments.variance(Population), Some(4.0));
        assert_eq!(moments.stddev(Population), Some(2.0));
    }

    #[test]
    fn few_values() {
        let (none, one) = (of::<f64>(&[]), of(&[3.0]));
        assert_eq!((none.variance(Population), none.stddev(Sample)), (None, None));
        assert_eq!((one.variance(Sample), one.stddev(Sample)), (None, None));
        assert_eq!((one.variance(Population), one.stddev(Population)), (Some(0.0), Some(0.0)));
        assert_eq!(of(&[0.1; 7]).variance(Sample), Some(0.0), "no rounding, no noise");
    }

    #[test]
    fn a_great_offset_costs_no_digits() {
        let values = [4.0, 7.0, 13.0, 16.0].map(|value| value + 1e15);
        assert_eq!(of(&values).variance(Sample), Some(30.0));
        assert_eq!(of(&[1i64 << 62, (1 << 62) + 2]).variance(Population), Some(1.0));
        assert_eq!(of(&[u64::MAX, u64::MAX - 2]).variance(Sample), Some(2.0));
        assert_eq!(of(&[u64::MAX, 0]).stddev(Population), Some(9.223372036854776e18));
    }

    #[test]
    fn a_deviation_may_be_finite_where_the_variance_is_not() {
        let far = of(&[1e200, -1e200]);
        assert_eq!(far.variance(Population), Some(f64::INFINITY));
        assert_eq!(far.stddev(Population), Some(1e200));
        let near = of(&[1e-200, -1e-200]);
        assert_eq!(near.variance(Population), Some(0.0));
        assert_eq!(near.stddev(Population), Some(1e-200));
        let extremes = of(&[f64::MAX, -f64::MAX, 5e-324]);
        assert_eq!(extremes.variance(Sample), Some(f64::INFINITY));
        assert_eq!(of(&[f64::MAX, -f64::MAX]).stddev(Population), Some(f64::MAX));
        assert_eq!(of(&[5e-324, -5e-324]).stddev(Population), Some(5e-324));
    }

    #[test]
    fn what_is_not_finite_has_no_spread() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(of(&[value]).variance(Population).unwrap().is_nan());
            assert!(of(&[1.0, value]).stddev(Sample).unwrap().is_nan());
            assert_eq!(of(&[value]).variance(Sample), None);
        }
    }

    proptest! {
        /// In small integers both sides of the quotient are floats, so one division is right.
        #[test]
        fn small_integers_agree_with_one_division(
            values in prop::collection::vec(-1000i64..1000, 2..50),
        ) {
            let n = values.len() as i64;
            let sum: i64 = values.iter().sum();
            let above = n * values.iter().map(|x| x * x).sum::<i64>() - sum * sum;
            let variance = of(&values).variance(Sample);
            prop_assert_eq!(variance, Some(above as f64 / (n * (n - 1)) as f64));
            let root = of(&values).stddev(Population).unwrap();
            let expected = (above as f64).sqrt() / n as f64;
            prop_assert!((root - expected).abs() <= 2.0 * f64::EPSILON * expected);
        }

        /// Scaling by a power of two only moves the point, also to where squares leave the floats.
        #[test]
        fn powers_of_two_come_out_again(
            values in prop::collection::vec(-1e3f64..1e3, 2..20),
            power in -900i32..900,
        ) {
            let scaled: Vec<f64> = values.iter().map(|x| x * 2f64.powi(power)).collect();
            let deviation = of(&values).stddev(Sample).unwrap();
            prop_assert_eq!(of(&scaled).stddev(Sample), Some(deviation * 2f64.powi(power)));
        }
    }

    #[test]
    fn squares_are_not_rounded() {
        // (2^53 - 1)^2 needs 106 bits; as floats both squares and their difference are rounded.
        let big = 9_007_199_254_740_991.0;
        assert_eq!(of(&[big, big - 1.0]).variance(Population), Some(0.25));
        assert_eq!(
            of(&[0.1, 0.1 + 1.3877787807814457e-17]).variance(Population),
            Some(4.81482486096809e-35)
        );
    }
}
