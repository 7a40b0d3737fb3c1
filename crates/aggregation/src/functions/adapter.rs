//! Which partial serves which function over which type, and how it is fed and finished.

use std::fmt::Debug;

use arrow::array::{Array, ArrayRef, BinaryArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use datafusion::common::{Result, exec_datafusion_err, internal_err};
use highwater_core::{FieldType, Timestamp};

use super::adapters::{
    ApproxDistincts, ByTimes, Counters, Counts, Distincts, Extrema, FastIntegerSums, FastSums,
    FloatSums, Histograms, IntegerSums, Means, Quantiles, Spreads, TimeWeights,
};
use super::column::binary;
use super::error::{ComputationError, undecodable};
use super::function::AggregateFunction;
use crate::partial::extrema::{End, Lower, Upper};
use crate::partial::{Function, Partial};

/// Most partials are no longer than this.
const COMMON_BYTES: usize = 8;

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

    /// Whether the partial of nothing is written as bytes rather than as NULL. Not where these would
    /// tell a type: nobody knows it of a field that no point has yet.
    const WRITES_NOTHING: bool = false;

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
        (Function::SumFast, FieldType::Float) => work.with::<FastSums>(),
        (Function::SumFast, FieldType::Integer) => work.with::<FastIntegerSums<i64>>(),
        (Function::SumFast, FieldType::Unsigned) => work.with::<FastIntegerSums<u64>>(),
        (Function::Mean, FieldType::Float) => work.with::<Means<f64>>(),
        (Function::Mean, FieldType::Integer) => work.with::<Means<i64>>(),
        (Function::Mean, FieldType::Unsigned) => work.with::<Means<u64>>(),
        (Function::Moments, FieldType::Float) => work.with::<Spreads<f64>>(),
        (Function::Moments, FieldType::Integer) => work.with::<Spreads<i64>>(),
        (Function::Moments, FieldType::Unsigned) => work.with::<Spreads<u64>>(),
        (Function::Percentiles, FieldType::Float) => work.with::<Quantiles<f64>>(),
        (Function::Percentiles, FieldType::Integer) => work.with::<Quantiles<i64>>(),
        (Function::Percentiles, FieldType::Unsigned) => work.with::<Quantiles<u64>>(),
        (Function::Histogram, FieldType::Float) => work.with::<Histograms<f64>>(),
        (Function::Histogram, FieldType::Integer) => work.with::<Histograms<i64>>(),
        (Function::Histogram, FieldType::Unsigned) => work.with::<Histograms<u64>>(),
        (Function::Counter, FieldType::Float) => work.with::<Counters<f64>>(),
        (Function::Counter, FieldType::Integer) => work.with::<Counters<i64>>(),
        (Function::Counter, FieldType::Unsigned) => work.with::<Counters<u64>>(),
        (Function::TimeWeighted, FieldType::Float) => work.with::<TimeWeights<f64>>(),
        (Function::TimeWeighted, FieldType::Integer) => work.with::<TimeWeights<i64>>(),
        (Function::TimeWeighted, FieldType::Unsigned) => work.with::<TimeWeights<u64>>(),
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

/// The encodings; NULL for partials of nothing, unless the adapter writes them.
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
    let mut bytes = Vec::with_capacity(partials.len() * COMMON_BYTES);
    let mut ends = Vec::with_capacity(partials.len() + 1);
    ends.push(0i32);
    for partial in partials {
        if A::WRITES_NOTHING || !partial.is_empty() {
            encode(partial, &mut bytes);
        }
        ends.push(bytes.len() as i32);
    }
    if i32::try_from(bytes.len()).is_err() {
        return Err(exec_datafusion_err!("partials of one batch exceed 2 GiB; use fewer groups"));
    }
    let nulls =
        (!A::WRITES_NOTHING).then(|| partials.iter().map(|partial| !partial.is_empty()).collect());
    let nulls = nulls.filter(|nulls: &NullBuffer| nulls.null_count() > 0);
    bytes.shrink_to_fit();
    Ok(BinaryArray::new(OffsetBuffer::new(ends.into()), Buffer::from_vec(bytes), nulls))
}
