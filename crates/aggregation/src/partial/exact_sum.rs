//! Exact sums of floats: no rounding before the end, and the order never matters.
//!
//! A finite float is an integer times a power of two, so a sum of floats is a (long) integer
//! times a power of two. Values of like magnitude share a *window*: a 128-bit integer counting
//! units of `2^base`, to which a value is added as its mantissa shifted by its exponent minus
//! `base`. What does not fit flushes the window into a wide integer that covers all floats,
//! and a new window starts where the values are now.
//!
//! Source: Neal, *Fast exact summation using small and large superaccumulators*, 2015; Kulisch,
//! *Computer Arithmetic and Validity*, 2008. The window is ours.

mod quotient;
mod rounding;
mod wide;

#[cfg(test)]
mod tests;

use super::encoding::{
    DecodeError, EMPTY, Function, body_of, finished, put_header, put_shortest, put_varint,
    shortest, take_varint, unzigzag, zigzag,
};
use super::{Partial, Update};
use highwater_core::FieldType;
use num_bigint::BigInt;
pub(super) use quotient::Quotient;
use rounding::Magnitude;
use wide::Wide;

/// Exponents are counted as in the exponent field of a float: unit `u` is `2^(u - 1075)`, the
/// last place of a normal float whose exponent field is `u`. Unit 1 is the smallest subnormal.
type Unit = i32;

/// Distance between a unit and its power of two; also the unit of the number one.
const ONE: Unit = 1075;
/// A mantissa of 53 bits may be shifted by this much and leave a bit for the sign.
const MAX_SHIFT: u32 = 127 - 1 - 53;
/// Bits for the greatest float in units of the smallest (2,098), for 2^64 of them, and a sign.
const SUM_LIMBS: usize = 34;
/// The same for squares of floats: from 2^-2148 to 2^2048, 2^64 of them, and a sign.
const SQUARES_LIMBS: usize = 68;
/// Base of a window that has not been placed: every value is out of its reach.
const UNPLACED: Unit = 4096;
/// A new window starts this far below its first value.
const ROOM_BELOW: u32 = 32;

/// What was seen beside the finite sum.
mod seen {
    /// A value other than -0.0.
    pub(super) const VALUE: u8 = 1;
    pub(super) const NEGATIVE_ZERO: u8 = 2;
    pub(super) const NAN: u8 = 4;
    pub(super) const INFINITY: u8 = 8;
    pub(super) const NEGATIVE_INFINITY: u8 = 16;
}

/// How the body of an encoded sum is to be read.
mod form {
    /// Exponent and mantissa, neither for zero.
    pub(super) const NARROW: u8 = 0;
    /// Digits and their places.
    pub(super) const WIDE: u8 = 1;
    pub(super) const NEGATIVE_ZERO: u8 = 2;
    pub(super) const NAN: u8 = 3;
    pub(super) const INFINITY: u8 = 4;
    pub(super) const NEGATIVE_INFINITY: u8 = 5;
}

/// The exact sum of floats (or of integers, for means).
///
/// The answer is that of real numbers, rounded once, half to even; beyond the greatest float it
/// is infinite. Infinities and NaN give what IEEE addition gives: NaN for NaN and for infinities
/// of both signs. The sum of nothing but -0.0 is -0.0; every other zero is 0.0.
pub type ExactSum = Exact<SUM_LIMBS>;

/// The exact sum of the squares of finite floats, or of integers.
///
/// The square of a float has up to 106 bits and is added as that integer, never as a float.
pub(super) type ExactSquares = Exact<SQUARES_LIMBS>;

/// An exact sum that spills into so many limbs.
#[derive(Clone, Debug)]
pub struct Exact<const LIMBS: usize> {
    window: i128,
    base: Unit,
    seen: u8,
    spilled: Option<Box<Wide<LIMBS>>>,
}

impl<const LIMBS: usize> Default for Exact<LIMBS> {
    fn default() -> Self {
        Exact { window: 0, base: UNPLACED, seen: 0, spilled: None }
    }
}

impl Update<f64> for ExactSum {
    #[inline]
    fn update(&mut self, value: f64) {
        let bits = value.to_bits();
        let field = (bits >> 52) as i32 & 0x7ff;
        let shift = (field - self.base) as u32;
        if shift <= MAX_SHIFT {
            let mantissa = (bits & ((1 << 52) - 1) | 1 << 52) as i64;
            let sign = (bits as i64) >> 63;
            let term = i128::from((mantissa ^ sign) - sign) << shift;
            if let Some(window) = self.window.checked_add(term) {
                self.window = window;
                return;
            }
        }
        self.update_outside_window(value);
    }
}

impl ExactSquares {
    /// Takes in the square of a finite float.
    #[inline]
    pub(super) fn update_square(&mut self, value: f64) {
        let (mantissa, unit) = mantissa_and_unit(value);
        if mantissa != 0 {
            // Fewer bits leave more room in the window.
            let zeros = mantissa.trailing_zeros();
            let odd = mantissa >> zeros;
            self.add(odd * odd, 2 * (unit + zeros as Unit) - ONE);
        }
    }

    /// Takes in the square of an integer of 64 bits, signed or not.
    #[inline]
    pub(super) fn update_integer_square(&mut self, value: i128) {
        let magnitude = value.unsigned_abs();
        let square = magnitude * magnitude;
        match i128::try_from(square) {
            Ok(square) => self.add(square, ONE),
            Err(_) => {
                self.add((square >> 64) as i128, ONE + 64);
                self.add((square as u64).into(), ONE);
            }
        }
    }
}

impl ExactSum {
    /// Takes in an integer as it is, not rounded to a float.
    #[inline]
    pub(super) fn update_integer(&mut self, value: i128) {
        let shift = (ONE - self.base) as u32;
        if shift <= ROOM_BELOW
            && let Some(window) = self.window.checked_add(value << shift)
        {
            self.window = window;
            return;
        }
        self.seen |= seen::VALUE;
        self.add(value, ONE);
    }

    /// Takes in a float times an integer, without rounding the product.
    pub(super) fn update_product(&mut self, value: f64, factor: u64) {
        if value.is_finite() {
            let (mantissa, unit) = mantissa_and_unit(value);
            self.seen |= seen::VALUE;
            self.add(mantissa * i128::from(factor), unit);
        } else {
            self.update(value);
        }
    }

    /// Takes in an integer of 64 bits, signed or not, times another.
    pub(super) fn update_integer_product(&mut self, value: i128, factor: u64) {
        self.seen |= seen::VALUE;
        self.add((value >> 32) * i128::from(factor), ONE + 32);
        self.add((value & 0xffff_ffff) * i128::from(factor), ONE);
    }

    /// The sum, rounded once; `None` of nothing.
    pub fn finish(&self) -> Option<f64> {
        self.divided_by(1)
    }

    /// The sum divided by `count`, rounded once; `None` of nothing, and for a count of 0.
    pub fn divided_by(&self, count: u64) -> Option<f64> {
        if self.is_empty() || count == 0 {
            return None;
        }
        Some(match self.special() {
            Some(form::NAN) => f64::NAN,
            Some(form::INFINITY) => f64::INFINITY,
            Some(form::NEGATIVE_INFINITY) => f64::NEG_INFINITY,
            Some(_) => -0.0,
            None => self.magnitude().divided_by(count).rounded(),
        })
    }

    /// The form of a sum that is not a finite number other than -0.0.
    fn special(&self) -> Option<u8> {
        let infinities = self.seen & (seen::INFINITY | seen::NEGATIVE_INFINITY);
        if self.seen & !seen::VALUE == 0 {
            None
        } else if self.seen & seen::NAN != 0 || infinities.count_ones() == 2 {
            Some(form::NAN)
        } else if infinities == seen::INFINITY {
            Some(form::INFINITY)
        } else if infinities == seen::NEGATIVE_INFINITY {
            Some(form::NEGATIVE_INFINITY)
        } else {
            (self.seen == seen::NEGATIVE_ZERO).then_some(form::NEGATIVE_ZERO)
        }
    }

    fn magnitude(&self) -> Magnitude {
        match self.total() {
            Some(wide) => wide.magnitude(),
            None => Magnitude::of(self.window, self.base),
        }
    }

    /// Whether neither NaN nor an infinity was seen.
    pub(super) fn is_finite(&self) -> bool {
        self.seen & (seen::NAN | seen::INFINITY | seen::NEGATIVE_INFINITY) == 0
    }

    /// A sum that is not a number, whatever is added to it.
    pub(super) fn nan() -> Self {
        Exact { seen: seen::NAN, ..Exact::default() }
    }

    fn update_outside_window(&mut self, value: f64) {
        let (mantissa, unit) = mantissa_and_unit(value);
        self.seen |= match value {
            _ if value.is_nan() => seen::NAN,
            f64::INFINITY => seen::INFINITY,
            f64::NEG_INFINITY => seen::NEGATIVE_INFINITY,
            _ if mantissa == 0 && value.is_sign_negative() => seen::NEGATIVE_ZERO,
            _ => seen::VALUE,
        };
        if value.is_finite() {
            self.add(mantissa, unit);
        }
    }
}

/// A finite float as an integer, and the unit that it counts.
#[inline]
fn mantissa_and_unit(value: f64) -> (i128, Unit) {
    let bits = value.to_bits();
    let field = (bits >> 52) as Unit & 0x7ff;
    let fraction = i128::from(bits & ((1 << 52) - 1));
    let mantissa = if field == 0 { fraction } else { fraction | 1 << 52 };
    (if value.is_sign_negative() { -mantissa } else { mantissa }, field.max(1))
}

impl<const LIMBS: usize> Exact<LIMBS> {
    /// Highest base of a window. That of floats is so low that infinities and NaN (field 2047) are
    /// always out of its reach.
    const MAX_BASE: Unit = match LIMBS {
        SUM_LIMBS => 2046 - MAX_SHIFT as Unit,
        _ => Wide::<LIMBS>::HIGHEST_UNIT,
    };

    /// The finite sum as an integer times a power of two.
    pub(super) fn integer(&self) -> (BigInt, i32) {
        match self.total() {
            Some(wide) => (wide.integer(), Wide::<LIMBS>::LOWEST_UNIT - ONE),
            None if self.window == 0 => (BigInt::ZERO, 0),
            None => (self.window.into(), self.base - ONE),
        }
    }

    /// Spilled part and window together; `None` if nothing has spilled.
    fn total(&self) -> Option<Wide<LIMBS>> {
        self.spilled.as_ref().map(|spilled| {
            let mut total = (**spilled).clone();
            if self.window != 0 {
                total.add(self.window, self.base);
            }
            total
        })
    }

    /// Adds `term` units of 2^(`unit` - 1075): to the window if both fit one, else by spilling.
    #[inline]
    fn add(&mut self, term: i128, unit: Unit) {
        if term == 0 {
            return;
        }
        let joined = match self.window {
            0 => Self::placed(term, unit),
            window => Self::joined(window, self.base, term, unit),
        };
        match joined {
            Some((window, base)) => (self.window, self.base) = (window, base),
            None => self.spill(term, unit),
        }
    }

    /// Flushes the window and starts a new one with `term`, which did not fit.
    #[cold]
    fn spill(&mut self, term: i128, unit: Unit) {
        let wide = self.spilled.get_or_insert_default();
        if self.window != 0 {
            wide.add(self.window, self.base);
        }
        match Self::placed(term, unit) {
            Some((window, base)) => (self.window, self.base) = (window, base),
            None => {
                wide.add(term, unit);
                self.window = 0;
            }
        }
    }

    /// Two windows as one, on the lower base; `None` if 128 bits do not hold it.
    #[inline]
    fn joined(a: i128, base_a: Unit, b: i128, base_b: Unit) -> Option<(i128, Unit)> {
        let base = base_a.min(base_b).min(Self::MAX_BASE);
        let sum = shifted(a, base_a - base)?.checked_add(shifted(b, base_b - base)?)?;
        Some((sum, base))
    }

    /// A window that holds just this, with room below for smaller values and above for more.
    fn placed(term: i128, unit: Unit) -> Option<(i128, Unit)> {
        let room_below = (spare_bits(term) / 2).min(ROOM_BELOW) as Unit;
        let lowest = Wide::<LIMBS>::LOWEST_UNIT;
        let base = (unit - room_below).clamp(lowest, Self::MAX_BASE).min(unit);
        shifted(term, unit - base).map(|window| (window, base))
    }

    /// Takes in everything that another sum of finite numbers has.
    pub(super) fn merge_finite(&mut self, other: &Self) {
        if let Some(spilled) = &other.spilled {
            self.spilled.get_or_insert_default().add_wide(spilled);
        }
        self.add(other.window, other.base);
    }

    /// Appends the body of a finite sum other than -0.0, and gives its form.
    #[inline]
    pub(super) fn encode_finite(&self, bytes: &mut Vec<u8>) -> u8 {
        match self.total() {
            None => encode_narrow(bytes, self.window, self.base),
            Some(wide) => match wide.narrow() {
                Some((mantissa, unit)) => encode_narrow(bytes, mantissa, unit),
                None => encode_wide(bytes, &wide),
            },
        }
    }

    /// Reads what [`encode_finite`](Exact::encode_finite) wrote.
    pub(super) fn decode_finite(is_wide: bool, body: &[u8]) -> Result<Self, DecodeError> {
        if is_wide { Self::decode_wide(body) } else { Self::decode_narrow(body) }
    }

    #[inline]
    fn decode_narrow(mut body: &[u8]) -> Result<Self, DecodeError> {
        let mut sum = Exact { seen: seen::VALUE, ..Exact::default() };
        if !body.is_empty() {
            let unit = unzigzag(take_varint(&mut body)?)?.saturating_add(ONE);
            let lowered = unit.min(Wide::<LIMBS>::HIGHEST_UNIT);
            let mantissa = shifted(shortest(body)?, unit - lowered);
            let mantissa = mantissa.filter(|_| unit >= Wide::<LIMBS>::LOWEST_UNIT);
            let mantissa = mantissa.ok_or(DecodeError::OutOfRange)?;
            if lowered <= Self::MAX_BASE {
                (sum.window, sum.base) = (mantissa, lowered);
            } else {
                sum.add(mantissa, lowered);
            }
        }
        Ok(sum)
    }

    fn decode_wide(body: &[u8]) -> Result<Self, DecodeError> {
        let (digits, rest) = body.as_chunks::<9>();
        finished(rest)?;
        let mut wide = Wide::default();
        for &[place, ref digit @ ..] in digits {
            if !wide.add_digit(place, i64::from_le_bytes(*digit)) {
                return Err(DecodeError::OutOfRange);
            }
        }
        let spilled = Some(Box::new(wide));
        Ok(Exact { seen: seen::VALUE, spilled, ..Exact::default() })
    }

    /// Bytes held outside of the struct itself.
    pub(super) fn heap(&self) -> usize {
        self.spilled.as_ref().map_or(0, |_| size_of::<Wide<LIMBS>>())
    }
}

#[inline]
fn shifted(value: i128, by: Unit) -> Option<i128> {
    (by as u32 <= spare_bits(value)).then(|| value << by)
}

/// By how much a value can be shifted without loss.
#[inline]
fn spare_bits(value: i128) -> u32 {
    (value ^ (value >> 127)).leading_zeros() - 1
}

impl ExactSum {
    /// Appends the body, and puts its form into the header that starts at `header`.
    #[inline]
    pub(super) fn encode_body(&self, bytes: &mut Vec<u8>, header: usize) {
        let form = match self.special() {
            Some(special) => special,
            None => self.encode_finite(bytes),
        };
        bytes[header + 1] |= form << 4;
    }

    /// Reads a body of this form; not [`EMPTY`].
    pub(super) fn decode_body(
        function: Function,
        form: u8,
        body: &[u8],
    ) -> Result<Self, DecodeError> {
        let seen = match form {
            form::NARROW => return Self::decode_narrow(body),
            form::WIDE => return Self::decode_wide(body),
            form::NEGATIVE_ZERO => seen::NEGATIVE_ZERO,
            form::NAN => seen::NAN,
            form::INFINITY => seen::INFINITY,
            form::NEGATIVE_INFINITY => seen::NEGATIVE_INFINITY,
            _ => return Err(DecodeError::UnknownForm { function, form }),
        };
        finished(body)?;
        Ok(ExactSum { seen, ..ExactSum::default() })
    }
}

/// The one odd mantissa for this number, so that equal sums have equal bytes.
#[inline]
fn encode_narrow(bytes: &mut Vec<u8>, mantissa: i128, unit: Unit) -> u8 {
    if mantissa != 0 {
        let zeros = mantissa.trailing_zeros();
        put_varint(bytes, zigzag(unit + zeros as Unit - ONE));
        put_shortest(bytes, mantissa >> zeros);
    }
    form::NARROW
}

fn encode_wide<const LIMBS: usize>(bytes: &mut Vec<u8>, wide: &Wide<LIMBS>) -> u8 {
    for (place, digit) in wide.digits() {
        bytes.push(place);
        bytes.extend_from_slice(&digit.to_le_bytes());
    }
    form::WIDE
}

impl Partial for ExactSum {
    fn merge(&mut self, other: &Self) {
        self.seen |= other.seen;
        self.merge_finite(other);
    }

    fn is_empty(&self) -> bool {
        self.seen == 0
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        if self.is_empty() {
            return put_header(bytes, Function::Sum, Some(FieldType::Float), EMPTY);
        }
        let header = bytes.len();
        put_header(bytes, Function::Sum, Some(FieldType::Float), 0);
        self.encode_body(bytes, header);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match body_of(bytes, Function::Sum, Some(FieldType::Float))? {
            (EMPTY, body) => finished(body).map(|()| ExactSum::default()),
            (form, body) => ExactSum::decode_body(Function::Sum, form, body),
        }
    }

    fn heap_bytes(&self) -> usize {
        self.heap()
    }
}

impl PartialEq for ExactSum {
    fn eq(&self, other: &Self) -> bool {
        let bytes_of = |sum: &Self| {
            let mut bytes = Vec::new();
            sum.encode(&mut bytes);
            bytes
        };
        bytes_of(self) == bytes_of(other)
    }
}
