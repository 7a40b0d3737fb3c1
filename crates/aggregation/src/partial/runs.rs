//! Points of one series in order of time, and a sum over the steps from each to the next.
//!
//! Merging collects *runs*, which are points without a gap between them; a lone point is one too.
//! So points may come in any order, and the steps are taken once all of a group are there.

use std::fmt::Debug;
use std::marker::PhantomData;

use highwater_core::Timestamp;

use super::encoding::{
    DecodeError, EMPTY, Function, body_of, finished, put_header, put_varint, take_varint,
};
use super::exact_sum::ExactSum;
use super::value::Value;
use super::{Partial, Update};

/// Form of runs that overlap.
const OVERLAPPING: u8 = 1;

/// A number that is followed through time.
pub trait Reading: Copy + PartialOrd + Value + for<'a> Value<Ref<'a> = Self> {
    /// Adds the reading to a sum.
    fn add_to(self, sum: &mut ExactSum);

    /// Takes the reading off a sum.
    fn take_from(self, sum: &mut ExactSum);

    /// Adds the reading times some nanoseconds to a sum.
    fn add_times(self, nanos: u64, sum: &mut ExactSum);

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

    fn add_times(self, nanos: u64, sum: &mut ExactSum) {
        sum.update_product(self, nanos);
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

            fn add_times(self, nanos: u64, sum: &mut ExactSum) {
                sum.update_integer_product(self.into(), nanos);
            }
        }
    };
}

integer_reading!(i64);
integer_reading!(u64);

/// What is summed over the steps from one point to the next.
pub trait Steps: Clone + Debug + Send + Sync + 'static {
    /// Whose partial it is.
    const FUNCTION: Function;

    /// Adds the step between two neighbours; a sum that nothing was added to stays `None`.
    fn step<V: Reading>(sum: &mut Option<Box<ExactSum>>, from: (Timestamp, V), to: (Timestamp, V));
}

/// The runs overlap: their points are those of several series, or were merged with a gap that
/// others fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("points of a series overlap in time")]
pub struct Overlap;

/// Points of one series without a gap in between.
#[derive(Clone, Debug)]
pub(super) struct Run<V> {
    pub(super) first: (Timestamp, V),
    pub(super) last: (Timestamp, V),
    /// The sum over all steps.
    pub(super) sum: Option<Box<ExactSum>>,
}

/// Points of one series, as runs.
///
/// Once a group is complete, [`encode_complete`](Partial::encode_complete) writes all its runs as
/// one: that one can be merged with others before and after it, not with such that fall into it.
#[derive(Clone, Debug)]
pub struct Runs<V, S> {
    runs: Vec<Run<V>>,
    is_overlapping: bool,
    steps: PhantomData<S>,
}

impl<V: Reading, S: Steps> Runs<V, S> {
    /// Takes in one point; NaN is skipped.
    #[inline]
    pub fn update(&mut self, time: Timestamp, value: V) {
        if !value.is_nan() {
            self.runs.push(Run { first: (time, value), last: (time, value), sum: None });
        }
    }

    /// The runs in order of time.
    fn ordered(&self) -> Result<Vec<&Run<V>>, Overlap> {
        let mut runs: Vec<&Run<V>> = self.runs.iter().collect();
        runs.sort_by_key(|run| run.first.0);
        let is_ordered = runs.windows(2).all(|pair| pair[0].last.0 < pair[1].first.0);
        if is_ordered && !self.is_overlapping { Ok(runs) } else { Err(Overlap) }
    }

    /// All runs as one; `None` of nothing.
    pub(super) fn whole(&self) -> Result<Option<Run<V>>, Overlap> {
        let mut runs = self.ordered()?.into_iter();
        let Some(mut whole) = runs.next().cloned() else { return Ok(None) };
        runs.for_each(|run| whole.append::<S>(run));
        Ok(Some(whole))
    }

    fn of(runs: Vec<Run<V>>, is_overlapping: bool) -> Self {
        Runs { runs, is_overlapping, steps: PhantomData }
    }
}

impl<V: Reading> Run<V> {
    /// Adds a later run, and the step to it.
    fn append<S: Steps>(&mut self, later: &Run<V>) {
        S::step(&mut self.sum, self.last, later.first);
        if let Some(sum) = &later.sum {
            self.sum.get_or_insert_default().merge(sum);
        }
        self.last = later.last;
    }

    /// The sum over all steps.
    pub(super) fn total(&self) -> ExactSum {
        self.sum.as_deref().cloned().unwrap_or_default()
    }

    /// Time from the first point to the last.
    pub(super) fn nanos(&self) -> u64 {
        self.last.0.as_nanos().abs_diff(self.first.0.as_nanos())
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        Value::encode(&self.first.0, bytes);
        self.first.1.encode(bytes);
        put_varint(bytes, self.nanos());
        if self.nanos() > 0 {
            self.last.1.encode(bytes);
            let mut sum = Vec::new();
            self.sum.iter().for_each(|own| own.encode(&mut sum));
            put_varint(bytes, sum.len() as u64);
            bytes.extend_from_slice(&sum);
        }
    }

    /// Takes a run off the front of `bytes`.
    fn take(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let time = <Timestamp as Value>::decode(take(bytes, 8)?)?;
        let first = (time, V::decode(take(bytes, 8)?)?);
        let nanos = take_varint(bytes)?;
        if nanos == 0 {
            return Ok(Run { first, last: first, sum: None });
        }
        let end = time.as_nanos().checked_add_unsigned(nanos).ok_or(DecodeError::OutOfRange)?;
        let last = (Timestamp::from_nanos(end), V::decode(take(bytes, 8)?)?);
        let length = usize::try_from(take_varint(bytes)?).unwrap_or(usize::MAX);
        let sum = match take(bytes, length)? {
            [] => None,
            bytes => Some(Box::new(ExactSum::decode(bytes)?)),
        };
        Ok(Run { first, last, sum })
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], DecodeError> {
    let (front, rest) = bytes.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *bytes = rest;
    Ok(front)
}

impl<V: Reading, S: Steps> Partial for Runs<V, S> {
    fn merge(&mut self, other: &Self) {
        self.runs.extend_from_slice(&other.runs);
        self.is_overlapping |= other.is_overlapping;
    }

    fn is_empty(&self) -> bool {
        self.runs.is_empty() && !self.is_overlapping
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let header = |bytes: &mut Vec<u8>, form| {
            put_header(bytes, S::FUNCTION, Some(V::TYPE), form);
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
                Self::of(runs, false).encode(bytes);
            }
            Err(Overlap) => self.encode(bytes),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (form, mut body) = body_of(bytes, S::FUNCTION, Some(V::TYPE))?;
        let mut own = Self::of(Vec::new(), form == OVERLAPPING);
        match form {
            0 => {
                own.runs.push(Run::take(&mut body)?);
                while !body.is_empty() {
                    own.runs.push(Run::take(&mut body)?);
                }
            }
            EMPTY | OVERLAPPING => finished(body)?,
            form => return Err(DecodeError::UnknownForm { function: S::FUNCTION, form }),
        }
        Ok(own)
    }

    const HAS_HEAP: bool = true;

    fn heap_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Run<V>>()
    }
}

impl<V, S> Default for Runs<V, S> {
    fn default() -> Self {
        Runs { runs: Vec::new(), is_overlapping: false, steps: PhantomData }
    }
}

impl<V: Reading, S: Steps> PartialEq for Runs<V, S> {
    fn eq(&self, other: &Self) -> bool {
        let bytes_of = |own: &Self| {
            let mut bytes = Vec::new();
            own.encode(&mut bytes);
            bytes
        };
        bytes_of(self) == bytes_of(other)
    }
}
