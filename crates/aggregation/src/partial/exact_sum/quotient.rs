//! Quotients of long integers, and their roots, rounded once.

use num_bigint::BigUint;

use super::rounding::Magnitude;
use super::{ONE, Unit};

/// So many bits that rounding cannot go wrong, also after a root has halved them.
const ENOUGH_BITS: u64 = 136;

/// `dividend / divisor` times two to the `exponent`; the divisor is not 0.
#[derive(Clone, Debug)]
pub(in crate::partial) struct Quotient {
    pub(in crate::partial) dividend: BigUint,
    pub(in crate::partial) divisor: BigUint,
    pub(in crate::partial) exponent: i32,
}

impl Quotient {
    /// The nearest float, of two equally near the even one; infinite beyond the greatest.
    pub(in crate::partial) fn rounded(&self) -> f64 {
        let (bits, exponent, more) = self.bits();
        magnitude(bits, exponent, more).rounded()
    }

    /// The nearest float to the square root, likewise.
    pub(in crate::partial) fn root(&self) -> f64 {
        let (bits, exponent, more) = self.bits();
        let root = bits.sqrt();
        let is_cut_off = &root * &root != bits;
        magnitude(root, exponent / 2, more || is_cut_off).rounded()
    }

    /// The quotient as an integer times two to an even exponent, and whether some more follows.
    fn bits(&self) -> (BigUint, i32, bool) {
        let wanted = ENOUGH_BITS + self.divisor.bits();
        let shift = wanted.saturating_sub(self.dividend.bits()) as i32;
        let shift = shift + (self.exponent - shift).rem_euclid(2);
        let dividend = &self.dividend << shift;
        let quotient = &dividend / &self.divisor;
        let more = &quotient * &self.divisor != dividend;
        (quotient, self.exponent - shift, more)
    }
}

/// The 128 highest bits.
fn magnitude(bits: BigUint, exponent: i32, more: bool) -> Magnitude {
    let drop = bits.bits().saturating_sub(128);
    let more = more || bits.trailing_zeros().is_some_and(|zeros| zeros < drop);
    let digits = (bits >> drop).to_u64_digits();
    let digit = |index: usize| u128::from(digits.get(index).copied().unwrap_or(0));
    let unit = exponent + drop as Unit + ONE;
    Magnitude { negative: false, top: digit(0) | digit(1) << 64, unit, more }
}
