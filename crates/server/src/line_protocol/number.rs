//! Numbers by fast paths: eight digits at a time in one machine word.
//!
//! Source: the eight-digit multiplication is D. Lemire's, "Quickly parsing eight digits", 2018.

use std::num::IntErrorKind;

/// The decimal digits at `at`, at most 19, and the position after them.
///
/// At most 19 digits always fit into a `u64`. If more follow, the position is that of the 20th.
#[inline]
pub(super) fn digits(body: &[u8], at: usize) -> (u64, usize) {
    let (first, count) = up_to_eight(body, at);
    if count < 8 {
        return (first, at + count);
    }
    let (second, count) = up_to_eight(body, at + 8);
    let value = first * POWERS[count] + second;
    if count < 8 {
        return (value, at + 8 + count);
    }
    up_to_three(body, at + 16, value)
}

fn up_to_three(body: &[u8], mut at: usize, mut value: u64) -> (u64, usize) {
    for _ in 0..3 {
        match body.get(at) {
            Some(digit @ b'0'..=b'9') => value = value * 10 + u64::from(digit - b'0'),
            _ => break,
        }
        at += 1;
    }
    (value, at)
}

/// Value and number of the decimal digits at `at`, at most eight.
#[inline]
fn up_to_eight(body: &[u8], at: usize) -> (u64, usize) {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const ABOVE_NINE: u64 = 0x7676_7676_7676_7676;
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    let word = eight_bytes(body, at) ^ ZEROS;
    // The high bit of each byte that is no digit. A carry may spoil later bytes, never earlier.
    let others = (word.wrapping_add(ABOVE_NINE) | word) & HIGH_BITS;
    let count = others.trailing_zeros() as usize / 8;
    if count == 0 {
        return (0, 0);
    }
    (eight_digits(word << (64 - 8 * count)), count)
}

/// The number whose eight digits are the bytes of `word`, the first digit in the lowest byte.
#[inline]
fn eight_digits(word: u64) -> u64 {
    const EVERY_FOURTH: u64 = 0x0000_00FF_0000_00FF;
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    let high = (pairs & EVERY_FOURTH).wrapping_mul(0x000F_4240_0000_0064);
    let low = ((pairs >> 16) & EVERY_FOURTH).wrapping_mul(0x0000_2710_0000_0001);
    high.wrapping_add(low) >> 32
}

/// The eight bytes at `at`, zero beyond the end of the body.
#[inline]
fn eight_bytes(body: &[u8], at: usize) -> u64 {
    match body.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => last_bytes(body, at),
    }
}

#[cold]
fn last_bytes(body: &[u8], at: usize) -> u64 {
    let rest = body.get(at..).unwrap_or_default();
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(bytes)
}

const POWERS: [u64; 9] = {
    let mut powers = [1; 9];
    let mut i = 1;
    while i < 9 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// An integer of at most 18 digits at `at`, and the position after it.
#[inline]
pub(super) fn short_integer(body: &[u8], at: usize) -> Option<(i64, usize)> {
    let negative = body.get(at) == Some(&b'-');
    let from = at + usize::from(negative);
    let (value, end) = digits(body, from);
    if !(1..=18).contains(&(end - from)) {
        return None;
    }
    let value = value as i64;
    Some((if negative { -value } else { value }, end))
}

/// A float of at most eight digits before and seven after the point, without exponent, at `at`,
/// and the position after it.
///
/// Both the digits and the power of ten are exact as floats, so their quotient is the correctly
/// rounded value. Source: W. Clinger, "How to read floating point numbers accurately", 1990.
#[inline]
pub(super) fn short_float(body: &[u8], at: usize) -> Option<(f64, usize)> {
    let negative = body.get(at) == Some(&b'-');
    let from = at + usize::from(negative);
    let (whole, count) = up_to_eight(body, from);
    let point = from + count;
    let (fraction, decimals) =
        if body.get(point) == Some(&b'.') { up_to_eight(body, point + 1) } else { (0, 0) };
    if count == 0 || decimals == 8 {
        return None;
    }
    let end = point + if body.get(point) == Some(&b'.') { 1 + decimals } else { 0 };
    let magnitude = (whole * POWERS[decimals] + fraction) as f64 / POWERS[decimals] as f64;
    let ends_here = matches!(body.get(end), None | Some(b',' | b' ' | b'\n' | b'\r'));
    ends_here.then_some((if negative { -magnitude } else { magnitude }, end))
}

/// Why a text is not a number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotANumber {
    /// It is something else.
    Malformed,
    /// It is one, but too large.
    OutOfRange,
}

/// An optional minus and digits; no plus.
pub(super) fn integer<T>(text: &[u8]) -> Result<T, NotANumber>
where
    T: std::str::FromStr<Err = std::num::ParseIntError>,
{
    let plain = std::str::from_utf8(text).map_err(|_| NotANumber::Malformed)?;
    if plain.starts_with('+') {
        return Err(NotANumber::Malformed);
    }
    plain.parse().map_err(|error: std::num::ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => NotANumber::OutOfRange,
        _ => NotANumber::Malformed,
    })
}

/// `-1.5e-3`, also `.5` and `5.`; no plus in front, neither NaN nor infinity, nor what would
/// round to infinity.
pub(super) fn float(text: &[u8]) -> Result<f64, NotANumber> {
    let looks_right = text.first().is_some_and(|first| *first != b'+')
        && text.iter().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    if !looks_right {
        return Err(NotANumber::Malformed);
    }
    let value: f64 = fast_float2::parse(text).map_err(|_| NotANumber::Malformed)?;
    if value.is_finite() { Ok(value) } else { Err(NotANumber::OutOfRange) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_stop_at_the_first_other_byte_and_after_nineteen() {
        for text in ["", "7", "1234567", "12345678", "123456789", "1234567890123456789"] {
            for tail in ["", ",", "\u{80}", "i 12345678", "/", ":", "\u{ba}999"] {
                let body = format!("{text}{tail}");
                let expected = text.parse().unwrap_or(0);
                assert_eq!(digits(body.as_bytes(), 0), (expected, text.len()), "{body:?}");
            }
        }
        assert_eq!(digits(b"99999999999999999999", 0), (9_999_999_999_999_999_999, 19));
        assert_eq!(digits(b"12", 7), (0, 7));
    }

    #[test]
    fn long_forms_are_read_or_refused() {
        assert_eq!(integer::<i64>(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(integer::<i64>(b"9223372036854775808"), Err(NotANumber::OutOfRange));
        assert_eq!(integer::<u64>(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(integer::<u64>(b"-1"), Err(NotANumber::Malformed));
        assert_eq!(integer::<i64>(b"+1"), Err(NotANumber::Malformed));
        assert_eq!(integer::<i64>(b""), Err(NotANumber::Malformed));
        for (text, value) in [(".1", 0.1), ("1.", 1.0), ("1.e4", 1e4), ("-.5E+1", -5.0)] {
            assert_eq!(float(text.as_bytes()), Ok(value), "{text}");
        }
        assert_eq!(float(b"1e400"), Err(NotANumber::OutOfRange));
        assert_eq!(float("9".repeat(400).as_bytes()), Err(NotANumber::OutOfRange));
        for text in ["", ".", "-", "+1", "nan", "-inf", "1e", "e1", ".e1", "1.2.3", "0x10", "--1"] {
            assert_eq!(float(text.as_bytes()), Err(NotANumber::Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn short_integers_are_what_the_library_says(n: i64, shift in 0u32..63) {
            let n = n >> shift;
            let text = n.to_string();
            let found = short_integer(text.as_bytes(), 0);
            match text.trim_start_matches('-').len() {
                19 => prop_assert_eq!(found, None),
                _ => prop_assert_eq!(found, Some((n, text.len()))),
            }
        }

        #[test]
        fn short_floats_are_what_the_library_says(
            text in "-?[0-9]{0,9}(\\.[0-9]{0,9})?", tail in "[,x]?",
        ) {
            let body = format!("{text}{tail}");
            if let Some((value, end)) = short_float(body.as_bytes(), 0) {
                prop_assert_eq!(end, text.len());
                prop_assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits());
            }
        }
    }
}
