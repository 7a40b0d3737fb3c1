//! The first and the last value in time.

use std::cmp::Ordering;
use std::marker::PhantomData;

use highwater_core::Timestamp;

use super::Partial;
use super::encoding::{DecodeError, EMPTY, body_of, finished, put_header};
use super::extrema::{End, Lower, Upper};
use super::value::Value;

/// The value at one end of time; where several share that time, the greatest of them.
///
/// Order of arrival never counts, so the answer does not depend on how points were partitioned.
#[derive(Clone, Debug)]
pub struct ByTime<V, E> {
    best: Option<(Timestamp, V)>,
    end: PhantomData<E>,
}

/// The earliest value.
pub type First<V> = ByTime<V, Lower>;

/// The latest value.
pub type Last<V> = ByTime<V, Upper>;

impl<V: Value, E: End> ByTime<V, E> {
    /// Takes in one value.
    #[inline]
    pub fn update(&mut self, time: Timestamp, value: V::Ref<'_>) {
        match &mut self.best {
            Some((best_time, best)) => {
                let in_time = time.cmp(best_time);
                let is_better = in_time == E::BETTER
                    || in_time.is_eq() && V::compare(value, best.borrowed()) == Ordering::Greater;
                if is_better {
                    *best_time = time;
                    best.assign(value);
                }
            }
            None => self.best = Some((time, V::owned(value))),
        }
    }

    /// The value; `None` of nothing.
    pub fn finish(&self) -> Option<&V> {
        self.best.as_ref().map(|(_, value)| value)
    }

    /// When it was measured.
    pub fn time(&self) -> Option<Timestamp> {
        self.best.as_ref().map(|(time, _)| *time)
    }
}

impl<V: Value, E: End> Partial for ByTime<V, E> {
    fn merge(&mut self, other: &Self) {
        if let Some((time, value)) = &other.best {
            self.update(*time, value.borrowed());
        }
    }

    fn is_empty(&self) -> bool {
        self.best.is_none()
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        match &self.best {
            Some((time, value)) => {
                put_header(bytes, E::BY_TIME, Some(V::TYPE), 0);
                Value::encode(time, bytes);
                value.encode(bytes);
            }
            None => put_header(bytes, E::BY_TIME, Some(V::TYPE), EMPTY),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let best = match body_of(bytes, E::BY_TIME, Some(V::TYPE))? {
            (0, body) => {
                let (time, value) = body.split_at_checked(8).ok_or(DecodeError::Truncated)?;
                Some((<Timestamp as Value>::decode(time)?, V::decode(value)?))
            }
            (EMPTY, body) => finished(body).map(|()| None)?,
            (form, _) => return Err(DecodeError::UnknownForm { function: E::BY_TIME, form }),
        };
        Ok(ByTime { best, end: PhantomData })
    }

    const HAS_HEAP: bool = V::HAS_HEAP;

    fn heap_bytes(&self) -> usize {
        self.best.as_ref().map_or(0, |(_, value)| value.heap_bytes())
    }
}

impl<V, E> Default for ByTime<V, E> {
    fn default() -> Self {
        ByTime { best: None, end: PhantomData }
    }
}

impl<V: Value, E> PartialEq for ByTime<V, E> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.best, &other.best) {
            (Some((at, a)), Some((bt, b))) => {
                at == bt && V::compare(a.borrowed(), b.borrowed()).is_eq()
            }
            (a, b) => a.is_none() && b.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_equal_times_the_greater_value_wins_at_both_ends() {
        let (mut first, mut last) = (First::<f64>::default(), Last::<f64>::default());
        for value in [1.0, 2.0, 1.5] {
            first.update(Timestamp::EPOCH, value);
            last.update(Timestamp::EPOCH, value);
        }
        assert_eq!((first.finish(), last.finish()), (Some(&2.0), Some(&2.0)));
    }

    #[test]
    fn time_decides_before_value() {
        let (mut first, mut last) = (First::<String>::default(), Last::<String>::default());
        for (secs, value) in [(2, "b"), (1, "z"), (3, "a")] {
            first.update(Timestamp::from_secs(secs), value);
            last.update(Timestamp::from_secs(secs), value);
        }
        assert_eq!(first.finish().map(String::as_str), Some("z"));
        assert_eq!(last.finish().map(String::as_str), Some("a"));
        assert_eq!(last.time(), Some(Timestamp::from_secs(3)));
    }
}
