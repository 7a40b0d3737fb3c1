//! One adapter per kind of partial: how it is fed from arrays, and its answers.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::buffer::NullBuffer;
use highwater_core::Timestamp;

use super::adapter::{Adapter, NoAnswer};
use super::bounds;
use super::column::{Column, Number, downcast, for_each_row};
use super::error::ComputationError;
use super::fraction::Fraction;
use super::function::AggregateFunction;
use crate::partial::extrema::End;
use crate::partial::first_last::ByTime;
use crate::partial::integer_sum::Integer;
use crate::partial::runs::Overlap;
use crate::partial::{
    ApproxDistinct, Count, Counter, Distinct, ExactSum, Extremum, FastSum, Histogram, IntegerSum,
    Mean, Member, Moments, Percentiles, Reading, TimeWeighted, Update,
};

#[derive(Debug)]
pub(super) struct Counts;

impl Adapter for Counts {
    type Partial = Count;
    const WRITES_NOTHING: bool = true;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [Count],
        group_of: impl Fn(usize) -> usize,
    ) {
        for_each_row(columns[0].len(), rows, |row| partials[group_of(row)].update());
    }

    fn finish(partials: &[Count], _: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        let counts = partials.iter().map(|count| count.finish().cast_signed());
        Ok(Arc::new(Int64Array::from_iter_values(counts)))
    }
}

/// Feeds numbers.
#[inline]
fn feed_numbers<N: Number, P: Update<N>>(
    columns: &[ArrayRef],
    rows: Option<&NullBuffer>,
    partials: &mut [P],
    group_of: impl Fn(usize) -> usize,
) {
    let values = downcast::<arrow::array::PrimitiveArray<N::Arrow>>(&columns[0]).values();
    for_each_row(values.len(), rows, |row| partials[group_of(row)].update(values[row]));
}

#[derive(Debug)]
pub(super) struct FloatSums;

impl Adapter for FloatSums {
    type Partial = ExactSum;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [ExactSum],
        group_of: impl Fn(usize) -> usize,
    ) {
        feed_numbers::<f64, _>(columns, rows, partials, group_of);
    }

    fn finish(partials: &[ExactSum], _: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        let sums: Vec<_> = partials.iter().map(ExactSum::finish).collect();
        Ok(f64::array(sums.iter().map(Option::as_ref)))
    }
}

#[derive(Debug)]
pub(super) struct IntegerSums<N>(PhantomData<N>);

impl<N: Number + Integer> Adapter for IntegerSums<N> {
    type Partial = IntegerSum<N>;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [IntegerSum<N>],
        group_of: impl Fn(usize) -> usize,
    ) {
        feed_numbers::<N, _>(columns, rows, partials, group_of);
    }

    fn finish(partials: &[IntegerSum<N>], _: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        let sums: Vec<_> = partials
            .iter()
            .enumerate()
            .map(|(at, sum)| sum.finish().map_err(|_| overflow(at)))
            .collect::<Result<_, _>>()?;
        Ok(N::array(sums.iter().map(Option::as_ref)))
    }
}

fn overflow(at: usize) -> NoAnswer {
    NoAnswer { at, error: ComputationError::IntegerOverflow { labels: Vec::new() } }
}

#[derive(Debug)]
pub(super) struct FastSums;

impl Adapter for FastSums {
    type Partial = FastSum;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [FastSum],
        group_of: impl Fn(usize) -> usize,
    ) {
        feed_numbers::<f64, _>(columns, rows, partials, group_of);
    }

    fn finish(partials: &[FastSum], _: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        let sums: Vec<_> = partials.iter().map(FastSum::finish).collect();
        Ok(f64::array(sums.iter().map(Option::as_ref)))
    }
}

/// Adding integers is fast as it is; the exact sum becomes a float in the end.
#[derive(Debug)]
pub(super) struct FastIntegerSums<N>(PhantomData<N>);

impl<N: Number + Integer> Adapter for FastIntegerSums<N> {
    type Partial = IntegerSum<N>;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [IntegerSum<N>],
        group_of: impl Fn(usize) -> usize,
    ) {
        feed_numbers::<N, _>(columns, rows, partials, group_of);
    }

    fn finish(partials: &[IntegerSum<N>], _: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        let sums: Vec<_> = partials.iter().map(IntegerSum::rounded).collect();
        Ok(f64::array(sums.iter().map(Option::as_ref)))
    }
}

#[derive(Debug)]
pub(super) struct Means<N>(PhantomData<N>);

impl<N: Number> Adapter for Means<N>
where
    Mean: Update<N>,
{
    type Partial = Mean;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [Mean],
        group_of: impl Fn(usize) -> usize,
    ) {
        feed_numbers::<N, _>(columns, rows, partials, group_of);
    }

    fn finish(partials: &[Mean], _: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        let means: Vec<_> = partials.iter().map(Mean::finish).collect();
        Ok(f64::array(means.iter().map(Option::as_ref)))
    }
}

#[derive(Debug)]
pub(super) struct Spreads<N>(PhantomData<N>);

impl<N: Number> Adapter for Spreads<N>
where
    Moments: Update<N>,
{
    type Partial = Moments;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [Moments],
        group_of: impl Fn(usize) -> usize,
    ) {
        feed_numbers::<N, _>(columns, rows, partials, group_of);
    }

    fn finish(partials: &[Moments], function: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        let answer = |moments: &Moments| match function {
            AggregateFunction::Variance(spread) => moments.variance(spread),
            AggregateFunction::Stddev(spread) => moments.stddev(spread),
            _ => None,
        };
        let answers: Vec<_> = partials.iter().map(answer).collect();
        Ok(f64::array(answers.iter().map(Option::as_ref)))
    }
}

#[derive(Debug)]
pub(super) struct Extrema<V, E>(PhantomData<(V, E)>);

impl<V: Column, E: End> Adapter for Extrema<V, E> {
    type Partial = Extremum<V, E>;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [Extremum<V, E>],
        group_of: impl Fn(usize) -> usize,
    ) {
        let values = downcast::<V::Array>(&columns[0]);
        for_each_row(values.len(), rows, |row| {
            partials[group_of(row)].update(V::at(values, row));
        });
    }

    fn finish(partials: &[Extremum<V, E>], _: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        Ok(V::array(partials.iter().map(Extremum::finish)))
    }
}

#[derive(Debug)]
pub(super) struct ByTimes<V, E>(PhantomData<(V, E)>);

impl<V: Column, E: End> Adapter for ByTimes<V, E> {
    type Partial = ByTime<V, E>;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [ByTime<V, E>],
        group_of: impl Fn(usize) -> usize,
    ) {
        let values = downcast::<V::Array>(&columns[0]);
        let times = downcast::<<Timestamp as Column>::Array>(&columns[1]);
        for_each_row(values.len(), rows, |row| {
            partials[group_of(row)].update(Timestamp::at(times, row), V::at(values, row));
        });
    }

    fn finish(
        partials: &[ByTime<V, E>],
        function: AggregateFunction,
    ) -> Result<ArrayRef, NoAnswer> {
        Ok(match function {
            AggregateFunction::FirstTime | AggregateFunction::LastTime => {
                let times: Vec<_> = partials.iter().map(ByTime::time).collect();
                Timestamp::array(times.iter().map(Option::as_ref))
            }
            _ => V::array(partials.iter().map(ByTime::finish)),
        })
    }
}

#[derive(Debug)]
pub(super) struct Distincts<V>(PhantomData<V>);

impl<V: Column + Member> Adapter for Distincts<V> {
    type Partial = Distinct<V>;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [Distinct<V>],
        group_of: impl Fn(usize) -> usize,
    ) {
        let values = downcast::<V::Array>(&columns[0]);
        for_each_row(values.len(), rows, |row| {
            partials[group_of(row)].update(V::at(values, row));
        });
    }

    fn finish(partials: &[Distinct<V>], _: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        let too_many = |at| {
            let error = ComputationError::TooManyDistinct { labels: Vec::new() };
            NoAnswer { at, error }
        };
        let counts = partials
            .iter()
            .enumerate()
            .map(|(at, set)| set.finish().map(u64::cast_signed).map_err(|_| too_many(at)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(Int64Array::from(counts)))
    }
}

#[derive(Debug)]
pub(super) struct ApproxDistincts<V>(PhantomData<V>);

impl<V: Column + Member> Adapter for ApproxDistincts<V> {
    type Partial = ApproxDistinct;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [ApproxDistinct],
        group_of: impl Fn(usize) -> usize,
    ) {
        let values = downcast::<V::Array>(&columns[0]);
        for_each_row(values.len(), rows, |row| {
            partials[group_of(row)].update(<V as Member>::hash(V::at(values, row)));
        });
    }

    fn finish(partials: &[ApproxDistinct], _: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        let counts = partials.iter().map(|set| set.finish().cast_signed());
        Ok(Arc::new(Int64Array::from_iter_values(counts)))
    }
}

#[derive(Debug)]
pub(super) struct Quantiles<N>(PhantomData<N>);

impl<N: Number> Adapter for Quantiles<N>
where
    Percentiles: Update<N>,
{
    type Partial = Percentiles;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [Percentiles],
        group_of: impl Fn(usize) -> usize,
    ) {
        feed_numbers::<N, _>(columns, rows, partials, group_of);
    }

    fn finish(partials: &[Percentiles], function: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        let p = function.fraction().unwrap_or(Fraction::HALF).get();
        let answers: Vec<_> = partials.iter().map(|partial| partial.finish(p)).collect();
        Ok(f64::array(answers.iter().map(Option::as_ref)))
    }
}

#[derive(Debug)]
pub(super) struct Histograms<N>(PhantomData<N>);

impl<N: Number> Adapter for Histograms<N> {
    type Partial = Histogram;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [Histogram],
        group_of: impl Fn(usize) -> usize,
    ) {
        let Some(bounds) = bounds::of_columns(&columns[1..]) else { return };
        let values = downcast::<arrow::array::PrimitiveArray<N::Arrow>>(&columns[0]).values();
        for_each_row(values.len(), rows, |row| {
            partials[group_of(row)].update(&bounds, values[row].nearest_float());
        });
    }

    fn finish(partials: &[Histogram], _: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        let answer = |(at, partial): (usize, &Histogram)| {
            let error = ComputationError::DifferentBounds { labels: Vec::new() };
            partial.finish().map_err(|_| NoAnswer { at, error })
        };
        let answers = partials.iter().enumerate().map(answer).collect::<Result<Vec<_>, _>>()?;
        Ok(String::array(answers.iter().map(Option::as_ref)))
    }
}

#[derive(Debug)]
pub(super) struct Counters<V>(PhantomData<V>);

impl<V: Column + Reading> Adapter for Counters<V> {
    type Partial = Counter<V>;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [Counter<V>],
        group_of: impl Fn(usize) -> usize,
    ) {
        feed_points(columns, rows, |row, at, value| partials[group_of(row)].update(at, value));
    }

    fn finish(partials: &[Counter<V>], function: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        match function {
            AggregateFunction::Rate => one_series(partials, Counter::rate),
            _ => one_series(partials, Counter::increase),
        }
    }
}

#[derive(Debug)]
pub(super) struct TimeWeights<V>(PhantomData<V>);

impl<V: Column + Reading> Adapter for TimeWeights<V> {
    type Partial = TimeWeighted<V>;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [TimeWeighted<V>],
        group_of: impl Fn(usize) -> usize,
    ) {
        feed_points(columns, rows, |row, at, value| partials[group_of(row)].update(at, value));
    }

    fn finish(partials: &[TimeWeighted<V>], _: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        one_series(partials, TimeWeighted::finish)
    }
}

/// Calls `update` with row, time and value of each selected point.
fn feed_points<V: Column + Reading>(
    columns: &[ArrayRef],
    rows: Option<&NullBuffer>,
    mut update: impl FnMut(usize, Timestamp, V),
) {
    let values = downcast::<V::Array>(&columns[0]);
    let times = downcast::<<Timestamp as Column>::Array>(&columns[1]);
    for_each_row(values.len(), rows, |row| {
        update(row, Timestamp::at(times, row), V::at(values, row));
    });
}

/// Answers of groups that are one series each.
fn one_series<P>(
    partials: &[P],
    answer: impl Fn(&P) -> Result<Option<f64>, Overlap>,
) -> Result<ArrayRef, NoAnswer> {
    let answer = |(at, partial): (usize, &P)| {
        let error = ComputationError::SeveralSeries { labels: Vec::new() };
        answer(partial).map_err(|_| NoAnswer { at, error })
    };
    let answers = partials.iter().enumerate().map(answer).collect::<Result<Vec<_>, _>>()?;
    Ok(f64::array(answers.iter().map(Option::as_ref)))
}
