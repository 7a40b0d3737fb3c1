//! The bounds of a histogram, as a call gives them.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::physical_expr::expressions::Literal;

use super::function::AggregateFunction;
use crate::partial::histogram::are_bounds;

/// So many bounds a histogram has at most, so that a function can be copied.
pub const MOST_BOUNDS: usize = 20;

/// Finite floats that ascend, at most [`MOST_BOUNDS`] of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    count: usize,
    /// Bits of floats; 0 behind the last one.
    bits: [u64; MOST_BOUNDS],
}

impl Bounds {
    /// No bounds yet, of a function whose call gives them.
    pub(super) const NONE: Bounds = Bounds { count: 0, bits: [0; MOST_BOUNDS] };

    /// These bounds; `None` unless they are finite and ascend, and there are 1 to [`MOST_BOUNDS`].
    pub fn new(values: &[f64]) -> Option<Self> {
        // Adding 0.0 makes -0.0 positive.
        let values: Vec<f64> = values.iter().map(|value| value + 0.0).collect();
        if values.len() > MOST_BOUNDS || !are_bounds(&values) {
            return None;
        }
        let mut bounds = Bounds { count: values.len(), ..Bounds::NONE };
        bounds.bits.iter_mut().zip(&values).for_each(|(bits, value)| *bits = value.to_bits());
        Some(bounds)
    }

    /// The bounds, ascending.
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.bits[..self.count].iter().map(|bits| f64::from_bits(*bits))
    }

    /// Reads numbers with commas between them.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let numbers = text.split(',').map(|number| number.trim().parse::<f64>().ok());
        Bounds::new(&numbers.collect::<Option<Vec<_>>>()?)
    }

    /// The bounds that constants give.
    pub(super) fn of_constants<'a>(
        constants: impl Iterator<Item = Option<&'a ScalarValue>>,
    ) -> Option<Self> {
        let number = |value: Option<&ScalarValue>| match value?.cast_to(&DataType::Float64) {
            Ok(ScalarValue::Float64(number)) => number,
            _ => None,
        };
        Bounds::new(&constants.map(number).collect::<Option<Vec<_>>>()?)
    }
}

/// Checks the bounds behind the value in a call of a histogram over points.
///
/// # Errors
/// If they are no constants, or no bounds.
pub(super) fn check_call(function: AggregateFunction, args: &AccumulatorArgs) -> Result<()> {
    if !matches!(function, AggregateFunction::Histogram(_)) {
        return Ok(());
    }
    let constants = args.exprs.iter().skip(1);
    let constants = constants.map(|one| one.downcast_ref::<Literal>().map(Literal::value));
    match Bounds::of_constants(constants) {
        Some(_) => Ok(()),
        None => plan_err!(
            "the bounds of a histogram are 1 to {MOST_BOUNDS} constants that ascend, like \
             histogram(x, 0.1, 0.5, 1)"
        ),
    }
}

/// The bounds in the columns behind the value, which are the same in every row; `None` without rows.
pub(super) fn of_columns(columns: &[ArrayRef]) -> Option<Arc<[f64]>> {
    let first = |column: &ArrayRef| {
        let column = column.as_primitive::<Float64Type>();
        (!column.is_empty()).then(|| column.value(0) + 0.0)
    };
    columns.iter().map(first).collect()
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.values().map(|value| value.to_string()).collect();
        f.write_str(&texts.join(", "))
    }
}

impl fmt::Debug for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.values()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_ascend() {
        let bounds = Bounds::parse(" -1, -0.0,0.5 , 1e3").unwrap();
        assert_eq!(bounds.to_string(), "-1, 0, 0.5, 1000");
        assert_eq!(Bounds::parse(&bounds.to_string()), Some(bounds));
        for text in ["", "1,", "x", "1, 1", "2, 1", "nan", "inf", "0, -0"] {
            assert_eq!(Bounds::parse(text), None, "{text}");
        }
        let many: Vec<f64> = (0..=MOST_BOUNDS as i32).map(f64::from).collect();
        assert_eq!(Bounds::new(&many), None);
        assert!(Bounds::new(&many[1..]).is_some());
    }
}
