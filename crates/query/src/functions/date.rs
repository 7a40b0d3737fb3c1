//! `date(x)`: the UTC date of a time, as PostgreSQL writes `CAST(x AS DATE)`.

use arrow::datatypes::DataType;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility, cast,
};

/// The function; planned as a cast, so that it is pruned like one.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct DateOf {
    signature: Signature,
}

impl Default for DateOf {
    fn default() -> Self {
        DateOf { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for DateOf {
    fn name(&self) -> &str {
        "date"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Date32)
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match <[Expr; 1]>::try_from(args) {
            Ok([value]) => Ok(ExprSimplifyResult::Simplified(cast(value, DataType::Date32))),
            Err(args) => Ok(ExprSimplifyResult::Original(args)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [value] => value.cast_to(&DataType::Date32, None),
            _ => internal_err!("date takes one argument"),
        }
    }
}
