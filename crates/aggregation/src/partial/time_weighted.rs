//! The mean over time of a value that holds until the next one.

use highwater_core::Timestamp;

use super::encoding::Function;
use super::exact_sum::ExactSum;
use super::runs::{Overlap, Reading, Runs, Steps};

/// Values of one series.
///
/// Each holds until the next point, so the average is Σ value · (time to the next) divided by the
/// time from the first point to the last, in real numbers, rounded once.
pub type TimeWeighted<V> = Runs<V, Area>;

/// Sums each value times the nanoseconds that it holds.
#[derive(Clone, Debug)]
pub struct Area;

impl Steps for Area {
    const FUNCTION: Function = Function::TimeWeighted;

    fn step<V: Reading>(
        sum: &mut Option<Box<ExactSum>>,
        (start, value): (Timestamp, V),
        (end, _): (Timestamp, V),
    ) {
        let nanos = end.as_nanos().abs_diff(start.as_nanos());
        value.add_times(nanos, sum.get_or_insert_default());
    }
}

impl<V: Reading> TimeWeighted<V> {
    /// The average; of one point its value, `None` of nothing.
    ///
    /// # Errors
    /// [`Overlap`] if two points share an instant, or runs overlap.
    pub fn finish(&self) -> Result<Option<f64>, Overlap> {
        Ok(self.whole()?.and_then(|run| match run.nanos() {
            0 => {
                let mut value = ExactSum::default();
                run.first.1.add_to(&mut value);
                value.finish()
            }
            nanos => run.total().divided_by(nanos),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Partial;
    use super::*;

    fn of<V: Reading>(points: &[(i64, V)]) -> TimeWeighted<V> {
        let mut partial = TimeWeighted::default();
        points.iter().for_each(|(secs, v)| partial.update(Timestamp::from_secs(*secs), *v));
        partial
    }

    #[test]
    fn each_value_holds_until_the_next() {
        assert_eq!(of::<f64>(&[]).finish(), Ok(None));
        assert_eq!(of(&[(5, 0.1)]).finish(), Ok(Some(0.1)));
        assert_eq!(of(&[(10, 99.0), (0, 1.0), (9, 11.0)]).finish(), Ok(Some(2.0)));
        assert_eq!(of(&[(0, u64::MAX), (4, 0)]).finish(), Ok(Some(u64::MAX as f64)));
        assert_eq!(of(&[(0, i64::MIN), (4, 0)]).finish(), Ok(Some(i64::MIN as f64)));
        assert_eq!(of(&[(0, f64::MAX), (1 << 33, 0.0)]).finish(), Ok(Some(f64::MAX)));
        assert_eq!(of(&[(0, -0.0), (1, 7.0)]).finish(), Ok(Some(0.0)));
        assert_eq!(of(&[(0, 1.0), (1, f64::INFINITY), (2, 0.0)]).finish(), Ok(Some(f64::INFINITY)));
        assert_eq!(of(&[(1, 1.0), (1, 1.0)]).finish(), Err(Overlap));
    }

    proptest! {
        #[test]
        fn complete_parts_merge_to_the_whole(
            values in prop::collection::vec((1i64..100, -100.0f64..100.0), 1..30),
            cut: prop::sample::Index,
        ) {
            let mut time = 0;
            let points: Vec<_> = values.iter().map(|(step, v)| { time += step; (time, *v) }).collect();
            let (early, late) = points.split_at(cut.index(points.len()));
            let whole = of(&points);
            for order in [[early, late], [late, early]] {
                let mut merged = TimeWeighted::<f64>::default();
                for part in order {
                    let mut bytes = Vec::new();
                    of(part).encode_complete(&mut bytes);
                    merged.merge(&TimeWeighted::decode(&bytes).unwrap());
                }
                prop_assert_eq!(merged.finish(), whole.finish());
            }
            let seconds: i64 = points[points.len() - 1].0 - points[0].0;
            let area: f64 = points.windows(2).map(|p| p[0].1 * (p[1].0 - p[0].0) as f64).sum();
            let expected = if seconds == 0 { points[0].1 } else { area / seconds as f64 };
            let average = whole.finish().unwrap().unwrap();
            prop_assert!((average - expected).abs() < 1e-9, "{average} {expected}");
        }
    }
}
