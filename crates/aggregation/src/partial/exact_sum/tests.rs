//! The exact sum against a slow sum that is plainly right, and at its corners.

use proptest::prelude::*;

use super::*;

/// Digits in base 2^32, lowest first, of units of 2^-1074: school arithmetic and nothing else.
#[derive(Clone, Default)]
struct Natural(Vec<u32>);

impl Natural {
    fn add(&mut self, mantissa: u64, shift: usize) {
        let (first, bit) = (shift / 32, shift % 32);
        let shifted = u128::from(mantissa) << bit;
        self.0.resize(self.0.len().max(first + 5), 0);
        let mut carry = 0u64;
        for index in first..self.0.len() {
            let digit = shifted.checked_shr(32 * (index - first) as u32).unwrap_or(0) as u32;
            let sum = u64::from(self.0[index]) + u64::from(digit) + carry;
            self.0[index] = sum as u32;
            carry = sum >> 32;
        }
        self.0.push(carry as u32);
    }

    fn minus(&self, other: &Natural) -> Natural {
        let mut borrow = 0i64;
        let digits = (0..self.0.len().max(other.0.len())).map(|index| {
            let digit = |n: &Natural| i64::from(n.0.get(index).copied().unwrap_or(0));
            let difference = digit(self) - digit(other) - borrow;
            borrow = i64::from(difference < 0);
            difference.rem_euclid(1 << 32) as u32
        });
        let digits = digits.collect();
        assert_eq!(borrow, 0);
        Natural(digits)
    }

    fn is_less(&self, other: &Natural) -> bool {
        let digit = |n: &Natural, index| n.0.get(index).copied().unwrap_or(0);
        (0..self.0.len().max(other.0.len()))
            .rev()
            .map(|index| digit(self, index).cmp(&digit(other, index)))
            .find(|order| order.is_ne())
            .is_some_and(|order| order.is_lt())
    }

    /// Bits, highest first, of `self / divisor` with 128 places after the point, then one bit
    /// that says whether there is a remainder.
    fn quotient_bits(&self, divisor: u64) -> Vec<bool> {
        let (mut remainder, mut bits) = (0u128, Vec::new());
        for digit in self.0.iter().rev().copied().chain([0; 4]) {
            for bit in (0..32).rev() {
                remainder = remainder << 1 | u128::from(digit >> bit & 1);
                bits.push(remainder >= u128::from(divisor));
                if bits[bits.len() - 1] {
                    remainder -= u128::from(divisor);
                }
            }
        }
        bits.push(remainder != 0);
        bits
    }
}

/// The sum of finite floats divided by `divisor`, rounded once.
fn slow_quotient(values: &[f64], divisor: u64) -> f64 {
    let (mut plus, mut minus) = (Natural::default(), Natural::default());
    for value in values {
        let bits = value.to_bits();
        let (field, fraction) = (bits >> 52 & 0x7ff, bits & ((1 << 52) - 1));
        let mantissa = if field == 0 { fraction } else { fraction | 1 << 52 };
        let side = if value.is_sign_negative() { &mut minus } else { &mut plus };
        side.add(mantissa, field.max(1) as usize - 1);
    }
    let negative = plus.is_less(&minus);
    let magnitude = if negative { minus.minus(&plus) } else { plus.minus(&minus) };
    let bits = magnitude.quotient_bits(divisor);
    // Index of the bit worth 2^-1074 is len - 130: 128 places and the remainder follow it.
    let last_place = bits.len() - 130;
    let Some(highest) = bits.iter().position(|bit| *bit) else { return 0.0 };
    let last_kept = (highest + 52).min(last_place);
    let mut mantissa = 0u64;
    for bit in &bits[highest.min(last_kept)..=last_kept] {
        mantissa = mantissa << 1 | u64::from(*bit);
    }
    let (half, rest) = (bits[last_kept + 1], bits[last_kept + 2..].contains(&true));
    if half && (rest || mantissa & 1 == 1) {
        mantissa += 1;
    }
    let exponent = (last_place - last_kept) as u64;
    let infinity = f64::INFINITY.to_bits();
    // A mantissa of 53 bits has its highest one in the exponent, one step up.
    let rounded = f64::from_bits(((exponent << 52) + mantissa).min(infinity));
    if negative { -rounded } else { rounded }
}

fn sum_of(values: &[f64]) -> ExactSum {
    let mut sum = ExactSum::default();
    values.iter().for_each(|value| sum.update(*value));
    sum
}

fn sum(values: &[f64]) -> f64 {
    sum_of(values).finish().unwrap()
}

fn round_trip(sum: &ExactSum) -> ExactSum {
    let mut bytes = Vec::new();
    sum.encode(&mut bytes);
    ExactSum::decode(&bytes).unwrap()
}

/// Finite floats of every magnitude, of like magnitude, and neighbours that nearly cancel.
fn finite_floats() -> impl Strategy<Value = Vec<f64>> {
    let anywhere = any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |v| v.is_finite());
    let like = -1000.0..1000.0;
    let integer = (-1_000_000i64..1_000_000).prop_map(|v| v as f64);
    let extreme = prop::sample::select(vec![
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        -5e-324,
        1e16,
        -1e16,
        1.0,
        0.0,
        -0.0,
        f64::EPSILON,
        9_007_199_254_740_993.0,
    ]);
    let one = prop_oneof![anywhere, like, integer, extreme];
    let list = prop::collection::vec(one, 1..40);
    (list, any::<bool>()).prop_map(|(list, cancel)| {
        let opposite = list.iter().rev().skip(1).map(|v: &f64| -v).filter(|_| cancel);
        list.iter().copied().chain(opposite).collect()
    })
}

proptest! {
    #[test]
    fn equals_the_slow_sum(values in finite_floats(), count in 1u64..1000) {
        let fast = sum_of(&values);
        let all_negative_zero = values.iter().all(|v| *v == 0.0 && v.is_sign_negative());
        let expected = if all_negative_zero { -0.0 } else { slow_quotient(&values, 1) };
        prop_assert_eq!(fast.finish().unwrap().to_bits(), expected.to_bits());
        prop_assert_eq!(round_trip(&fast).finish().unwrap().to_bits(), expected.to_bits());
        if !all_negative_zero {
            let quotient = fast.divided_by(count).unwrap();
            prop_assert_eq!(quotient.abs().to_bits(), slow_quotient(&values, count).abs().to_bits());
        }
    }

    #[test]
    fn order_and_split_never_matter(values in finite_floats(), cut in any::<prop::sample::Index>()) {
        let whole = sum_of(&values);
        let reversed: Vec<f64> = values.iter().rev().copied().collect();
        prop_assert_eq!(&sum_of(&reversed), &whole);
        let (head, tail) = values.split_at(cut.index(values.len()));
        let mut merged = round_trip(&sum_of(head));
        merged.merge(&round_trip(&sum_of(tail)));
        prop_assert_eq!(&merged, &whole);
        let mut other_way = sum_of(tail);
        other_way.merge(&sum_of(head));
        prop_assert_eq!(&other_way, &whole);
    }
}

#[test]
fn cancellation_leaves_what_is_small() {
    assert_eq!(sum(&[1e16, 1.0, -1e16]), 1.0);
    assert_eq!(sum(&[1e308, 1e-308, -1e308]), 1e-308);
    assert_eq!(sum(&[f64::MAX, 5e-324, -f64::MAX]), 5e-324);
    assert_eq!(sum(&[0.1, 0.2, 0.3]), 0.6);
    assert_eq!(sum(&[1.5, -1.5]).to_bits(), 0.0f64.to_bits());
}

#[test]
fn overflow_is_infinite_and_comes_back() {
    assert_eq!(sum(&[f64::MAX, f64::MAX]), f64::INFINITY);
    assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
    let half_a_unit = 2f64.powi(969);
    assert_eq!(sum(&[f64::MAX, half_a_unit]), f64::MAX);
    assert_eq!(sum(&[f64::MAX, half_a_unit, half_a_unit]), f64::INFINITY);
    assert_eq!(sum(&[2f64.powi(1023)]), 2f64.powi(1023));
    assert_eq!(round_trip(&sum_of(&[2f64.powi(1023); 5])).divided_by(5), Some(2f64.powi(1023)));
}

#[test]
fn infinities_and_nan_are_as_in_ieee_addition() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    assert_eq!(sum(&[1.0, inf, -5.0, inf]), inf);
    assert_eq!(sum(&[-inf, 1.0]), -inf);
    assert!(sum(&[inf, -inf]).is_nan());
    assert!(sum(&[nan, 1.0]).is_nan());
    assert!(round_trip(&sum_of(&[inf, 3.0, -inf])).finish().unwrap().is_nan());
    assert_eq!(round_trip(&sum_of(&[inf, 3.0])), sum_of(&[inf]));
}

#[test]
fn only_negative_zeros_stay_negative() {
    let bits = |values: &[f64]| sum(values).to_bits();
    assert_eq!(bits(&[-0.0, -0.0]), (-0.0f64).to_bits());
    assert_eq!(bits(&[-0.0, 0.0]), 0.0f64.to_bits());
    assert_eq!(bits(&[-0.0, 1.0, -1.0]), 0.0f64.to_bits());
    assert_eq!(ExactSum::default().finish(), None);
    let mut merged = sum_of(&[1.0]);
    merged.merge(&sum_of(&[-0.0]));
    merged.merge(&round_trip(&sum_of(&[-1.0])));
    assert_eq!(merged.finish().unwrap().to_bits(), 0.0f64.to_bits());
}

#[test]
fn a_million_equal_values_fit_the_window() {
    let values = vec![0.1; 1_000_000];
    let sum = sum_of(&values);
    assert!(sum.spilled.is_none());
    assert_eq!(sum.finish(), Some(100_000.0));
}

#[test]
fn usual_sums_are_short() {
    let mut bytes = Vec::new();
    sum_of(&(0..360).map(|i| f64::from(i) * 0.37 % 100.0).collect::<Vec<_>>()).encode(&mut bytes);
    assert!(bytes.len() <= 12, "{} bytes", bytes.len());
}
