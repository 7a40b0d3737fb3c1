//! How much a counter has grown, and how fast.

use std::cmp::Ordering;

use highwater_core::Timestamp;
use num_bigint::{BigInt, BigUint, Sign};

use super::encoding::{
    DecodeError, EMPTY, Function, body_of, finished, put_header, put_varint, take_varint,
};
use super::exact_sum::{ExactSum, Quotient};
use super::value::Value;
use super::{Partial, Update};

/// Form of runs that overlap.
const OVERLAPPING: u8 = 1;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// What a counter can show.
pub trait Reading: Copy + PartialOrd + Value + for<'a> Value<Ref<'a> = Self> {
    /// Adds the reading to a sum.
    fn add_to(self, sum: &mut ExactSum);

    /// Takes the reading off a sum.
    fn take_from(self, sum: &mut ExactSum);

    /// Whether it is no number at all, and skipped.
    fn is_nan(self) -> bool {
        false
    }
}

impl Reading for f64 {
    fn add_to(self, sum: &mut ExactSum) {
        sum.update(self);
    }

    fn take_from(self, sum: &mut ExactSum) {
        sum.update(-self);
    }

    fn is_nan(self) -> bool {
        f64::is_nan(self)
    }
}

macro_rules! integer_reading {
    ($integer:ty) => {
        impl Reading for $integer {
            fn add_to(self, sum: &mut ExactSum) {
                sum.update_integer(self.into());
            }

            fn take_from(self, sum: &mut ExactSum) {
                sum.update_integer(-i128::from(self));
            }
        }
    };
}

integer_reading!(i64);
integer_reading!(u64);

/// The runs overlap: their points are those of several counters, or were merged with a gap that
/// others fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("points of a counter overlap in time")]
pub struct Overlap;

/// Readings of one counter without a gap in between.
#[derive(Clone, Debug)]
struct Run<V> {
    first: (Timestamp, V),
    last: (Timestamp, V),
    /// Sum of the readings after which the counter fell; `None` if it never did.
    resets: Option<Box<ExactSum>>,
}

/// Readings of one counter, as runs.
///
/// A fall is a reset, after which the counter has grown by the new reading. So the increase is
/// last - first + Σ readings before a reset, in real numbers, rounded once. Merging collects runs,
/// a lone reading being one too, and `finish` adds the steps between neighbours. Once a group is
/// complete, [`encode_complete`](Partial::encode_complete) writes all its runs as one: that one can
/// be merged with others before and after it, not with such that fall into it.
#[derive(Clone, Debug)]
pub struct Counter<V> {
    runs: Vec<Run<V>>,
    is_overlapping: bool,
}

impl<V: Reading> Counter<V> {
    /// Takes in one reading; NaN is skipped.
    #[inline]
    pub fn update(&mut self, time: Timestamp, value: V) {
        if !value.is_nan() {
            self.runs.push(Run { first: (time, value), last: (time, value), resets: None });
        }
    }

    /// By how much the counter has grown; `None` of nothing.
    ///
    /// # Errors
    /// [`Overlap`] if two readings share an instant, or runs overlap.
    pub fn increase(&self) -> Result<Option<f64>, Overlap> {
        Ok(self.whole()?.and_then(|run| run.grown().finish()))
    }

    /// The increase per second from the first reading to the last; `None` of less than two.
    ///
    /// # Errors
    /// As those of [`increase`](Counter::increase).
    pub fn rate(&self) -> Result<Option<f64>, Overlap> {
        let whole = self.whole()?.filter(|run| run.nanos() > 0);
        Ok(whole.and_then(|run| per_second(&run.grown(), run.nanos())))
    }

    /// The runs in order of time.
    fn ordered(&self) -> Result<Vec<&Run<V>>, Overlap> {
        let mut runs: Vec<&Run<V>> = self.runs.iter().collect();
        runs.sort_by_key(|run| run.first.0);
        let is_ordered = runs.windows(2).all(|pair| pair[0].last.0 < pair[1].first.0);
        if is_ordered && !self.is_overlapping { Ok(runs) } else { Err(Overlap) }
    }

    /// All runs as one.
    fn whole(&self) -> Result<Option<Run<V>>, Overlap> {
        let mut runs = self.ordered()?.into_iter();
        let Some(mut whole) = runs.next().cloned() else { return Ok(None) };
        runs.for_each(|run| whole.append(run));
        Ok(Some(whole))
    }
}

impl<V: Reading> Run<V> {
    /// Adds a later run, and the step to it.
    fn append(&mut self, later: &Run<V>) {
        if later.first.1.partial_cmp(&self.last.1) == Some(Ordering::Less) {
            self.last.1.add_to(self.resets.get_or_insert_default());
        }
        if let Some(resets) = &later.resets {
            self.resets.get_or_insert_default().merge(resets);
        }
        self.last = later.last;
    }

    fn grown(&self) -> ExactSum {
        let mut sum = self.resets.as_deref().cloned().unwrap_or_default();
        self.last.1.add_to(&mut sum);
        self.first.1.take_from(&mut sum);
        sum
    }

    fn nanos(&self) -> u64 {
        self.last.0.as_nanos().abs_diff(self.first.0.as_nanos())
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        Value::encode(&self.first.0, bytes);
        self.first.1.encode(bytes);
        put_varint(bytes, self.nanos());
        if self.nanos() > 0 {
            self.last.1.encode(bytes);
            let mut resets = Vec::new();
            self.resets.iter().for_each(|sum| sum.encode(&mut resets));
            put_varint(bytes, resets.len() as u64);
            bytes.extend_from_slice(&resets);
        }
    }

    /// Takes a run off the front of `bytes`.
    fn take(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let time = <Timestamp as Value>::decode(take(bytes, 8)?)?;
        let first = (time, V::decode(take(bytes, 8)?)?);
        let nanos = take_varint(bytes)?;
        if nanos == 0 {
            return Ok(Run { first, last: first, resets: None });
        }
        let end = time.as_nanos().checked_add_unsigned(nanos).ok_or(DecodeError::OutOfRange)?;
        let last = (Timestamp::from_nanos(end), V::decode(take(bytes, 8)?)?);
        let length = usize::try_from(take_varint(bytes)?).unwrap_or(usize::MAX);
        let resets = match take(bytes, length)? {
            [] => None,
            sum => Some(Box::new(ExactSum::decode(sum)?)),
        };
        Ok(Run { first, last, resets })
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], DecodeError> {
    let (front, rest) = bytes.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *bytes = rest;
    Ok(front)
}

/// A sum per second, rounded once.
fn per_second(sum: &ExactSum, nanos: u64) -> Option<f64> {
    if !sum.is_finite() {
        return sum.finish();
    }
    let (integer, exponent) = sum.integer();
    let (sign, magnitude) = (integer * BigInt::from(NANOS_PER_SECOND)).into_parts();
    let quotient = Quotient { dividend: magnitude, divisor: BigUint::from(nanos), exponent };
    let rate = quotient.rounded();
    Some(if sign == Sign::Minus { -rate } else { rate })
}

impl<V: Reading> Partial for Counter<V> {
    fn merge(&mut self, other: &Self) {
        self.runs.extend_from_slice(&other.runs);
        self.is_overlapping |= other.is_overlapping;
    }

    fn is_empty(&self) -> bool {
        self.runs.is_empty() && !self.is_overlapping
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let header = |bytes: &mut Vec<u8>, form| {
            put_header(bytes, Function::Counter, Some(V::TYPE), form);
        };
        match self.ordered() {
            Err(Overlap) => header(bytes, OVERLAPPING),
            Ok(runs) if runs.is_empty() => header(bytes, EMPTY),
            Ok(runs) => {
                header(bytes, 0);
                runs.iter().for_each(|run| run.encode(bytes));
            }
        }
    }

    fn encode_complete(&self, bytes: &mut Vec<u8>) {
        match self.whole() {
            Ok(whole) => {
                let runs = whole.into_iter().collect();
                Counter { runs, is_overlapping: false }.encode(bytes);
            }
            Err(Overlap) => self.encode(bytes),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (form, mut body) = body_of(bytes, Function::Counter, Some(V::TYPE))?;
        let mut counter = Counter { runs: Vec::new(), is_overlapping: form == OVERLAPPING };
        match form {
            0 => {
                counter.runs.push(Run::take(&mut body)?);
                while !body.is_empty() {
                    counter.runs.push(Run::take(&mut body)?);
                }
            }
            EMPTY | OVERLAPPING => finished(body)?,
            form => return Err(DecodeError::UnknownForm { function: Function::Counter, form }),
        }
        Ok(counter)
    }

    const HAS_HEAP: bool = true;

    fn heap_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Run<V>>()
    }
}

impl<V> Default for Counter<V> {
    fn default() -> Self {
        Counter { runs: Vec::new(), is_overlapping: false }
    }
}

impl<V: Reading> PartialEq for Counter<V> {
    fn eq(&self, other: &Self) -> bool {
        let bytes_of = |counter: &Self| {
            let mut bytes = Vec::new();
            counter.encode(&mut bytes);
            bytes
        };
        bytes_of(self) == bytes_of(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of<V: Reading>(readings: &[(i64, V)]) -> Counter<V> {
        let mut counter = Counter::default();
        readings.iter().for_each(|(secs, v)| counter.update(Timestamp::from_secs(*secs), *v));
        counter
    }

    fn complete<V: Reading>(counter: &Counter<V>) -> Counter<V> {
        let mut bytes = Vec::new();
        counter.encode_complete(&mut bytes);
        Counter::decode(&bytes).unwrap()
    }

    #[test]
    fn a_fall_is_a_reset() {
        let counter = of(&[(40, 7.0), (0, 10.0), (10, 15.0), (20, 2.0), (30, 2.0)]);
        assert_eq!(counter.increase(), Ok(Some(12.0)), "5 + 2 + 0 + 5");
        assert_eq!(counter.rate(), Ok(Some(0.3)));
    }

    #[test]
    fn merging_adds_the_step_between_neighbours() {
        let (early, late) = (of(&[(0, 0u64), (1, 10)]), of(&[(5, 15), (6, 30)]));
        assert_eq!((early.increase(), late.increase()), (Ok(Some(10.0)), Ok(Some(15.0))));
        for (a, b) in [(&early, &late), (&late, &early)] {
            let mut both = complete(a);
            both.merge(&complete(b));
            assert_eq!(both.increase(), Ok(Some(30.0)));
        }
    }

    #[test]
    fn little_has_no_rate() {
        assert_eq!((of::<f64>(&[]).increase(), of::<f64>(&[]).rate()), (Ok(None), Ok(None)));
        assert_eq!(
            (of(&[(1, 5i64)]).increase(), of(&[(1, 5i64)]).rate()),
            (Ok(Some(0.0)), Ok(None))
        );
        assert_eq!(of(&[(1, f64::NAN), (2, 3.0), (3, 4.0)]).increase(), Ok(Some(1.0)));
        let precise = of(&[(0, 1u64 << 60), (1, (1 << 60) + 1)]);
        assert_eq!((precise.increase(), precise.rate()), (Ok(Some(1.0)), Ok(Some(1.0))));
    }

    #[test]
    fn runs_that_overlap_have_no_answer() {
        let twice = of(&[(1, 5.0), (1, 5.0)]);
        assert_eq!((twice.increase(), twice.rate()), (Err(Overlap), Err(Overlap)));
        let mut around = complete(&of(&[(1, 1.0), (3, 3.0)]));
        around.merge(&of(&[(2, 2.0)]));
        assert_eq!(around.increase(), Err(Overlap));
        assert_eq!(complete(&around).increase(), Err(Overlap));
        let mut open = of(&[(1, 1.0), (3, 3.0)]);
        open.merge(&of(&[(2, 2.0)]));
        assert_eq!(open.increase(), Ok(Some(2.0)), "not complete before");
    }

    proptest! {
        /// Any cut in time, each part complete, merged in any order, is the whole.
        #[test]
        fn complete_parts_merge_to_the_whole(
            values in prop::collection::vec(prop_oneof![0.0f64..100.0, Just(0.0), 1e15..1e16], 1..30),
            cuts: (prop::sample::Index, prop::sample::Index),
        ) {
            let readings: Vec<(i64, f64)> = (0..).zip(values.iter().copied()).collect();
            let mut grown = ExactSum::default();
            grown.update(0.0);
            for pair in values.windows(2) {
                grown.update(pair[1]);
                if pair[1] >= pair[0] {
                    grown.update(-pair[0]);
                }
            }
            let (a, rest) = readings.split_at(cuts.0.index(readings.len()));
            let (b, c) = rest.split_at(cuts.1.index(rest.len()));
            let whole = of(&readings);
            prop_assert_eq!(whole.increase(), Ok(grown.finish()));
            for order in [[a, b, c], [c, a, b], [b, c, a]] {
                let mut merged = Counter::default();
                order.iter().for_each(|part| merged.merge(&complete(&of(part))));
                prop_assert_eq!(merged.increase(), whole.increase());
                prop_assert_eq!(merged.rate(), whole.rate());
                prop_assert_eq!(complete(&merged), complete(&whole));
            }
        }
    }
}
