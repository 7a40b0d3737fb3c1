//! How much a counter has grown, and how fast.

use std::cmp::Ordering;

use highwater_core::Timestamp;
use num_bigint::{BigInt, BigUint, Sign};

use super::encoding::Function;
use super::exact_sum::{ExactSum, Quotient};
use super::runs::{Overlap, Reading, Run, Runs, Steps};

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// Readings of one counter.
///
/// A fall is a reset, after which the counter has grown by the new reading. So the increase is
/// last - first + Σ readings before a reset, in real numbers, rounded once.
pub type Counter<V> = Runs<V, Growth>;

/// Sums the readings after which a counter fell.
#[derive(Clone, Debug)]
pub struct Growth;

impl Steps for Growth {
    const FUNCTION: Function = Function::Counter;

    fn step<V: Reading>(
        sum: &mut Option<Box<ExactSum>>,
        (_, from): (Timestamp, V),
        (_, to): (Timestamp, V),
    ) {
        if to.partial_cmp(&from) == Some(Ordering::Less) {
            from.add_to(sum.get_or_insert_default());
        }
    }
}

impl<V: Reading> Counter<V> {
    /// By how much the counter has grown; `None` of nothing.
    ///
    /// # Errors
    /// [`Overlap`] if two readings share an instant, or runs overlap.
    pub fn increase(&self) -> Result<Option<f64>, Overlap> {
        Ok(self.whole()?.and_then(|run| grown(&run).finish()))
    }

    /// The increase per second from the first reading to the last; `None` of less than two.
    ///
    /// # Errors
    /// As those of [`increase`](Counter::increase).
    pub fn rate(&self) -> Result<Option<f64>, Overlap> {
        let whole = self.whole()?.filter(|run| run.nanos() > 0);
        Ok(whole.and_then(|run| per_second(&grown(&run), run.nanos())))
    }
}

fn grown<V: Reading>(run: &Run<V>) -> ExactSum {
    let mut sum = run.total();
    run.last.1.add_to(&mut sum);
    run.first.1.take_from(&mut sum);
    sum
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Partial, Update};
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
