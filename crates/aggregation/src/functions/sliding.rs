//! The accumulator for windows whose start moves.
//!
//! Partials have no inverse (a maximum cannot be taken back), so the window is kept as two stacks:
//! rows leave from the front one, whose entries are merged with all that follow them there, and
//! enter at the back one. Each row is merged three times at most.
//!
//! Source: Tangwongsan et al., General Incremental Sliding-Window Aggregation, PVLDB 8(7), 2015.

use arrow::array::{Array, ArrayRef};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::Accumulator;

use super::adapter::{Adapter, WithAdapter, feed_encoded};
use super::column::selected;
use super::groups::{Gives, Reads, feed};
use super::single::{answer_of, state_of};
use crate::partial::Partial;

#[derive(Debug)]
struct Sliding<A: Adapter> {
    /// The oldest row last, merged with every younger row of this stack.
    front: Vec<A::Partial>,
    /// The youngest row last.
    back: Vec<A::Partial>,
    /// All of `back`.
    back_total: A::Partial,
    reads: Reads,
    gives: Gives,
}

impl<A: Adapter> Sliding<A> {
    fn push_all(&mut self, rows: Vec<A::Partial>) {
        rows.iter().for_each(|row| self.back_total.merge(row));
        self.back.extend(rows);
    }

    fn pop(&mut self) -> Result<()> {
        if self.front.is_empty() {
            let mut total = A::Partial::default();
            self.front.extend(self.back.drain(..).rev().map(|row| {
                total.merge(&row);
                total.clone()
            }));
            self.back_total = A::Partial::default();
        }
        match self.front.pop() {
            Some(_) => Ok(()),
            None => internal_err!("more rows leave the window than entered it"),
        }
    }

    fn total(&self) -> A::Partial {
        let mut total = self.front.last().cloned().unwrap_or_default();
        total.merge(&self.back_total);
        total
    }
}

impl<A: Adapter> Accumulator for Sliding<A> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut rows = vec![A::Partial::default(); values[0].len()];
        feed::<A>(self.reads, values, None, &mut rows, |row| row)?;
        self.push_all(rows);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        (0..values[0].len()).try_for_each(|_| self.pop())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let mut rows = vec![A::Partial::default(); states[0].len()];
        feed_encoded(&states[0], selected(states, None).as_ref(), &mut rows, |row| row)?;
        self.push_all(rows);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        answer_of::<A>(self.gives, &self.total())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![state_of::<A>(&self.total())?])
    }

    fn size(&self) -> usize {
        let rows = self.front.capacity() + self.back.capacity();
        size_of_val(self) + rows * size_of::<A::Partial>()
    }
}

/// Makes a [`Sliding`] accumulator.
pub(super) struct MakeSliding(pub(super) Reads, pub(super) Gives);

impl WithAdapter for MakeSliding {
    type Output = Box<dyn Accumulator>;

    fn with<A: Adapter>(self) -> Self::Output {
        Box::new(Sliding::<A> {
            front: Vec::new(),
            back: Vec::new(),
            back_total: A::Partial::default(),
            reads: self.0,
            gives: self.1,
        })
    }
}
