//! Histograms: how many values lie between fixed bounds.

use std::sync::Arc;

use super::Partial;
use super::encoding::{
    DecodeError, EMPTY, Function, body_of, finished, put_header, put_varint, take_varint,
};

const COUNTS: u8 = 0;
const MIXED: u8 = 1;

/// Histograms of different bounds were merged, so there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("histograms of different bounds do not merge")]
pub struct DifferentBounds;

/// Counts of values between bounds, which every partial carries.
///
/// Bounds are finite and ascend. There is one count more than bounds: of values below the first
/// bound, then from each bound (inclusive) up to the next (exclusive), then from the last bound on.
/// Every NaN counts with the last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram(Counts);

#[derive(Clone, Debug, Default, PartialEq)]
enum Counts {
    #[default]
    Nothing,
    Between {
        bounds: Arc<[f64]>,
        counts: Box<[u64]>,
    },
    /// Of different bounds.
    Mixed,
}

impl Histogram {
    /// Counts a value; `bounds` are the same at every call.
    pub fn update(&mut self, bounds: &Arc<[f64]>, value: f64) {
        if matches!(self.0, Counts::Nothing) {
            let counts = vec![0; bounds.len() + 1].into();
            self.0 = Counts::Between { bounds: Arc::clone(bounds), counts };
        }
        match &mut self.0 {
            Counts::Between { bounds: own, counts }
                if Arc::ptr_eq(own, bounds) || own == bounds =>
            {
                let count = &mut counts[range_of(bounds, value)];
                *count = count.saturating_add(1);
            }
            other => *other = Counts::Mixed,
        }
    }

    /// Bounds and counts as JSON text, `{"bounds":[0.5,1],"counts":[3,0,1]}`; `None` of nothing.
    ///
    /// # Errors
    /// [`DifferentBounds`] if partials of different bounds were merged.
    pub fn finish(&self) -> Result<Option<String>, DifferentBounds> {
        match &self.0 {
            Counts::Nothing => Ok(None),
            Counts::Mixed => Err(DifferentBounds),
            Counts::Between { bounds, counts } => {
                let list = |texts: Vec<String>| texts.join(",");
                let bounds = list(bounds.iter().map(f64::to_string).collect());
                let counts = list(counts.iter().map(u64::to_string).collect());
                Ok(Some(format!("{{\"bounds\":[{bounds}],\"counts\":[{counts}]}}")))
            }
        }
    }
}

/// The number of the range that holds a value.
#[inline]
fn range_of(bounds: &[f64], value: f64) -> usize {
    match value.is_nan() {
        true => bounds.len(),
        false => bounds.partition_point(|bound| *bound <= value),
    }
}

/// Whether these can be the bounds of a histogram: finite, ascending, without -0.0.
pub fn are_bounds(bounds: &[f64]) -> bool {
    let is_sound = |bound: &f64| bound.is_finite() && !(*bound == 0.0 && bound.is_sign_negative());
    !bounds.is_empty() && bounds.iter().all(is_sound) && bounds.is_sorted_by(|a, b| a < b)
}

impl Partial for Histogram {
    fn merge(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (_, Counts::Nothing) | (Counts::Mixed, _) => {}
            (Counts::Nothing, other) => self.0 = other.clone(),
            (
                Counts::Between { bounds, counts },
                Counts::Between { bounds: other, counts: more },
            ) if bounds == other => {
                for (count, more) in counts.iter_mut().zip(more) {
                    *count = count.saturating_add(*more);
                }
            }
            _ => self.0 = Counts::Mixed,
        }
    }

    fn is_empty(&self) -> bool {
        self.0 == Counts::Nothing
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let header = |bytes, form| put_header(bytes, Function::Histogram, None, form);
        match &self.0 {
            Counts::Nothing => header(bytes, EMPTY),
            Counts::Mixed => header(bytes, MIXED),
            Counts::Between { bounds, counts } => {
                header(bytes, COUNTS);
                put_varint(bytes, bounds.len() as u64);
                bounds.iter().for_each(|bound| bytes.extend_from_slice(&bound.to_le_bytes()));
                counts.iter().for_each(|count| put_varint(bytes, *count));
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match body_of(bytes, Function::Histogram, None)? {
            (COUNTS, body) => decode_counts(body),
            (MIXED, body) => finished(body).map(|()| Histogram(Counts::Mixed)),
            (EMPTY, body) => finished(body).map(|()| Histogram::default()),
            (form, _) => Err(DecodeError::UnknownForm { function: Function::Histogram, form }),
        }
    }

    const HAS_HEAP: bool = true;

    fn heap_bytes(&self) -> usize {
        match &self.0 {
            Counts::Between { bounds, counts } => size_of_val(&**bounds) + size_of_val(&**counts),
            Counts::Nothing | Counts::Mixed => 0,
        }
    }
}

fn decode_counts(mut body: &[u8]) -> Result<Histogram, DecodeError> {
    let length = usize::try_from(take_varint(&mut body)?).map_err(|_| DecodeError::Truncated)?;
    let bytes = length.checked_mul(size_of::<f64>()).ok_or(DecodeError::Truncated)?;
    let (bounds, mut body) = body.split_at_checked(bytes).ok_or(DecodeError::Truncated)?;
    let (bounds, _) = bounds.as_chunks::<8>();
    let bounds: Arc<[f64]> = bounds.iter().map(|bound| f64::from_le_bytes(*bound)).collect();
    let counts = (0..=length).map(|_| take_varint(&mut body)).collect::<Result<Box<[u64]>, _>>()?;
    finished(body)?;
    if !are_bounds(&bounds) || counts.iter().all(|count| *count == 0) {
        return Err(DecodeError::OutOfRange);
    }
    Ok(Histogram(Counts::Between { bounds, counts }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bounds: &[f64], values: &[f64]) -> Histogram {
        let (bounds, mut partial) = (bounds.into(), Histogram::default());
        values.iter().for_each(|value| partial.update(&bounds, *value));
        partial
    }

    fn answer(partial: &Histogram) -> String {
        partial.finish().unwrap().unwrap()
    }

    #[test]
    fn ranges_hold_their_start_and_not_their_end() {
        let values = [-5.0, 0.0999, 0.1, 0.5, 0.7, 1.0, 5.0];
        let counted = of(&[0.1, 0.5, 1.0], &values);
        assert_eq!(answer(&counted), r#"{"bounds":[0.1,0.5,1],"counts":[2,1,2,2]}"#);
        assert_eq!(of(&[1.0], &[]).finish(), Ok(None));
        let strange = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0];
        assert_eq!(answer(&of(&[0.0], &strange)), r#"{"bounds":[0],"counts":[1,4]}"#);
    }

    #[test]
    fn different_bounds_do_not_merge() {
        let mut one = of(&[1.0], &[0.5]);
        one.merge(&of(&[1.0], &[2.0]));
        one.merge(&Histogram::default());
        assert_eq!(answer(&one), r#"{"bounds":[1],"counts":[1,1]}"#);
        one.merge(&of(&[1.0, 2.0], &[0.5]));
        assert_eq!(one.finish(), Err(DifferentBounds));
        one.merge(&of(&[1.0], &[2.0]));
        assert_eq!(one.finish(), Err(DifferentBounds));
    }

    #[test]
    fn bounds_are_finite_and_ascend() {
        assert!(are_bounds(&[-1.0, 0.0, 1e300]));
        for bounds in [&[][..], &[1.0, 1.0], &[2.0, 1.0], &[f64::NAN], &[f64::INFINITY], &[-0.0]] {
            assert!(!are_bounds(bounds), "{bounds:?}");
        }
    }
}
