//! Which partial serves which function over which type, and how it is fed and finished.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, Int64Array};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use datafusion::common::{Result, exec_datafusion_err, internal_err};
use highwater_core::{FieldType, Timestamp};

use super::column::{Column, Number, binary, downcast, for_each_row};
use super::error::{ComputationError, undecodable};
use super::fraction::Fraction;
use super::function::AggregateFunction;
use crate::partial::extrema::{End, Lower, Upper};
use crate::partial::first_last::ByTime;
use crate::partial::integer_sum::Integer;
use crate::partial::{
    ApproxDistinct, Count, Counter, Distinct, ExactSum, Extremum, Function, IntegerSum, Mean,
    Member, Moments, Partial, Percentiles, Reading, Update,
};

/// The partial at this position of those being finished has no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoAnswer {
    pub(super) at: usize,
    pub(super) error: ComputationError,
}

/// One function over one type of values.
pub(super) trait Adapter: Debug + Send + Sync + 'static {
    /// State of one group.
    type Partial: Partial;

    /// Whether the answer of nothing is a value (0) rather than NULL.
    const COUNTS: bool = false;

    /// Feeds the selected rows, each to the partial its group says.
    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [Self::Partial],
        group_of: impl Fn(usize) -> usize,
    );

    /// The answers of `function`, which is one of those with this partial; NULL for those of
    /// nothing.
    fn finish(
        partials: &[Self::Partial],
        function: AggregateFunction,
    ) -> Result<ArrayRef, NoAnswer>;
}

#[derive(Debug)]
pub(super) struct Counts;

impl Adapter for Counts {
    type Partial = Count;
    const COUNTS: bool = true;

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
    const COUNTS: bool = true;

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
    const COUNTS: bool = true;

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
pub(super) struct Counters<V>(PhantomData<V>);

impl<V: Column + Reading> Adapter for Counters<V> {
    type Partial = Counter<V>;

    fn feed(
        columns: &[ArrayRef],
        rows: Option<&NullBuffer>,
        partials: &mut [Counter<V>],
        group_of: impl Fn(usize) -> usize,
    ) {
        let values = downcast::<V::Array>(&columns[0]);
        let times = downcast::<<Timestamp as Column>::Array>(&columns[1]);
        for_each_row(values.len(), rows, |row| {
            partials[group_of(row)].update(Timestamp::at(times, row), V::at(values, row));
        });
    }

    fn finish(partials: &[Counter<V>], function: AggregateFunction) -> Result<ArrayRef, NoAnswer> {
        let answer = |(at, counter): (usize, &Counter<V>)| {
            let answer = match function {
                AggregateFunction::Rate => counter.rate(),
                _ => counter.increase(),
            };
            let error = ComputationError::SeveralCounters { labels: Vec::new() };
            answer.map_err(|_| NoAnswer { at, error })
        };
        let answers = partials.iter().enumerate().map(answer).collect::<Result<Vec<_>, _>>()?;
        Ok(f64::array(answers.iter().map(Option::as_ref)))
    }
}

/// Something to be done with an adapter that is only known when a query runs.
pub(super) trait WithAdapter {
    /// What comes out.
    type Output;

    /// Does it.
    fn with<A: Adapter>(self) -> Self::Output;
}

/// Does it with the adapter of `function` over values of type `values`.
pub(super) fn with_adapter<W: WithAdapter>(
    function: Function,
    values: FieldType,
    work: W,
) -> Result<W::Output> {
    Ok(match (function, values) {
        (Function::Count, _) => work.with::<Counts>(),
        (Function::Sum, FieldType::Float) => work.with::<FloatSums>(),
        (Function::Sum, FieldType::Integer) => work.with::<IntegerSums<i64>>(),
        (Function::Sum, FieldType::Unsigned) => work.with::<IntegerSums<u64>>(),
        (Function::Mean, FieldType::Float) => work.with::<Means<f64>>(),
        (Function::Mean, FieldType::Integer) => work.with::<Means<i64>>(),
        (Function::Mean, FieldType::Unsigned) => work.with::<Means<u64>>(),
        (Function::Moments, FieldType::Float) => work.with::<Spreads<f64>>(),
        (Function::Moments, FieldType::Integer) => work.with::<Spreads<i64>>(),
        (Function::Moments, FieldType::Unsigned) => work.with::<Spreads<u64>>(),
        (Function::Percentiles, FieldType::Float) => work.with::<Quantiles<f64>>(),
        (Function::Percentiles, FieldType::Integer) => work.with::<Quantiles<i64>>(),
        (Function::Percentiles, FieldType::Unsigned) => work.with::<Quantiles<u64>>(),
        (Function::Counter, FieldType::Float) => work.with::<Counters<f64>>(),
        (Function::Counter, FieldType::Integer) => work.with::<Counters<i64>>(),
        (Function::Counter, FieldType::Unsigned) => work.with::<Counters<u64>>(),
        (Function::Distinct, values) => return with_distincts(values, work),
        (Function::ApproxDistinct, values) => return with_approx_distincts(values, work),
        (Function::Min, values) => return with_extrema::<W, Lower>(values, work),
        (Function::Max, values) => return with_extrema::<W, Upper>(values, work),
        (Function::First, values) => return with_by_times::<W, Lower>(values, work),
        (Function::Last, values) => return with_by_times::<W, Upper>(values, work),
        (function, values) => return internal_err!("{function} has no partial over {values}"),
    })
}

fn with_extrema<W: WithAdapter, E: End>(values: FieldType, work: W) -> Result<W::Output> {
    Ok(match values {
        FieldType::Float => work.with::<Extrema<f64, E>>(),
        FieldType::Integer => work.with::<Extrema<i64, E>>(),
        FieldType::Unsigned => work.with::<Extrema<u64, E>>(),
        FieldType::Boolean => work.with::<Extrema<bool, E>>(),
        FieldType::String => work.with::<Extrema<String, E>>(),
        FieldType::Timestamp => work.with::<Extrema<Timestamp, E>>(),
        FieldType::Partial => return internal_err!("no extrema of partials"),
    })
}

fn with_by_times<W: WithAdapter, E: End>(values: FieldType, work: W) -> Result<W::Output> {
    Ok(match values {
        FieldType::Float => work.with::<ByTimes<f64, E>>(),
        FieldType::Integer => work.with::<ByTimes<i64, E>>(),
        FieldType::Unsigned => work.with::<ByTimes<u64, E>>(),
        FieldType::Boolean => work.with::<ByTimes<bool, E>>(),
        FieldType::String => work.with::<ByTimes<String, E>>(),
        FieldType::Timestamp => work.with::<ByTimes<Timestamp, E>>(),
        FieldType::Partial => return internal_err!("no first or last of partials"),
    })
}

fn with_distincts<W: WithAdapter>(values: FieldType, work: W) -> Result<W::Output> {
    Ok(match values {
        FieldType::Float => work.with::<Distincts<f64>>(),
        FieldType::Integer => work.with::<Distincts<i64>>(),
        FieldType::Unsigned => work.with::<Distincts<u64>>(),
        FieldType::Boolean => work.with::<Distincts<bool>>(),
        FieldType::String => work.with::<Distincts<String>>(),
        FieldType::Timestamp => work.with::<Distincts<Timestamp>>(),
        FieldType::Partial => return internal_err!("no distinct partials"),
    })
}

fn with_approx_distincts<W: WithAdapter>(values: FieldType, work: W) -> Result<W::Output> {
    Ok(match values {
        FieldType::Float => work.with::<ApproxDistincts<f64>>(),
        FieldType::Integer => work.with::<ApproxDistincts<i64>>(),
        FieldType::Unsigned => work.with::<ApproxDistincts<u64>>(),
        FieldType::Boolean => work.with::<ApproxDistincts<bool>>(),
        FieldType::String => work.with::<ApproxDistincts<String>>(),
        FieldType::Timestamp => work.with::<ApproxDistincts<Timestamp>>(),
        FieldType::Partial => return internal_err!("no distinct partials"),
    })
}

/// Feeds encoded partials instead of values.
pub(super) fn feed_encoded<P: Partial>(
    column: &ArrayRef,
    rows: Option<&NullBuffer>,
    partials: &mut [P],
    group_of: impl Fn(usize) -> usize,
) -> Result<()> {
    let encoded = binary(column);
    let mut feed = |row: usize| {
        let partial = P::decode(encoded.value(row)).map_err(undecodable)?;
        let own = &mut partials[group_of(row)];
        if own.is_empty() {
            *own = partial;
        } else {
            own.merge(&partial);
        }
        Ok(())
    };
    match rows {
        None => (0..encoded.len()).try_for_each(&mut feed),
        Some(rows) => rows.valid_indices().try_for_each(&mut feed),
    }
}

/// The encodings; NULL for partials of nothing, unless the answer of nothing is a value.
pub(super) fn encoded<A: Adapter>(partials: &[A::Partial]) -> Result<BinaryArray> {
    encoded_with::<A>(partials, A::Partial::encode)
}

/// The same of groups that are complete.
pub(super) fn encoded_complete<A: Adapter>(partials: &[A::Partial]) -> Result<BinaryArray> {
    encoded_with::<A>(partials, A::Partial::encode_complete)
}

fn encoded_with<A: Adapter>(
    partials: &[A::Partial],
    encode: impl Fn(&A::Partial, &mut Vec<u8>),
) -> Result<BinaryArray> {
    let mut bytes = Vec::with_capacity(partials.len() * 16);
    let mut ends = Vec::with_capacity(partials.len() + 1);
    ends.push(0i32);
    for partial in partials {
        if A::COUNTS || !partial.is_empty() {
            encode(partial, &mut bytes);
        }
        ends.push(bytes.len() as i32);
    }
    if i32::try_from(bytes.len()).is_err() {
        return Err(exec_datafusion_err!("partials of one batch exceed 2 GiB; use fewer groups"));
    }
    let nulls = (!A::COUNTS).then(|| partials.iter().map(|partial| !partial.is_empty()).collect());
    let nulls = nulls.filter(|nulls: &NullBuffer| nulls.null_count() > 0);
    Ok(BinaryArray::new(OffsetBuffer::new(ends.into()), Buffer::from_vec(bytes), nulls))
}
