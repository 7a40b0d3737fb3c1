//! Partials: the small mergeable states that every aggregate function is made of.
//!
//! `update` sees one value, `merge` another partial, `finish` gives the answer; `encode` and
//! `decode` are the way to disk and back (`docs/format/partials.md`). Merging is associative and
//! commutative and never depends on how the values were split, so a rollup of a rollup equals
//! the function over the points, bit for bit; [`fast_sum`] alone gives that up for speed. NULLs are the caller's to skip.
//!
//! Reading order: [`encoding`], [`count`], [`integer_sum`], [`exact_sum`], [`fast_sum`], [`mean`], [`moments`],
//! [`value`], [`extrema`], [`first_last`], [`member`], [`distinct`], [`approx_distinct`], [`percentiles`],
//! [`histogram`], [`runs`], [`counter`], [`time_weighted`].

pub mod approx_distinct;
pub mod count;
pub mod counter;
pub mod distinct;
pub mod encoding;
pub mod exact_sum;
pub mod extrema;
pub mod fast_sum;
pub mod first_last;
pub mod histogram;
pub mod integer_sum;
pub mod mean;
pub mod member;
pub mod moments;
pub mod percentiles;
pub mod runs;
pub mod time_weighted;
pub mod value;

#[cfg(test)]
mod laws;

use std::fmt::Debug;

pub use approx_distinct::ApproxDistinct;
pub use count::Count;
pub use counter::Counter;
pub use distinct::{Distinct, MOST_DISTINCT, TooMany};
pub use encoding::{DecodeError, Function, Header};
pub use exact_sum::ExactSum;
pub use extrema::{Extremum, Max, Min};
pub use fast_sum::FastSum;
pub use first_last::{First, Last};
pub use histogram::{DifferentBounds, Histogram};
pub use integer_sum::{IntegerSum, Overflow};
pub use mean::Mean;
pub use member::Member;
pub use moments::{Moments, Spread};
pub use percentiles::Percentiles;
pub use runs::Reading;
pub use time_weighted::TimeWeighted;
pub use value::Value;

/// Mergeable state of an aggregate function; `default()` has seen nothing.
pub trait Partial: Clone + Debug + Default + PartialEq + Send + Sync + 'static {
    /// Takes in everything the other has seen.
    fn merge(&mut self, other: &Self);

    /// Whether no value was seen, so that the answer is NULL (for counts, 0).
    fn is_empty(&self) -> bool;

    /// Appends the encoding, which is the same for equal partials however they came about.
    fn encode(&self, bytes: &mut Vec<u8>);

    /// Appends the encoding of a group of which every value was seen.
    ///
    /// This may forget what only values between those would ask for; usually there is no such
    /// thing, and it is what [`encode`](Partial::encode) appends.
    fn encode_complete(&self, bytes: &mut Vec<u8>) {
        self.encode(bytes);
    }

    /// Reads what [`encode`](Partial::encode) wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for bytes that are no partial of this function and type.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;

    /// Whether `heap_bytes` is worth asking for: usually not 0.
    const HAS_HEAP: bool = false;

    /// Bytes held outside of the struct itself.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// A partial that is fed one number at a time.
pub trait Update<Number>: Partial {
    /// Takes in one value.
    fn update(&mut self, value: Number);
}
