//! The one rounding: half to even, gradual underflow, overflow to infinity.

use super::Unit;

/// `(top + some) · 2^(unit - 1075)`, where `some` is 0, or less than 1 and not 0 if `more`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Magnitude {
    pub(super) negative: bool,
    pub(super) top: u128,
    pub(super) unit: Unit,
    pub(super) more: bool,
}

impl Magnitude {
    pub(super) fn of(mantissa: i128, unit: Unit) -> Self {
        let negative = mantissa < 0;
        Magnitude { negative, top: mantissa.unsigned_abs(), unit, more: false }
    }

    /// The quotient to at least 64 bits, with `more` for whatever follows.
    pub(super) fn divided_by(self, count: u64) -> Self {
        if count == 1 || self.top == 0 {
            return self;
        }
        let zeros = self.top.leading_zeros();
        let (dividend, divisor) = (self.top << zeros, u128::from(count));
        Magnitude {
            top: dividend / divisor,
            unit: self.unit - zeros as Unit,
            more: self.more || dividend % divisor != 0,
            ..self
        }
    }

    /// The nearest float, of two equally near the even one.
    pub(super) fn rounded(self) -> f64 {
        let magnitude = f64::from_bits(self.rounded_bits());
        if self.negative { -magnitude } else { magnitude }
    }

    fn rounded_bits(self) -> u64 {
        if self.top == 0 {
            return 0;
        }
        let length = 128 - self.top.leading_zeros() as Unit;
        // The exponent field, at least 1; the last place is then `drop` bits above our unit.
        let field = (self.unit + length - 53).max(1);
        if field > 2046 {
            return f64::INFINITY.to_bits();
        }
        let drop = field - self.unit;
        let mantissa = match u32::try_from(drop) {
            Ok(drop) => self.rounded_shift(drop),
            Err(_) => (self.top << -drop) as u64,
        };
        // Subnormals lack the 53rd bit, and a carry into the 54th goes on into the exponent.
        ((field as u64 - 1) << 52) + mantissa
    }

    /// `top` without its lowest `drop` bits, rounded.
    fn rounded_shift(self, drop: u32) -> u64 {
        let kept = self.top.checked_shr(drop).unwrap_or(0);
        let dropped = self.top ^ kept.checked_shl(drop).unwrap_or(0);
        let half = 1u128.checked_shl(drop.wrapping_sub(1)).unwrap_or(0);
        let is_odd = kept & 1 == 1;
        let up =
            drop > 0 && half != 0 && (dropped > half || dropped == half && (self.more || is_odd));
        kept as u64 + u64::from(up)
    }
}
