//! The functions by name, what they take and give, and their expressions in plans.

use std::fmt;

use datafusion::common::Column;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::{AggregateUDF, Expr, lit};
use datafusion::prelude::ident;
use highwater_core::FieldType;
use highwater_core::schema::TIME_COLUMN;

use super::finish::finish_udf;
use super::partials::{merge_udaf, partial_udaf};
use super::raw;
use crate::partial::Function;

/// Functions that have a partial, but not in this release.
const NOT_YET: [&str; 16] = [
    "stddev",
    "stddev_samp",
    "stddev_pop",
    "variance",
    "var",
    "var_samp",
    "var_pop",
    "distinct",
    "approx_distinct",
    "approx_percentile",
    "increase",
    "rate",
    "time_weighted_average",
    "histogram",
    "first_time",
    "last_time",
];

/// Functions of SQL whose answers cannot be merged.
const NOT_MERGEABLE: [&str; 4] = ["percentile", "percentile_cont", "median", "mode"];

/// An aggregate function as definitions name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// Points, whether they have a value or not.
    Count,
    /// Points that have the field.
    CountField,
    /// Exact sum.
    Sum,
    /// Exact sum divided by the count, rounded once.
    Mean,
    /// Smallest value.
    Min,
    /// Greatest value.
    Max,
    /// Earliest value.
    First,
    /// Latest value.
    Last,
}

/// Why a function cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FunctionError {
    /// There is none of that name.
    #[error("unknown function {name:?}; known are {}", KNOWN)]
    Unknown {
        /// As it was written.
        name: String,
    },
    /// A later release will have it.
    #[error("function {name} is not supported yet; known are {}", KNOWN)]
    NotYet {
        /// As it was written.
        name: String,
    },
    /// Raw SQL only.
    #[error(
        "function {name} works in queries only, as its answers cannot be merged; known are {}",
        KNOWN
    )]
    NotMergeable {
        /// As it was written.
        name: String,
    },
    /// Only `count` goes without a field.
    #[error("function {function} needs a field")]
    NeedsField {
        /// Which function.
        function: AggregateFunction,
    },
    /// The field's type does not fit.
    #[error("function {function} does not take a field of type {field_type}")]
    WrongType {
        /// Which function.
        function: AggregateFunction,
        /// What it was given.
        field_type: FieldType,
    },
}

const KNOWN: &str = "avg, count, first, last, max, mean, min, sum";

impl AggregateFunction {
    /// The function of that name in a rule file, where `count` may go without a field.
    ///
    /// # Errors
    /// [`FunctionError`] with the names that are known.
    pub fn named(name: &str, has_field: bool) -> Result<Self, FunctionError> {
        let function = match name {
            "count" if has_field => AggregateFunction::CountField,
            "count" => AggregateFunction::Count,
            "sum" => AggregateFunction::Sum,
            "mean" | "avg" => AggregateFunction::Mean,
            "min" => AggregateFunction::Min,
            "max" => AggregateFunction::Max,
            "first" => AggregateFunction::First,
            "last" => AggregateFunction::Last,
            _ => return Err(unknown(name)),
        };
        match function {
            AggregateFunction::Count => Ok(function),
            function if has_field => Ok(function),
            function => Err(FunctionError::NeedsField { function }),
        }
    }

    /// The name, the same in SQL and in rule files.
    pub fn name(self) -> &'static str {
        self.partial_function().name()
    }

    /// The function that its partials belong to.
    pub fn partial_function(self) -> Function {
        match self {
            AggregateFunction::Count | AggregateFunction::CountField => Function::Count,
            AggregateFunction::Sum => Function::Sum,
            AggregateFunction::Mean => Function::Mean,
            AggregateFunction::Min => Function::Min,
            AggregateFunction::Max => Function::Max,
            AggregateFunction::First => Function::First,
            AggregateFunction::Last => Function::Last,
        }
    }

    /// Checks that a field of this type can be aggregated.
    ///
    /// # Errors
    /// [`FunctionError::WrongType`] if not.
    pub fn accepts(self, field_type: FieldType) -> Result<(), FunctionError> {
        if AggregateFunction::takes(self.partial_function(), field_type) {
            Ok(())
        } else {
            Err(FunctionError::WrongType { function: self, field_type })
        }
    }

    pub(super) fn takes(function: Function, values: FieldType) -> bool {
        match function {
            Function::Sum | Function::Mean => {
                matches!(values, FieldType::Float | FieldType::Integer | FieldType::Unsigned)
            }
            _ => values != FieldType::Partial,
        }
    }

    /// Type of the answer over a field of type `input` (none for [`AggregateFunction::Count`]).
    pub fn output_type(self, input: Option<FieldType>) -> FieldType {
        match self {
            AggregateFunction::Count | AggregateFunction::CountField => FieldType::Integer,
            AggregateFunction::Mean => FieldType::Float,
            _ => input.unwrap_or(FieldType::Float),
        }
    }

    /// The answer straight from points: an aggregate over the column (none: over the points).
    pub fn value_expr(self, column: Option<&str>) -> Expr {
        let arguments = self.arguments(column);
        match raw::udaf(self.partial_function()) {
            Some(udaf) => udaf.call(arguments),
            None => count_udaf().call(arguments),
        }
    }

    /// The function that a call in SQL is, if it is one of these.
    pub fn of(udaf: &AggregateUDF, arguments: &[Expr]) -> Option<Self> {
        let counts_points = matches!(arguments, [] | [Expr::Literal(..)]);
        let name = udaf.name().to_ascii_lowercase();
        AggregateFunction::named(&name, !(name == "count" && counts_points)).ok()
    }

    /// An aggregate over points that gives partials.
    pub fn partial_expr(self, column: Option<&str>) -> Expr {
        partial_udaf(self.partial_function()).call(self.arguments(column))
    }

    /// An aggregate over a column of partials that gives partials.
    pub fn merge_expr(self, partial_column: &str) -> Expr {
        merge_udaf(self.partial_function()).call(vec![ident(partial_column)])
    }

    /// The answer of a column of partials, of type `output` (see
    /// [`output_type`](AggregateFunction::output_type)). An overflowing sum names the labels.
    pub fn finish_expr(self, partial_column: &str, output: FieldType, labels: Vec<Expr>) -> Expr {
        let arguments = std::iter::once(ident(partial_column)).chain(labels).collect();
        finish_udf(self.partial_function(), Some(output)).call(arguments)
    }

    fn arguments(self, column: Option<&str>) -> Vec<Expr> {
        let value = match (self, column) {
            (AggregateFunction::Count, _) | (_, None) => lit(1i64),
            (_, Some(name)) => Expr::Column(Column::from_name(name)),
        };
        match self {
            AggregateFunction::First | AggregateFunction::Last => vec![value, ident(TIME_COLUMN)],
            _ => vec![value],
        }
    }
}

fn unknown(name: &str) -> FunctionError {
    let name = name.to_owned();
    if NOT_YET.contains(&&*name) {
        FunctionError::NotYet { name }
    } else if NOT_MERGEABLE.contains(&&*name) {
        FunctionError::NotMergeable { name }
    } else {
        FunctionError::Unknown { name }
    }
}

impl fmt::Display for AggregateFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_rule_files() {
        assert_eq!(AggregateFunction::named("count", false), Ok(AggregateFunction::Count));
        assert_eq!(AggregateFunction::named("count", true), Ok(AggregateFunction::CountField));
        assert_eq!(AggregateFunction::named("avg", true), Ok(AggregateFunction::Mean));
        let error =
            |name, has_field| AggregateFunction::named(name, has_field).unwrap_err().to_string();
        assert_eq!(error("sum", false), "function sum needs a field");
        assert!(error("total", true).starts_with("unknown function \"total\"; known are avg, "));
        assert!(error("stddev", true).contains("not supported yet"));
        assert!(error("percentile_cont", true).contains("queries only"));
    }

    #[test]
    fn types_are_checked() {
        assert!(AggregateFunction::Sum.accepts(FieldType::Unsigned).is_ok());
        let error = AggregateFunction::Mean.accepts(FieldType::String).unwrap_err();
        assert_eq!(error.to_string(), "function mean does not take a field of type string");
        assert!(AggregateFunction::Last.accepts(FieldType::Boolean).is_ok());
        assert_eq!(AggregateFunction::Max.output_type(Some(FieldType::String)), FieldType::String);
        assert_eq!(AggregateFunction::Mean.output_type(Some(FieldType::Integer)), FieldType::Float);
    }
}
