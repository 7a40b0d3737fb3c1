//! A fixed-point integer wide enough for every sum of floats, or of their squares.

use num_bigint::BigInt;

use super::rounding::Magnitude;
use super::{SUM_LIMBS, Unit};

/// A two's complement integer, lowest limb first. With [`SUM_LIMBS`] limbs it counts units of the
/// smallest subnormal; half of any further limbs lie below that.
#[derive(Clone, Debug)]
pub(super) struct Wide<const LIMBS: usize>([u64; LIMBS]);

impl<const LIMBS: usize> Default for Wide<LIMBS> {
    fn default() -> Self {
        Wide([0; LIMBS])
    }
}

impl<const LIMBS: usize> Wide<LIMBS> {
    /// The unit that the lowest bit counts.
    pub(super) const LOWEST_UNIT: Unit = 1 - ((LIMBS - SUM_LIMBS) / 2 * 64) as Unit;
    /// Highest unit at which a 128-bit term stays inside.
    pub(super) const HIGHEST_UNIT: Unit = Self::LOWEST_UNIT - 1 + (LIMBS * 64 - 128) as Unit;

    /// Adds `term` units of `unit`; what lies beyond the highest limb is lost.
    pub(super) fn add(&mut self, term: i128, unit: Unit) {
        let offset = (unit - Self::LOWEST_UNIT) as usize;
        let (first, bit) = (offset / 64, offset % 64);
        let sign = (term >> 127) as u64;
        let low = (term as u128) << bit;
        let high = if bit == 0 { sign } else { (term >> (128 - bit)) as u64 };
        let mut carry = false;
        for (index, limb) in self.0.iter_mut().enumerate().skip(first) {
            let part = match index - first {
                0 => low as u64,
                1 => (low >> 64) as u64,
                2 => high,
                // From here on a carry cancels the sign, or nothing changes at all.
                _ if carry == (sign != 0) => break,
                _ => sign,
            };
            (*limb, carry) = limb.carrying_add(part, carry);
        }
    }

    /// Adds another one.
    pub(super) fn add_wide(&mut self, other: &Self) {
        let mut carry = false;
        for (limb, part) in self.0.iter_mut().zip(&other.0) {
            (*limb, carry) = limb.carrying_add(*part, carry);
        }
    }

    /// Turns the number into its negative.
    fn negate(&mut self) {
        let mut carry = true;
        for limb in &mut self.0 {
            (*limb, carry) = (!*limb).carrying_add(0, carry);
        }
    }

    /// The digits that are not 0 with their places, in base 2^64, each in -2^63 .. 2^63.
    ///
    /// Such digits are sparse for a sum of numbers that are far apart, whatever their signs.
    pub(super) fn digits(&self) -> impl Iterator<Item = (u8, i64)> {
        let mut carry = false;
        let digits = self.0.iter().zip(0..).map(move |(limb, place)| {
            let (digit, wrapped) = limb.overflowing_add(u64::from(carry));
            carry = wrapped || digit >> 63 != 0;
            (place, digit as i64)
        });
        digits.filter(|(_, digit)| *digit != 0)
    }

    /// Adds a digit at this place; `false` if there is no such place.
    pub(super) fn add_digit(&mut self, place: u8, digit: i64) -> bool {
        let is_inside = usize::from(place) < LIMBS;
        if is_inside {
            self.add(digit.into(), Unit::from(place) * 64 + Self::LOWEST_UNIT);
        }
        is_inside
    }

    /// Whether the number is negative, and the limbs of its magnitude.
    fn sign_and_limbs(&self) -> (bool, [u64; LIMBS]) {
        let negative = self.0[LIMBS - 1] >> 63 != 0;
        let mut magnitude = self.clone();
        if negative {
            magnitude.negate();
        }
        (negative, magnitude.0)
    }

    /// The number as a mantissa with a sign and its unit, if 127 bits and a sign hold it.
    pub(super) fn narrow(&self) -> Option<(i128, Unit)> {
        let (negative, limbs) = self.sign_and_limbs();
        let Some(lowest) = limbs.iter().position(|limb| *limb != 0) else {
            return Some((0, Self::LOWEST_UNIT));
        };
        let from = lowest * 64 + limbs[lowest].trailing_zeros() as usize;
        if length(&limbs) - from > 127 {
            return None;
        }
        let mantissa = bits_from(&limbs, from) as i128;
        Some((if negative { -mantissa } else { mantissa }, from as Unit + Self::LOWEST_UNIT))
    }

    /// The number as its 128 highest bits.
    pub(super) fn magnitude(&self) -> Magnitude {
        let (negative, limbs) = self.sign_and_limbs();
        let from = length(&limbs).saturating_sub(128);
        let more = limbs[..from / 64].iter().any(|limb| *limb != 0)
            || limbs[from / 64] & ((1 << (from % 64)) - 1) != 0;
        let unit = from as Unit + Self::LOWEST_UNIT;
        Magnitude { negative, top: bits_from(&limbs, from), unit, more }
    }

    /// The number in units of [`LOWEST_UNIT`](Wide::LOWEST_UNIT).
    pub(super) fn integer(&self) -> BigInt {
        BigInt::from_signed_bytes_le(self.0.map(u64::to_le_bytes).as_flattened())
    }
}

/// Number of bits up to the highest that is set.
fn length(limbs: &[u64]) -> usize {
    let highest = limbs.iter().rposition(|limb| *limb != 0);
    highest.map_or(0, |index| index * 64 + 64 - limbs[index].leading_zeros() as usize)
}

/// 128 bits from this bit on.
fn bits_from(limbs: &[u64], from: usize) -> u128 {
    let limb = |index: usize| u128::from(limbs.get(index).copied().unwrap_or(0));
    let (first, bit) = (from / 64, from % 64);
    let low = (limb(first) | limb(first + 1) << 64) >> bit;
    if bit == 0 { low } else { low | limb(first + 2) << (128 - bit) }
}
