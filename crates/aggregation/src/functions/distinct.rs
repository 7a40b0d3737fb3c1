//! Sums and means of distinct numbers: each number once, then the usual partial.

use std::collections::HashSet;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, PrimitiveArray};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::Accumulator;

use super::adapter::Adapter;
use super::column::{Number, binary, downcast, for_each_row, selected};
use super::function::AggregateFunction;
use super::groups::Gives;
use super::single::answer_of;

/// The distinct numbers of one group; the state is their keys, eight bytes each.
#[derive(Debug)]
pub(super) struct Distinct<A, N> {
    keys: HashSet<u64>,
    function: AggregateFunction,
    adapter: PhantomData<(A, N)>,
}

impl<A, N> Distinct<A, N> {
    pub(super) fn new(function: AggregateFunction) -> Self {
        Distinct { keys: HashSet::new(), function, adapter: PhantomData }
    }
}

impl<A: Adapter, N: Number> Accumulator for Distinct<A, N> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let numbers = downcast::<PrimitiveArray<N::Arrow>>(&values[0]).values();
        for_each_row(numbers.len(), selected(values, None).as_ref(), |row| {
            self.keys.insert(numbers[row].to_key());
        });
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for state in binary(&states[0]).iter().flatten() {
            let (keys, rest) = state.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(exec_datafusion_err!("state of a DISTINCT is cut off"));
            }
            self.keys.extend(keys.iter().map(|key| u64::from_le_bytes(*key)));
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let numbers = self.keys.iter().map(|key| N::from_key(*key));
        let numbers: ArrayRef = Arc::new(PrimitiveArray::<N::Arrow>::from_iter_values(numbers));
        let mut partial = A::Partial::default();
        A::feed(&[numbers], None, std::slice::from_mut(&mut partial), |_| 0);
        answer_of::<A>(Gives::Answers(self.function), &partial)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let bytes = self.keys.iter().flat_map(|key| key.to_le_bytes()).collect();
        Ok(vec![ScalarValue::Binary(Some(bytes))])
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.keys.capacity() * (size_of::<u64>() + 1)
    }
}
