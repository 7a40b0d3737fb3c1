//! Sums of floats by plain addition: fast, small, and as rough as floats are.

use highwater_core::FieldType;

use super::encoding::{
    DecodeError, EMPTY, Function, body_of, finished, put_header, put_varint, take_varint,
};
use super::{Partial, Update};

/// The floats added up one after the other, and how many they were.
///
/// The only partial whose answer depends on the order of the values and on how they were split:
/// every addition rounds. Values and their number are never lost.
#[derive(Clone, Debug)]
pub struct FastSum {
    sum: f64,
    count: u64,
}

impl Default for FastSum {
    fn default() -> Self {
        // To which -0.0 can be added without becoming 0.0.
        FastSum { sum: -0.0, count: 0 }
    }
}

impl FastSum {
    /// The sum; `None` of nothing.
    pub fn finish(&self) -> Option<f64> {
        (self.count > 0).then_some(self.sum)
    }

    /// Whether two encoded sums may be of the same values: they are of equally many.
    pub fn may_be_of_the_same(one: &[u8], other: &[u8]) -> bool {
        match (FastSum::decode(one), FastSum::decode(other)) {
            (Ok(one), Ok(other)) => one.count == other.count,
            _ => false,
        }
    }

    /// The same bits for every NaN.
    fn bits(&self) -> u64 {
        if self.sum.is_nan() { f64::NAN.to_bits() } else { self.sum.to_bits() }
    }
}

impl PartialEq for FastSum {
    fn eq(&self, other: &Self) -> bool {
        (self.bits(), self.count) == (other.bits(), other.count)
    }
}

impl Update<f64> for FastSum {
    #[inline]
    fn update(&mut self, value: f64) {
        self.sum += value;
        self.count = self.count.saturating_add(1);
    }
}

impl Partial for FastSum {
    fn merge(&mut self, other: &Self) {
        self.sum += other.sum;
        self.count = self.count.saturating_add(other.count);
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let values = Some(FieldType::Float);
        if self.is_empty() {
            return put_header(bytes, Function::SumFast, values, EMPTY);
        }
        put_header(bytes, Function::SumFast, values, 0);
        put_varint(bytes, self.count);
        bytes.extend_from_slice(&self.bits().to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let values = Some(FieldType::Float);
        match body_of(bytes, Function::SumFast, values)? {
            (0, mut body) => {
                let count = take_varint(&mut body)?;
                let (sum, rest) = body.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
                finished(rest)?;
                match count {
                    0 => Err(DecodeError::OutOfRange),
                    count => Ok(FastSum { sum: f64::from_le_bytes(*sum), count }),
                }
            }
            (EMPTY, body) => finished(body).map(|()| FastSum::default()),
            (form, _) => Err(DecodeError::UnknownForm { function: Function::SumFast, form }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> FastSum {
        let mut sum = FastSum::default();
        values.iter().for_each(|value| sum.update(*value));
        sum
    }

    #[test]
    fn every_addition_rounds() {
        assert_eq!(sum(&[]).finish(), None);
        assert_eq!(sum(&[0.1, 0.2, 0.3]).finish(), Some(0.6000000000000001));
        assert_eq!(sum(&[0.3, 0.2, 0.1]).finish(), Some(0.6));
        assert_eq!(sum(&[-0.0]).finish().map(f64::to_bits), Some((-0.0f64).to_bits()));
        assert!(sum(&[f64::NAN, 1.0]).finish().is_some_and(f64::is_nan));
    }

    #[test]
    fn sums_are_told_apart_by_how_many_values_they_have() {
        let bytes = |values: &[f64]| {
            let mut bytes = Vec::new();
            sum(values).encode(&mut bytes);
            bytes
        };
        let (up, down) = (bytes(&[0.1, 0.2, 0.3]), bytes(&[0.3, 0.2, 0.1]));
        assert_ne!(up, down);
        assert!(FastSum::may_be_of_the_same(&up, &down));
        assert!(!FastSum::may_be_of_the_same(&up, &bytes(&[0.6])));
        assert!(!FastSum::may_be_of_the_same(&up, &[]));
    }
}
