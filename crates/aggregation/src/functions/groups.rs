//! The vectorised accumulator: one partial per group, in a `Vec`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::adapter::{Adapter, WithAdapter, encoded, encoded_complete, feed_encoded};
use super::column::selected;
use super::function::AggregateFunction;
use crate::partial::Partial;

/// What an accumulator is fed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    Values,
    Partials,
}

/// What it answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    /// Answers of this function.
    Answers(AggregateFunction),
    Partials,
}

/// Partials of all groups of a query.
///
/// Its state is one `Binary` column of encoded partials.
#[derive(Debug)]
pub(super) struct Groups<A: Adapter> {
    partials: Vec<A::Partial>,
    reads: Reads,
    gives: Gives,
}

impl<A: Adapter> Groups<A> {
    fn new(reads: Reads, gives: Gives) -> Self {
        Groups { partials: Vec::new(), reads, gives }
    }

    fn grow(&mut self, groups: usize) {
        if self.partials.len() < groups {
            self.partials.resize_with(groups, A::Partial::default);
        }
    }

    /// What `give` makes of the partials to emit, which are forgotten. Memory is kept if those are all.
    fn emit<R>(&mut self, emit_to: EmitTo, give: impl FnOnce(&[A::Partial]) -> R) -> R {
        match emit_to {
            EmitTo::All => {
                let given = give(&self.partials);
                self.partials.clear();
                given
            }
            EmitTo::First(_) => give(&emit_to.take_needed(&mut self.partials)),
        }
    }
}

impl<A: Adapter> GroupsAccumulator for Groups<A> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        groups: usize,
    ) -> Result<()> {
        self.grow(groups);
        feed::<A>(self.reads, values, filter, &mut self.partials, |row| group_indices[row])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        groups: usize,
    ) -> Result<()> {
        self.grow(groups);
        let rows = selected(values, None);
        feed_encoded(&values[0], rows.as_ref(), &mut self.partials, |row| group_indices[row])
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let gives = self.gives;
        self.emit(emit_to, |partials| answer::<A>(gives, partials))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let states = self.emit(emit_to, encoded::<A>)?;
        Ok(vec![Arc::new(states)])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut partials = vec![A::Partial::default(); values[0].len()];
        feed::<A>(self.reads, values, filter, &mut partials, |row| row)?;
        Ok(vec![Arc::new(encoded::<A>(&partials)?)])
    }

    fn size(&self) -> usize {
        let heap: usize = match A::Partial::HAS_HEAP {
            true => self.partials.iter().map(Partial::heap_bytes).sum(),
            false => 0,
        };
        size_of_val(self) + self.partials.capacity() * size_of::<A::Partial>() + heap
    }
}

/// Feeds the rows that are valid and pass the filter.
pub(super) fn feed<A: Adapter>(
    reads: Reads,
    columns: &[ArrayRef],
    filter: Option<&BooleanArray>,
    partials: &mut [A::Partial],
    group_of: impl Fn(usize) -> usize,
) -> Result<()> {
    let rows = selected(columns, filter);
    match reads {
        Reads::Values => A::feed(columns, rows.as_ref(), partials, group_of),
        Reads::Partials => feed_encoded(&columns[0], rows.as_ref(), partials, group_of)?,
    }
    Ok(())
}

/// The answers, or the partials themselves.
pub(super) fn answer<A: Adapter>(gives: Gives, partials: &[A::Partial]) -> Result<ArrayRef> {
    match gives {
        Gives::Answers(function) => {
            A::finish(partials, function).map_err(|no_answer| no_answer.error.into())
        }
        Gives::Partials => Ok(Arc::new(encoded_complete::<A>(partials)?)),
    }
}

/// Makes a [`Groups`] accumulator.
pub(super) struct MakeGroups(pub(super) Reads, pub(super) Gives);

impl WithAdapter for MakeGroups {
    type Output = Box<dyn GroupsAccumulator>;

    fn with<A: Adapter>(self) -> Self::Output {
        Box::new(Groups::<A>::new(self.0, self.1))
    }
}
