//! `percentile(x, p)` and `percentile_cont(p) WITHIN GROUP (ORDER BY x)`: the exact percentile.
//!
//! With the values sorted as `v[0] ..= v[n-1]` and `r = p * (n-1)`, the result is the value of
//! the line through the neighbours of `r`: `v[i] + (v[i+1] - v[i]) * (r - i)` for `i = ⌊r⌋`,
//! rounded once, so `{5, 10, 20}` has `19.0` at `0.95`.
//!
//! Source: Hyndman and Fan, Sample quantiles in statistical packages, The American Statistician
//! 50(4), 1996, definition 7; error-free sums and products after Shewchuk, Adaptive precision
//! floating-point arithmetic, 1997.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::expressions::Literal;

/// Both names of the function.
pub(crate) fn functions() -> Vec<AggregateUDF> {
    let named = [("percentile", &[][..]), ("percentile_cont", &["quantile_cont"])];
    named.map(|(name, aliases)| Percentile::new(name, aliases).into()).into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
}

impl Percentile {
    fn new(name: &'static str, aliases: &[&str]) -> Self {
        let types = vec![DataType::Float64, DataType::Float64];
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        Percentile { name, aliases, signature: Signature::exact(types, Volatility::Immutable) }
    }

    /// The constant `p`; counted from the other end if the order is descending.
    fn fraction(&self, args: &AccumulatorArgs) -> Result<f64> {
        let literal = args.exprs.get(1).and_then(|expr| expr.downcast_ref::<Literal>());
        let p = match literal.map(Literal::value) {
            Some(ScalarValue::Float64(Some(p))) if (0.0..=1.0).contains(p) => *p,
            _ => return plan_err!("the second argument of {} is a number from 0 to 1", self.name),
        };
        let descending = args.order_bys.first().is_some_and(|order| order.options.descending);
        Ok(if descending { 1.0 - p } else { p })
    }
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn supports_within_group_clause(&self) -> bool {
        self.name == "percentile_cont"
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let values = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
        Ok(vec![Arc::new(Field::new(format!("{}[values]", args.name), values, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("{} of DISTINCT values is not supported", self.name);
        }
        Ok(Box::new(Values { p: self.fraction(&args)?, values: Vec::new() }))
    }
}

/// All values of a group.
#[derive(Debug)]
struct Values {
    p: f64,
    values: Vec<f64>,
}

impl Accumulator for Values {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        self.values.extend(columns[0].as_primitive::<Float64Type>().iter().flatten());
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.update_batch(&[values])?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = Float64Array::from(std::mem::take(&mut self.values));
        let field = Arc::new(Field::new_list_field(DataType::Float64, true));
        let offsets = OffsetBuffer::from_lengths([values.len()]);
        let list = ListArray::new(field, offsets, Arc::new(values), None);
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(percentile(&mut self.values, self.p)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }
}

/// The percentile `p` of `values`, which are reordered; `None` if there are none.
fn percentile(values: &mut [f64], p: f64) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    let (whole, rest) = product(p, last as f64);
    let below = if whole.fract() == 0.0 && rest < 0.0 { whole - 1.0 } else { whole.floor() };
    // `whole + rest - below`, a number in [0, 1], as an exact sum of two.
    let fraction = (whole - below, rest);
    let (_, low, above) = values.select_nth_unstable_by(below as usize, f64::total_cmp);
    let low = *low;
    if fraction == (0.0, 0.0) {
        return Some(low);
    }
    let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    Some(between(low, high, fraction))
}

/// `low + (high - low) * (f.0 + f.1)`, rounded once.
fn between(low: f64, high: f64, f: (f64, f64)) -> f64 {
    let largest = low.abs().max(high.abs());
    if low == high || !largest.is_finite() {
        return if low == high { low } else { low + (high - low) * f.0 };
    }
    // Away from overflow of the difference and from underflow of the products.
    let scale = if largest > 1e300 {
        2f64.powi(-4)
    } else if largest < 1e-200 {
        2f64.powi(300)
    } else {
        1.0
    };
    let (low, high) = (low * scale, high * scale);
    let (difference, lost) = sum(high, -low);
    let terms = [(difference, f.0), (difference, f.1), (lost, f.0), (lost, f.1)];
    let mut parts = vec![low];
    for (a, b) in terms {
        let (product, lost) = product(a, b);
        parts.extend([product, lost]);
    }
    exact_sum(&parts) / scale
}

/// `a + b` as rounded sum and exact error.
fn sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// `a * b` as rounded product and exact error.
fn product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    (product, a.mul_add(b, -product))
}

/// The sum of `terms`, rounded once.
fn exact_sum(terms: &[f64]) -> f64 {
    // Partial sums that do not overlap, smallest first.
    let mut partials: Vec<f64> = Vec::with_capacity(terms.len());
    for &term in terms {
        let mut carry = term;
        let mut kept = Vec::with_capacity(partials.len() + 1);
        for &partial in &partials {
            let (high, low) = sum(carry, partial);
            if low != 0.0 {
                kept.push(low);
            }
            carry = high;
        }
        kept.push(carry);
        partials = kept;
    }
    round_partials(&partials)
}

/// The sum of non-overlapping numbers, smallest first, rounded half to even.
fn round_partials(partials: &[f64]) -> f64 {
    let mut rest = partials.iter().rev().copied();
    let mut high = rest.next().unwrap_or(0.0);
    while let Some(next) = rest.next() {
        let (rounded, low) = sum(high, next);
        high = rounded;
        if low != 0.0 {
            // Exactly half: what is left decides the direction.
            if let Some(beyond) = rest.next()
                && (low < 0.0) == (beyond < 0.0)
                && beyond != 0.0
            {
                let twice = low * 2.0;
                let moved = high + twice;
                if moved - high == twice {
                    high = moved;
                }
            }
            return high;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_rounded_once() {
        for (values, p, expected) in [
            (vec![20.0, 5.0, 10.0], 0.95, 19.0),
            (vec![20.0, 5.0, 10.0], 0.5, 10.0),
            (vec![1.0, 2.0, 3.0, 4.0], 0.5, 2.5),
            (vec![7.0], 0.3, 7.0),
            (vec![1.0, 2.0], 0.0, 1.0),
            (vec![1.0, 2.0], 1.0, 2.0),
            (vec![0.1, 0.3], 0.5, 0.2),
            (vec![f64::MAX, -f64::MAX], 0.5, 0.0),
            (vec![f64::MAX, f64::MAX], 0.25, f64::MAX),
            (vec![5e-324, 1e-323], 0.0, 5e-324),
            (vec![-1.0, f64::INFINITY], 0.5, f64::INFINITY),
        ] {
            assert_eq!(percentile(&mut values.clone(), p), Some(expected), "{values:?} at {p}");
        }
        assert_eq!(percentile(&mut [], 0.5), None);
    }

    #[test]
    fn every_tenth_of_whole_numbers_is_itself() {
        for n in 1..200 {
            let mut values: Vec<f64> = (0..=n).map(f64::from).rev().collect();
            for i in 0..=n {
                let p = f64::from(i) / f64::from(n);
                let found = percentile(&mut values, p).unwrap();
                assert!((found - f64::from(i)).abs() <= f64::EPSILON * f64::from(n), "{i} of {n}");
            }
        }
    }

    #[test]
    fn sums_do_not_lose_small_terms() {
        assert_eq!(exact_sum(&[1e100, 1.0, -1e100]), 1.0);
        assert_eq!(exact_sum(&[1.0, 2f64.powi(-53), 2f64.powi(-106)]), 1.0 + f64::EPSILON);
        assert_eq!(exact_sum(&[]), 0.0);
    }
}
