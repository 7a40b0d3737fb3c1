//! `time_bucket_gapfill(width, time)`, `locf(x)` and `interpolate(x)`.
//!
//! These names mark a plan; [`crate::rules::gapfill`] turns it into one that fills gaps. Wherever
//! a mark is left, it stands where gaps cannot be filled, so evaluating it is an error.

use arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::QueryError;
use crate::functions::time_bucket;

/// Name of the function that is grouped by.
pub(crate) const GAPFILL: &str = "time_bucket_gapfill";
/// Name of the function that repeats the last value in gaps.
pub(crate) const LOCF: &str = "locf";
/// Name of the function that draws a line through gaps.
pub(crate) const INTERPOLATE: &str = "interpolate";

/// The functions that mark a plan.
pub(crate) fn markers() -> Vec<ScalarUDF> {
    [GAPFILL, LOCF, INTERPOLATE].map(|name| Marker::new(name).into()).into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    name: &'static str,
    signature: Signature,
}

impl Marker {
    fn new(name: &'static str) -> Self {
        // Never folded to a constant, never evaluated twice instead of once.
        Marker { name, signature: Signature::user_defined(Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match (self.name, arguments) {
            (GAPFILL, _) => time_bucket::coerce(self.name, arguments),
            (INTERPOLATE, [argument]) if argument.is_numeric() => Ok(vec![DataType::Float64]),
            (LOCF, [argument]) => Ok(vec![argument.clone()]),
            (name, _) => plan_err!("{name} takes one value, and interpolate a number"),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(if self.name == GAPFILL { arguments[1].clone() } else { arguments[0].clone() })
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(QueryError::unsupported_but(
            format!("{} here", self.name),
            "group by time_bucket_gapfill(width, time), and use locf or interpolate around an \
             aggregate of that query",
        )
        .into())
    }
}
