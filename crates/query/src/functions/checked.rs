//! `+`, `-` and `*` of whole numbers that fail where the result does not fit.
//!
//! DataFusion's own operators wrap around silently. [`CheckedIntegers`] replaces them, before
//! constants are folded. A chain such as `a + b - c` becomes one call that works from left to
//! right, because planning a call costs more the deeper it nests.

use std::sync::Arc;

use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::physical_expr_common::datum::apply;

/// Replaces operators on whole numbers by functions that check.
#[derive(Debug)]
pub(crate) struct CheckedIntegers;

impl FunctionRewrite for CheckedIntegers {
    fn name(&self) -> &str {
        "checked_integers"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        let type_of = |expr: &Expr| type_of(expr, schema);
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right })
                if matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply) =>
            {
                match (type_of(&left), type_of(&right)) {
                    (Some(l), Some(r)) if result_type(&l, op, &r).is_some() => {
                        Ok(Transformed::yes(checked(*left, op, *right, l, r)))
                    }
                    _ => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
                }
            }
            // The smallest number is only ever written with its sign, which the planner folds.
            Expr::Negative(inner) if !matches!(*inner, Expr::Literal(..)) => {
                match type_of(&inner) {
                    Some(own) if own.is_signed_integer() => {
                        let zero = lit(0_i64);
                        let call = checked(zero, Operator::Minus, *inner, DataType::Int64, own);
                        Ok(Transformed::yes(call))
                    }
                    _ => Ok(Transformed::no(Expr::Negative(inner))),
                }
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

/// The type of a whole number; `None` for anything else.
fn type_of(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    match chain(expr) {
        Some(chain) => chain.types.last().cloned(),
        None => expr.get_type(schema).ok().filter(DataType::is_integer),
    }
}

/// The chain that a call stands for.
fn chain(expr: &Expr) -> Option<&Chain> {
    match expr {
        Expr::ScalarFunction(function) => {
            let implementation: &dyn std::any::Any = function.func.inner().as_ref();
            implementation.downcast_ref::<Chain>()
        }
        _ => None,
    }
}

fn result_type(left: &DataType, op: Operator, right: &DataType) -> Option<DataType> {
    let result = BinaryTypeCoercer::new(left, &op, right).get_result_type().ok();
    result.filter(DataType::is_integer)
}

/// `left op right` as a call; a call on the left is continued.
fn checked(left: Expr, op: Operator, right: Expr, l: DataType, r: DataType) -> Expr {
    let result = result_type(&l, op, &r).unwrap_or(DataType::Int64);
    let (mut ops, mut types) = match chain(&left) {
        Some(chain) => (chain.ops.clone(), chain.types.clone()),
        None => (Vec::new(), Vec::new()),
    };
    let mut arguments = match left {
        Expr::ScalarFunction(function) if !ops.is_empty() => function.args,
        other => vec![other],
    };
    ops.push(op);
    types.push(result);
    arguments.push(right);
    let function = ScalarUDF::from(Chain::new(ops, types));
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), arguments))
}

/// Operators between the arguments, applied from left to right.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Chain {
    ops: Vec<Operator>,
    /// Type of the result after each operator.
    types: Vec<DataType>,
    signature: Signature,
}

impl Chain {
    fn new(ops: Vec<Operator>, types: Vec<DataType>) -> Self {
        let signature = Signature::variadic_any(Volatility::Immutable);
        Chain { ops, types, signature }
    }
}

impl ScalarUDFImpl for Chain {
    fn name(&self) -> &str {
        "checked"
    }

    fn display_name(&self, arguments: &[Expr]) -> Result<String> {
        let mut text = arguments.first().map(Expr::to_string).unwrap_or_default();
        for (op, argument) in self.ops.iter().zip(arguments.iter().skip(1)) {
            text.push_str(&format!(" {op} {argument}"));
        }
        Ok(format!("checked({text})"))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        match self.types.last() {
            Some(result) => Ok(result.clone()),
            None => internal_err!("a chain of operators has no operator"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut arguments = args.args.into_iter();
        let Some(mut value) = arguments.next() else {
            return internal_err!("a chain of operators has no argument");
        };
        for ((op, result), argument) in self.ops.iter().zip(&self.types).zip(arguments) {
            let kernel = match op {
                Operator::Plus => add,
                Operator::Minus => sub,
                _ => mul,
            };
            value = apply(&as_type(value, result)?, &as_type(argument, result)?, kernel)?;
        }
        Ok(value)
    }
}

fn as_type(value: ColumnarValue, wanted: &DataType) -> Result<ColumnarValue> {
    if value.data_type() == *wanted { Ok(value) } else { value.cast_to(wanted, None) }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::logical_expr::col;

    use super::*;

    #[test]
    fn only_whole_numbers_are_replaced() {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let fields = vec![field("i", DataType::Int64), field("f", DataType::Float64)];
        let schema = DFSchema::from_unqualified_fields(fields.into(), Default::default()).unwrap();
        let rewrite =
            |expr: Expr| CheckedIntegers.rewrite(expr, &schema, &ConfigOptions::default()).unwrap();
        let sum = rewrite(col("i") + lit(1));
        assert!(sum.transformed);
        let longer = rewrite(sum.data * col("i"));
        assert_eq!(chain(&longer.data).unwrap().ops, [Operator::Plus, Operator::Multiply]);
        assert!(rewrite(Expr::Negative(Box::new(col("i")))).transformed);
        assert!(!rewrite(col("i") + col("f")).transformed);
        assert!(!rewrite(col("i") / lit(2)).transformed);
        assert!(!rewrite(col("i").gt(lit(2))).transformed);
    }
}
