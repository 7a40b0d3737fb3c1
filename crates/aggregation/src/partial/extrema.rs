//! The smallest and the greatest value.

use std::cmp::Ordering;
use std::fmt::Debug;
use std::marker::PhantomData;

use super::Partial;
use super::encoding::{DecodeError, EMPTY, Function, body_of, finished, put_header};
use super::value::Value;

/// Which end of an order is looked for.
pub trait End: Clone + Debug + Default + Send + Sync + 'static {
    /// How a better value compares with the best one so far.
    const BETTER: Ordering;
    /// The extremum's function at this end.
    const EXTREMUM: Function;
    /// The function by time at this end.
    const BY_TIME: Function;
}

/// The lower end.
#[derive(Clone, Debug, Default)]
pub struct Lower;

/// The upper end.
#[derive(Clone, Debug, Default)]
pub struct Upper;

impl End for Lower {
    const BETTER: Ordering = Ordering::Less;
    const EXTREMUM: Function = Function::Min;
    const BY_TIME: Function = Function::First;
}

impl End for Upper {
    const BETTER: Ordering = Ordering::Greater;
    const EXTREMUM: Function = Function::Max;
    const BY_TIME: Function = Function::Last;
}

/// The value at one end of the order of [`Value`].
#[derive(Clone, Debug)]
pub struct Extremum<V, E> {
    best: Option<V>,
    end: PhantomData<E>,
}

/// The smallest value.
pub type Min<V> = Extremum<V, Lower>;

/// The greatest value.
pub type Max<V> = Extremum<V, Upper>;

impl<V: Value, E: End> Extremum<V, E> {
    /// Takes in one value.
    #[inline]
    pub fn update(&mut self, value: V::Ref<'_>) {
        match &mut self.best {
            Some(best) if V::compare(value, best.borrowed()) == E::BETTER => best.assign(value),
            Some(_) => {}
            None => self.best = Some(V::owned(value)),
        }
    }

    /// The value at that end; `None` of nothing.
    pub fn finish(&self) -> Option<&V> {
        self.best.as_ref()
    }
}

impl<V: Value, E: End> Partial for Extremum<V, E> {
    fn merge(&mut self, other: &Self) {
        if let Some(value) = &other.best {
            self.update(value.borrowed());
        }
    }

    fn is_empty(&self) -> bool {
        self.best.is_none()
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        match &self.best {
            Some(value) => {
                put_header(bytes, E::EXTREMUM, Some(V::TYPE), 0);
                value.encode(bytes);
            }
            None => put_header(bytes, E::EXTREMUM, Some(V::TYPE), EMPTY),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let best = match body_of(bytes, E::EXTREMUM, Some(V::TYPE))? {
            (0, body) => Some(V::decode(body)?),
            (EMPTY, body) => finished(body).map(|()| None)?,
            (form, _) => return Err(DecodeError::UnknownForm { function: E::EXTREMUM, form }),
        };
        Ok(Extremum { best, end: PhantomData })
    }

    const HAS_HEAP: bool = V::HAS_HEAP;

    fn heap_bytes(&self) -> usize {
        self.best.as_ref().map_or(0, Value::heap_bytes)
    }
}

impl<V, E> Default for Extremum<V, E> {
    fn default() -> Self {
        Extremum { best: None, end: PhantomData }
    }
}

impl<V: Value, E> PartialEq for Extremum<V, E> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.best, &other.best) {
            (Some(a), Some(b)) => V::compare(a.borrowed(), b.borrowed()).is_eq(),
            (a, b) => a.is_none() && b.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_follow_the_total_order() {
        let values = [0.0, f64::NAN, -0.0, f64::INFINITY, -f64::NAN, f64::NEG_INFINITY];
        let (mut min, mut max) = (Min::<f64>::default(), Max::<f64>::default());
        for value in values {
            min.update(value);
            max.update(value);
        }
        assert_eq!(min.finish().unwrap().to_bits(), (-f64::NAN).to_bits());
        assert_eq!(max.finish().unwrap().to_bits(), f64::NAN.to_bits());
    }

    #[test]
    fn strings_go_by_their_bytes() {
        let mut max = Max::<String>::default();
        ["b", "ä", "Z", ""].iter().for_each(|text| max.update(text));
        assert_eq!(max.finish().map(String::as_str), Some("ä"));
        assert_eq!(Min::<String>::default().finish(), None);
    }
}
