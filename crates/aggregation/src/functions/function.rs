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
use crate::partial::{Function, Spread};

/// Functions that have a partial, but not in this release.
const NOT_YET: [&str; 7] = [
    "distinct",
    "approx_distinct",
    "approx_percentile",
    "increase",
    "rate",
    "time_weighted_average",
    "histogram",
];

/// What each name means, in SQL and in rule files; a function's own name comes first.
const NAMES: [(&str, AggregateFunction); 20] = [
    ("count", AggregateFunction::CountField),
    ("sum", AggregateFunction::Sum),
    ("mean", AggregateFunction::Mean),
    ("avg", AggregateFunction::Mean),
    ("min", AggregateFunction::Min),
    ("max", AggregateFunction::Max),
    ("first", AggregateFunction::First),
    ("last", AggregateFunction::Last),
    ("first_time", AggregateFunction::FirstTime),
    ("last_time", AggregateFunction::LastTime),
    ("stddev", AggregateFunction::Stddev(Spread::Sample)),
    ("stddev_samp", AggregateFunction::Stddev(Spread::Sample)),
    ("stddev_pop", AggregateFunction::Stddev(Spread::Population)),
    ("variance", AggregateFunction::Variance(Spread::Sample)),
    ("var", AggregateFunction::Variance(Spread::Sample)),
    ("var_samp", AggregateFunction::Variance(Spread::Sample)),
    ("var_sample", AggregateFunction::Variance(Spread::Sample)),
    ("variance_pop", AggregateFunction::Variance(Spread::Population)),
    ("var_pop", AggregateFunction::Variance(Spread::Population)),
    ("var_population", AggregateFunction::Variance(Spread::Population)),
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
    /// Time of the earliest value.
    FirstTime,
    /// Time of the latest value.
    LastTime,
    /// Standard deviation.
    Stddev(Spread),
    /// Variance.
    Variance(Spread),
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

const KNOWN: &str = "avg, count, first, first_time, last, last_time, max, mean, min, stddev, \
                     stddev_pop, sum, variance, variance_pop";

impl AggregateFunction {
    /// The function of that name in a rule file, where `count` may go without a field.
    ///
    /// # Errors
    /// [`FunctionError`] with the names that are known.
    pub fn named(name: &str, has_field: bool) -> Result<Self, FunctionError> {
        let function = match name {
            "count" if !has_field => AggregateFunction::Count,
            name => by_name(name).ok_or_else(|| unknown(name))?,
        };
        match function {
            AggregateFunction::Count => Ok(function),
            function if has_field => Ok(function),
            function => Err(FunctionError::NeedsField { function }),
        }
    }

    /// The name, the same in SQL and in rule files.
    pub fn name(self) -> &'static str {
        match self {
            AggregateFunction::Count => "count",
            function => names().find(|(_, named)| *named == function).map_or("", |(name, _)| name),
        }
    }

    /// The function that its partials belong to.
    pub fn partial_function(self) -> Function {
        match self {
            AggregateFunction::Count | AggregateFunction::CountField => Function::Count,
            AggregateFunction::Sum => Function::Sum,
            AggregateFunction::Mean => Function::Mean,
            AggregateFunction::Min => Function::Min,
            AggregateFunction::Max => Function::Max,
            AggregateFunction::First | AggregateFunction::FirstTime => Function::First,
            AggregateFunction::Last | AggregateFunction::LastTime => Function::Last,
            AggregateFunction::Stddev(_) | AggregateFunction::Variance(_) => Function::Moments,
        }
    }

    /// Whether the partials of `other`, over the same values, answer this function too.
    pub fn reads_partials_of(self, other: AggregateFunction) -> bool {
        let is_shared = self.partial_function() == other.partial_function();
        // A count of points is none of values.
        self == other || is_shared && self.partial_function() != Function::Count
    }

    /// Whether the answer of nothing is 0 rather than NULL.
    pub(super) fn counts(self) -> bool {
        matches!(self, AggregateFunction::Count | AggregateFunction::CountField)
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
            Function::Sum | Function::Mean | Function::Moments => {
                matches!(values, FieldType::Float | FieldType::Integer | FieldType::Unsigned)
            }
            _ => values != FieldType::Partial,
        }
    }

    /// Type of the answer over a field of type `input` (none for [`AggregateFunction::Count`]).
    pub fn output_type(self, input: Option<FieldType>) -> FieldType {
        self.fixed_output_type().or(input).unwrap_or(FieldType::Float)
    }

    /// Type of the answer where it is the same over every type of values.
    pub(super) fn fixed_output_type(self) -> Option<FieldType> {
        match self {
            AggregateFunction::Count | AggregateFunction::CountField => Some(FieldType::Integer),
            AggregateFunction::Mean
            | AggregateFunction::Stddev(_)
            | AggregateFunction::Variance(_) => Some(FieldType::Float),
            AggregateFunction::FirstTime | AggregateFunction::LastTime => {
                Some(FieldType::Timestamp)
            }
            _ => None,
        }
    }

    /// The answer straight from points: an aggregate over the column (none: over the points).
    pub fn value_expr(self, column: Option<&str>) -> Expr {
        let arguments = self.arguments(column);
        match raw::udaf(self.name()) {
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
        partial_udaf(self.name(), self).call(self.arguments(column))
    }

    /// An aggregate over a column of partials that gives partials.
    pub fn merge_expr(self, partial_column: &str) -> Expr {
        merge_udaf(self.name(), self).call(vec![ident(partial_column)])
    }

    /// The answer of a column of partials, of type `output` (see
    /// [`output_type`](AggregateFunction::output_type)). An overflowing sum names the labels.
    pub fn finish_expr(self, partial_column: &str, output: FieldType, labels: Vec<Expr>) -> Expr {
        let arguments = std::iter::once(ident(partial_column)).chain(labels).collect();
        finish_udf(self.name(), self, Some(output)).call(arguments)
    }

    fn arguments(self, column: Option<&str>) -> Vec<Expr> {
        let value = match (self, column) {
            (AggregateFunction::Count, _) | (_, None) => lit(1i64),
            (_, Some(name)) => Expr::Column(Column::from_name(name)),
        };
        match self.goes_by_time() {
            true => vec![value, ident(TIME_COLUMN)],
            false => vec![value],
        }
    }

    /// Whether the time is an argument too.
    pub(super) fn goes_by_time(self) -> bool {
        matches!(self.partial_function(), Function::First | Function::Last)
    }
}

/// Every name and its function.
pub(super) fn names() -> impl Iterator<Item = (&'static str, AggregateFunction)> {
    NAMES.into_iter()
}

/// The function of that name.
pub(super) fn by_name(name: &str) -> Option<AggregateFunction> {
    names().find(|(known, _)| *known == name).map(|(_, function)| function)
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
        for (name, function) in names() {
            assert_eq!(AggregateFunction::named(name, true), Ok(function));
            assert_eq!(by_name(function.name()), Some(function), "{name}");
        }
        let error =
            |name, has_field| AggregateFunction::named(name, has_field).unwrap_err().to_string();
        assert_eq!(error("sum", false), "function sum needs a field");
        assert!(error("total", true).starts_with("unknown function \"total\"; known are avg, "));
        assert!(error("histogram", true).contains("not supported yet"));
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
        let last_time = AggregateFunction::LastTime;
        assert_eq!(last_time.output_type(Some(FieldType::String)), FieldType::Timestamp);
        let error = AggregateFunction::Stddev(Spread::Population).accepts(FieldType::Boolean);
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "function stddev_pop does not take a field of type boolean");
    }
}
