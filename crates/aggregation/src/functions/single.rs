//! The plain accumulator: one partial, for queries without groups and for growing windows.

use arrow::array::ArrayRef;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Accumulator;

use super::adapter::{Adapter, WithAdapter, encoded, feed_encoded};
use super::column::selected;
use super::groups::{Gives, Reads, answer, feed};
use crate::partial::Partial;

/// One partial.
#[derive(Debug)]
struct Single<A: Adapter> {
    partial: A::Partial,
    reads: Reads,
    gives: Gives,
}

impl<A: Adapter> Accumulator for Single<A> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        feed::<A>(self.reads, values, None, std::slice::from_mut(&mut self.partial), |_| 0)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = selected(states, None);
        let partial = std::slice::from_mut(&mut self.partial);
        feed_encoded(&states[0], rows.as_ref(), partial, |_| 0)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        answer_of::<A>(self.gives, &self.partial)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![state_of::<A>(&self.partial)?])
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.partial.heap_bytes()
    }
}

/// The answer of one partial.
pub(super) fn answer_of<A: Adapter>(gives: Gives, partial: &A::Partial) -> Result<ScalarValue> {
    ScalarValue::try_from_array(&answer::<A>(gives, std::slice::from_ref(partial))?, 0)
}

/// The encoding of one partial.
pub(super) fn state_of<A: Adapter>(partial: &A::Partial) -> Result<ScalarValue> {
    ScalarValue::try_from_array(&encoded::<A>(std::slice::from_ref(partial))?, 0)
}

/// Makes a [`Single`] accumulator.
pub(super) struct MakeSingle(pub(super) Reads, pub(super) Gives);

impl WithAdapter for MakeSingle {
    type Output = Box<dyn Accumulator>;

    fn with<A: Adapter>(self) -> Self::Output {
        let partial = A::Partial::default();
        Box::new(Single::<A> { partial, reads: self.0, gives: self.1 })
    }
}
