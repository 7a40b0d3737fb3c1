//! Percentiles, approximately: how many values lie in each of many narrow buckets.

use std::collections::BTreeMap;

use super::encoding::{
    DecodeError, EMPTY, Function, body_of, finished, put_header, put_varint, take_varint, unzigzag,
    zigzag,
};
use super::{Partial, Update};

/// So many of the highest bits of a float make its bucket: sign, exponent, 6 bits of mantissa.
const KEPT_BITS: u32 = 18;
const DROPPED_BITS: u32 = u64::BITS - KEPT_BITS;
/// Bucket of infinity; those above it are left to NaN.
const INFINITE: i32 = (0x7ff_u64 << 52 >> DROPPED_BITS) as i32;
/// Bucket of every NaN above all numbers; that of the others is its opposite.
const NAN: i32 = (1 << (KEPT_BITS - 1)) - 1;

/// Counts of values per bucket, with the smallest and the greatest value.
///
/// Between two powers of two lie 64 buckets of equal width, so the middle of a bucket is at most
/// 1/128 (0.8 %) away from any value in it (for normal floats, above 2.2e-308). Buckets come from
/// the bits of a float, not from a logarithm: they are the same on every machine. Values are in
/// IEEE total order, so NaN lie beyond the infinities.
///
/// Source: Masson, Rim, Lee, DDSketch, PVLDB 12(12), 2019, with linear instead of logarithmic
/// buckets between powers of two, and without a limit to their number.
#[derive(Clone, Debug, Default)]
pub struct Percentiles {
    buckets: BTreeMap<i32, u64>,
    /// Smallest and greatest value; (0, 0) of nothing.
    ends: (f64, f64),
    count: u64,
}

impl Percentiles {
    /// The value below which the share `p` (0 to 1) of all values lies, on a line between its
    /// neighbours like the exact percentile; `None` of nothing.
    ///
    /// Each neighbour is off by 1/128 of its magnitude at most, and the smallest and the greatest
    /// value are exact.
    pub fn finish(&self, p: f64) -> Option<f64> {
        let last = self.count.checked_sub(1)?;
        let rank = p.clamp(0.0, 1.0) * last as f64;
        let (below, part) = ((rank as u64).min(last), rank.fract());
        let low = self.ranked(below);
        let high = if part == 0.0 { low } else { self.ranked((below + 1).min(last)) };
        Some(if low.total_cmp(&high).is_eq() { low } else { low * (1.0 - part) + high * part })
    }

    /// About the value with so many values below it.
    fn ranked(&self, rank: u64) -> f64 {
        let (min, max) = self.ends;
        if rank == 0 {
            return min;
        }
        let mut up_to = 0u64;
        let bucket = self.buckets.iter().find(|(_, count)| {
            up_to = up_to.saturating_add(**count);
            up_to > rank
        });
        match bucket {
            Some((bucket, _)) if rank + 1 < self.count => clamped(middle(*bucket), min, max),
            _ => max,
        }
    }

    fn take_ends(&mut self, min: f64, max: f64) {
        self.ends = match self.count {
            0 => (min, max),
            _ => (smaller(self.ends.0, min), greater(self.ends.1, max)),
        };
    }
}

fn smaller(a: f64, b: f64) -> f64 {
    if a.total_cmp(&b).is_le() { a } else { b }
}

fn greater(a: f64, b: f64) -> f64 {
    if a.total_cmp(&b).is_ge() { a } else { b }
}

fn clamped(value: f64, min: f64, max: f64) -> f64 {
    smaller(greater(value, min), max)
}

/// The bucket of a value, ascending in total order; -1 - n is the opposite of n.
#[inline]
fn bucket_of(value: f64) -> i32 {
    if value.is_nan() {
        return if value.is_sign_negative() { -1 - NAN } else { NAN };
    }
    let bucket = (value.abs().to_bits() >> DROPPED_BITS) as i32;
    if value.is_sign_negative() { -1 - bucket } else { bucket }
}

/// The value in the middle of a bucket; of those around zero, zero.
fn middle(bucket: i32) -> f64 {
    if bucket < 0 {
        return -middle(-1 - bucket);
    }
    let start = (bucket as u64) << DROPPED_BITS;
    match bucket {
        0 => 0.0,
        1..INFINITE => f64::from_bits(start | 1 << (DROPPED_BITS - 1)),
        INFINITE => f64::INFINITY,
        _ => f64::NAN,
    }
}

impl Update<f64> for Percentiles {
    #[inline]
    fn update(&mut self, value: f64) {
        let in_bucket = self.buckets.entry(bucket_of(value)).or_default();
        *in_bucket = in_bucket.saturating_add(1);
        self.take_ends(value, value);
        self.count = self.count.saturating_add(1);
    }
}

impl Update<i64> for Percentiles {
    #[inline]
    fn update(&mut self, value: i64) {
        self.update(value as f64);
    }
}

impl Update<u64> for Percentiles {
    #[inline]
    fn update(&mut self, value: u64) {
        self.update(value as f64);
    }
}

impl Partial for Percentiles {
    fn merge(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        for (bucket, count) in &other.buckets {
            let in_bucket = self.buckets.entry(*bucket).or_default();
            *in_bucket = in_bucket.saturating_add(*count);
        }
        self.take_ends(other.ends.0, other.ends.1);
        self.count = self.count.saturating_add(other.count);
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        if self.is_empty() {
            return put_header(bytes, Function::Percentiles, None, EMPTY);
        }
        put_header(bytes, Function::Percentiles, None, 0);
        bytes.extend_from_slice(&self.ends.0.to_le_bytes());
        bytes.extend_from_slice(&self.ends.1.to_le_bytes());
        let mut before = None;
        for (bucket, count) in &self.buckets {
            match before.replace(*bucket) {
                None => put_varint(bytes, zigzag(*bucket)),
                Some(before) => put_varint(bytes, (bucket - before) as u64),
            }
            put_varint(bytes, *count);
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match body_of(bytes, Function::Percentiles, None)? {
            (0, body) => decode_buckets(body),
            (EMPTY, body) => finished(body).map(|()| Percentiles::default()),
            (form, _) => Err(DecodeError::UnknownForm { function: Function::Percentiles, form }),
        }
    }

    const HAS_HEAP: bool = true;

    fn heap_bytes(&self) -> usize {
        self.buckets.len() * 2 * size_of::<(i32, u64)>()
    }
}

fn decode_buckets(body: &[u8]) -> Result<Percentiles, DecodeError> {
    let (min, body) = body.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
    let (max, mut body) = body.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
    let ends = (f64::from_le_bytes(*min), f64::from_le_bytes(*max));
    let (mut buckets, mut all) = (BTreeMap::new(), 0u64);
    let mut bucket = unzigzag(take_varint(&mut body)?)?;
    loop {
        let count = take_varint(&mut body)?;
        if count == 0 {
            return Err(DecodeError::OutOfRange);
        }
        buckets.insert(bucket, count);
        all = all.saturating_add(count);
        if body.is_empty() {
            break;
        }
        let distance = i32::try_from(take_varint(&mut body)?).ok().filter(|apart| *apart > 0);
        bucket =
            distance.and_then(|apart| bucket.checked_add(apart)).ok_or(DecodeError::OutOfRange)?;
    }
    // Every bucket lies between those of the ends.
    let first = buckets.first_key_value().map(|(bucket, _)| *bucket);
    let is_sound = first == Some(bucket_of(ends.0)) && bucket == bucket_of(ends.1);
    if is_sound {
        Ok(Percentiles { buckets, ends, count: all })
    } else {
        Err(DecodeError::OutOfRange)
    }
}

impl PartialEq for Percentiles {
    fn eq(&self, other: &Self) -> bool {
        let bits = |(min, max): (f64, f64)| (min.to_bits(), max.to_bits());
        self.buckets == other.buckets && bits(self.ends) == bits(other.ends)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Percentiles {
        let mut partial = Percentiles::default();
        values.iter().for_each(|value| partial.update(*value));
        partial
    }

    #[test]
    fn a_hundred_thousand() {
        let values: Vec<f64> = (1..=100_000).map(f64::from).collect();
        let partial = of(&values);
        let p95 = partial.finish(0.95).unwrap();
        assert!((94_050.0..=95_950.0).contains(&p95), "{p95}");
        assert_eq!((partial.finish(0.0), partial.finish(1.0)), (Some(1.0), Some(100_000.0)));
    }

    #[test]
    fn few_values_are_exact_at_the_ends_and_between() {
        assert_eq!(of(&[]).finish(0.5), None);
        assert_eq!(of(&[0.3]).finish(0.99), Some(0.3));
        assert_eq!(of(&[5.0, -3.0]).finish(0.25), Some(-1.0));
        assert_eq!(of(&[-0.0, -0.0]).finish(0.5).map(f64::to_bits), Some((-0.0f64).to_bits()));
        assert_eq!(of(&[-1.0, 0.0, 1.0]).finish(0.5), Some(0.0));
    }

    #[test]
    fn what_is_not_finite_lies_at_the_ends() {
        let partial = of(&[f64::NAN, 1.0, f64::INFINITY, f64::NEG_INFINITY, f64::INFINITY]);
        assert_eq!(partial.finish(0.0), Some(f64::NEG_INFINITY));
        assert_eq!(partial.finish(0.5), Some(f64::INFINITY));
        assert!(partial.finish(1.0).unwrap().is_nan());
        let extremes = of(&[-f64::MAX, f64::MAX]);
        assert_eq!(extremes.finish(0.5), Some(0.0));
        let large = of(&[f64::MAX; 3]);
        assert_eq!(large.finish(0.5), Some(f64::MAX));
    }

    proptest! {
        #[test]
        fn the_error_is_as_stated(
            values in prop::collection::vec(prop_oneof![1e-300f64..1e300, 1.0..2.0, 1e3..1e6], 1..60),
            p in 0.0f64..=1.0,
            sign in prop_oneof![Just(1.0), Just(-1.0)],
        ) {
            let mut values: Vec<f64> = values.iter().map(|value| value * sign).collect();
            let estimate = of(&values).finish(p).unwrap();
            values.sort_by(f64::total_cmp);
            let rank = p * (values.len() - 1) as f64;
            let (low, high) = (values[rank as usize], values[rank.ceil() as usize]);
            let exact = low * (1.0 - rank.fract()) + high * rank.fract();
            prop_assert!((estimate - exact).abs() <= exact.abs() * 0.0079, "{estimate} for {exact}");
        }

        #[test]
        fn buckets_ascend_like_their_values(a: f64, b: f64) {
            let (a, b) = (smaller(a, b), greater(a, b));
            prop_assert!(bucket_of(a) <= bucket_of(b), "{a} {b}");
            prop_assert_eq!(bucket_of(-a), -1 - bucket_of(a));
        }
    }
}
