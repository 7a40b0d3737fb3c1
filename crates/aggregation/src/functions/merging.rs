//! Accumulators of partials whose type only the partials know.
//!
//! A stored partial says what it is, its column need not. So these wait for the first one and then
//! become the accumulator of its type; before that, the answer is NULL.

use arrow::array::{Array, ArrayRef, BooleanArray, new_null_array};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use highwater_core::FieldType;

use super::adapter::with_adapter;
use super::column::{binary, selected};
use super::error::undecodable;
use super::groups::{Gives, MakeGroups, Reads};
use super::single::MakeSingle;
use super::sliding::MakeSliding;
use crate::partial::{Function, Header};

/// Type of the values in the first of the selected partials; `None` if there is none.
pub(super) fn first_type(
    column: &ArrayRef,
    filter: Option<&BooleanArray>,
) -> Result<Option<FieldType>> {
    let rows = selected(std::slice::from_ref(column), filter);
    let first = match rows {
        None => (!column.is_empty()).then_some(0),
        Some(rows) => rows.valid_indices().next(),
    };
    first
        .map(|row| Header::read(binary(column).value(row)).map_err(undecodable))
        .transpose()
        .map(|header| header.map(|header| header.values.unwrap_or(FieldType::Float)))
}

/// Merges partials per group.
pub(super) struct MergingGroups {
    function: Function,
    inner: Option<Box<dyn GroupsAccumulator>>,
    groups: usize,
}

impl MergingGroups {
    pub(super) fn new(function: Function) -> Self {
        MergingGroups { function, inner: None, groups: 0 }
    }

    /// The accumulator for these partials, once one of them has shown the type.
    fn inner_for(
        &mut self,
        column: &ArrayRef,
        filter: Option<&BooleanArray>,
    ) -> Result<Option<&mut Box<dyn GroupsAccumulator>>> {
        if self.inner.is_none() {
            self.inner = first_type(column, filter)?
                .map(|values| {
                    let make = MakeGroups(Reads::Partials, Gives::Partials);
                    with_adapter(self.function, values, make)
                })
                .transpose()?;
        }
        Ok(self.inner.as_mut())
    }

    fn nulls(&mut self, emit_to: EmitTo) -> ArrayRef {
        let emitted = match emit_to {
            EmitTo::All => self.groups,
            EmitTo::First(groups) => groups,
        };
        self.groups = self.groups.saturating_sub(emitted);
        new_null_array(&DataType::Binary, emitted)
    }
}

impl GroupsAccumulator for MergingGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        groups: usize,
    ) -> Result<()> {
        self.groups = groups;
        match self.inner_for(&values[0], filter)? {
            Some(inner) => inner.update_batch(values, group_indices, filter, groups),
            None => Ok(()),
        }
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        groups: usize,
    ) -> Result<()> {
        self.update_batch(values, group_indices, None, groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        match &mut self.inner {
            Some(inner) => inner.evaluate(emit_to),
            None => Ok(self.nulls(emit_to)),
        }
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        match &mut self.inner {
            Some(inner) => inner.state(emit_to),
            None => Ok(vec![self.nulls(emit_to)]),
        }
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut rows = MergingGroups::new(self.function);
        let each_its_own: Vec<usize> = (0..values[0].len()).collect();
        rows.update_batch(values, &each_its_own, filter, each_its_own.len())?;
        rows.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.as_ref().map_or(0, |inner| inner.size())
    }
}

/// Merges partials into one; with `Make` for how.
#[derive(Debug)]
pub(super) struct Merging<Make> {
    function: Function,
    make: Make,
    inner: Option<Box<dyn Accumulator>>,
    /// Rows that came, all of them NULL, before `inner`.
    nulls: usize,
}

impl<Make> Merging<Make> {
    pub(super) fn new(function: Function, make: Make) -> Self {
        Merging { function, make, inner: None, nulls: 0 }
    }
}

/// Makes the accumulators that [`Merging`] turns into.
pub(super) trait MakeAccumulator: Send + Sync + std::fmt::Debug + 'static {
    fn make(&self, function: Function, values: FieldType) -> Result<Box<dyn Accumulator>>;
}

/// For windows that only grow.
#[derive(Debug)]
pub(super) struct Growing;

/// For windows whose start moves.
#[derive(Debug)]
pub(super) struct Moving;

impl MakeAccumulator for Growing {
    fn make(&self, function: Function, values: FieldType) -> Result<Box<dyn Accumulator>> {
        with_adapter(function, values, MakeSingle(Reads::Partials, Gives::Partials))
    }
}

impl MakeAccumulator for Moving {
    fn make(&self, function: Function, values: FieldType) -> Result<Box<dyn Accumulator>> {
        with_adapter(function, values, MakeSliding(Reads::Partials, Gives::Partials))
    }
}

impl<Make: MakeAccumulator> Accumulator for Merging<Make> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.inner.is_none() {
            match first_type(&values[0], None)? {
                Some(values) => self.inner = Some(self.make.make(self.function, values)?),
                None => self.nulls += values[0].len(),
            }
        }
        match &mut self.inner {
            Some(inner) => inner.update_batch(values),
            None => Ok(()),
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let early = self.nulls.min(values[0].len());
        self.nulls -= early;
        let rest = values[0].slice(early, values[0].len() - early);
        match &mut self.inner {
            Some(inner) => inner.retract_batch(&[rest]),
            None => Ok(()),
        }
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match &mut self.inner {
            Some(inner) => inner.evaluate(),
            None => Ok(ScalarValue::Binary(None)),
        }
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        match &mut self.inner {
            Some(inner) => inner.state(),
            None => Ok(vec![ScalarValue::Binary(None)]),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.as_ref().map_or(0, |inner| inner.size())
    }
}
