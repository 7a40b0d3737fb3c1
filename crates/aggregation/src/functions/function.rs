//! The functions by name, what they take and give, and their expressions in plans.

use std::fmt;

use datafusion::common::{Column, ScalarValue};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::{AggregateUDF, Expr, lit};
use datafusion::prelude::ident;
use highwater_core::FieldType;
use highwater_core::schema::TIME_COLUMN;

use super::bounds::{Bounds, MOST_BOUNDS};
use super::finish::finish_udf;
use super::fraction::Fraction;
use super::partials::{merge_udaf, partial_udaf};
use super::raw;
use crate::partial::{FastSum, Function, Spread};

/// What each name means, in SQL and in rule files; a function's own name comes first.
const NAMES: [(&str, AggregateFunction); 29] = [
    ("count", AggregateFunction::CountField),
    ("sum", AggregateFunction::Sum),
    ("sum_fast", AggregateFunction::SumFast),
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
    ("distinct", AggregateFunction::Distinct),
    ("approx_distinct", AggregateFunction::ApproxDistinct),
    ("increase", AggregateFunction::Increase),
    ("rate", AggregateFunction::Rate),
    ("time_weighted_average", AggregateFunction::TimeWeighted),
    ("time_weighted_avg", AggregateFunction::TimeWeighted),
    // With the fraction that its calls give.
    ("approx_percentile", AggregateFunction::ApproxPercentile(Fraction::HALF)),
    // Likewise with the bounds.
    ("histogram", AggregateFunction::Histogram(Bounds::NONE)),
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
    /// Sum by plain addition of floats, which rounds every time; of integers the exact sum as a float.
    SumFast,
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
    /// How many different values.
    Distinct,
    /// About how many different values.
    ApproxDistinct,
    /// About the value below which this share of all values lies.
    ApproxPercentile(Fraction),
    /// How many values lie between these bounds.
    Histogram(Bounds),
    /// By how much a counter has grown.
    Increase,
    /// The same per second.
    Rate,
    /// Mean over time of a value that holds until the next.
    TimeWeighted,
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
        function: String,
    },
    /// A percentile of what?
    #[error("function {name} needs a number from 0 to 1, like {name}(0.99)")]
    NeedsFraction {
        /// As it was written.
        name: String,
    },
    /// A histogram of which ranges?
    #[error(
        "function histogram needs 1 to {MOST_BOUNDS} bounds that ascend, like \
         histogram(0.1, 0.5, 1)"
    )]
    NeedsBounds,
    /// The field's type does not fit.
    #[error("function {function} does not take a field of type {field_type}")]
    WrongType {
        /// Which function.
        function: String,
        /// What it was given.
        field_type: FieldType,
    },
}

const KNOWN: &str = "approx_distinct, approx_percentile(0.99), avg, count, distinct, first, \
                     first_time, histogram(0.1, 1), increase, last, last_time, max, mean, min, \
                     p99, rate, stddev, stddev_pop, sum, sum_fast, time_weighted_average, variance, variance_pop";

impl AggregateFunction {
    /// The function of that name in a rule file, where `count` may go without a field.
    ///
    /// # Errors
    /// [`FunctionError`] with the names that are known.
    pub fn named(name: &str, has_field: bool) -> Result<Self, FunctionError> {
        let function = match name {
            "count" if !has_field => AggregateFunction::Count,
            name => spelled(name)?,
        };
        match function {
            AggregateFunction::Count => Ok(function),
            function if has_field => Ok(function),
            function => Err(FunctionError::NeedsField { function: function.to_string() }),
        }
    }

    /// The name, the same in SQL and in rule files.
    pub fn name(self) -> &'static str {
        match self {
            AggregateFunction::Count => "count",
            AggregateFunction::ApproxPercentile(_) => "approx_percentile",
            AggregateFunction::Histogram(_) => "histogram",
            function => names().find(|(_, named)| *named == function).map_or("", |(name, _)| name),
        }
    }

    /// The function that its partials belong to.
    pub fn partial_function(self) -> Function {
        match self {
            AggregateFunction::Count | AggregateFunction::CountField => Function::Count,
            AggregateFunction::Sum => Function::Sum,
            AggregateFunction::SumFast => Function::SumFast,
            AggregateFunction::Mean => Function::Mean,
            AggregateFunction::Min => Function::Min,
            AggregateFunction::Max => Function::Max,
            AggregateFunction::First | AggregateFunction::FirstTime => Function::First,
            AggregateFunction::Last | AggregateFunction::LastTime => Function::Last,
            AggregateFunction::Stddev(_) | AggregateFunction::Variance(_) => Function::Moments,
            AggregateFunction::Distinct => Function::Distinct,
            AggregateFunction::ApproxDistinct => Function::ApproxDistinct,
            AggregateFunction::ApproxPercentile(_) => Function::Percentiles,
            AggregateFunction::Histogram(_) => Function::Histogram,
            AggregateFunction::Increase | AggregateFunction::Rate => Function::Counter,
            AggregateFunction::TimeWeighted => Function::TimeWeighted,
        }
    }

    /// Whether the partials of `other`, over the same values, answer this function too.
    pub fn reads_partials_of(self, other: AggregateFunction) -> bool {
        let function = self.partial_function();
        // A count of points is none of values, and histograms have bounds.
        let is_same_for_all = !matches!(function, Function::Count | Function::Histogram);
        self == other || is_same_for_all && function == other.partial_function()
    }

    /// Whether the answer depends on the order in which values come and partials are merged.
    pub fn goes_by_order(self) -> bool {
        self == AggregateFunction::SumFast
    }

    /// Whether two stored partials, each NULL or encoded, can be of the same values: they are equal,
    /// but for functions that go by order.
    pub(crate) fn may_agree(self, one: Option<&[u8]>, other: Option<&[u8]>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) if self.goes_by_order() && one != other => {
                FastSum::may_be_of_the_same(one, other)
            }
            _ => one == other,
        }
    }

    /// Whether a group must be one series, as the points of several have no order of their own.
    pub fn needs_one_series(self) -> bool {
        matches!(self.partial_function(), Function::Counter | Function::TimeWeighted)
    }

    /// Whether the answer of nothing is 0 rather than NULL.
    pub(super) fn counts(self) -> bool {
        let function = self.partial_function();
        matches!(function, Function::Count | Function::Distinct | Function::ApproxDistinct)
    }

    /// The same function with the fraction of a percentile that a call gives.
    pub(super) fn with_fraction(self, fraction: Fraction) -> Self {
        match self {
            AggregateFunction::ApproxPercentile(_) => AggregateFunction::ApproxPercentile(fraction),
            function => function,
        }
    }

    /// The fraction that calls give as second argument.
    pub(super) fn fraction(self) -> Option<Fraction> {
        match self {
            AggregateFunction::ApproxPercentile(fraction) => Some(fraction),
            _ => None,
        }
    }

    /// What the name of an output ends with: the name, or the short one of a percentile.
    pub fn suffix(self) -> String {
        match self.fraction() {
            Some(fraction) => fraction.short(),
            None => self.name().to_owned(),
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
            Err(FunctionError::WrongType { function: self.to_string(), field_type })
        }
    }

    pub(super) fn takes(function: Function, values: FieldType) -> bool {
        match function {
            Function::Sum
            | Function::SumFast
            | Function::Mean
            | Function::Moments
            | Function::Percentiles
            | Function::Histogram
            | Function::Counter
            | Function::TimeWeighted => {
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
            function if function.counts() => Some(FieldType::Integer),
            AggregateFunction::Histogram(_) => Some(FieldType::String),
            AggregateFunction::Mean
            | AggregateFunction::SumFast
            | AggregateFunction::Stddev(_)
            | AggregateFunction::Variance(_)
            | AggregateFunction::ApproxPercentile(_)
            | AggregateFunction::Increase
            | AggregateFunction::Rate
            | AggregateFunction::TimeWeighted => Some(FieldType::Float),
            AggregateFunction::FirstTime | AggregateFunction::LastTime => {
                Some(FieldType::Timestamp)
            }
            _ => None,
        }
    }

    /// The answer straight from points: an aggregate over the column (none: over the points).
    pub fn value_expr(self, column: Option<&str>) -> Expr {
        let arguments = self.arguments(column).into_iter().chain(self.fraction_argument());
        let arguments = arguments.collect();
        match raw::udaf(self.name()) {
            Some(udaf) => udaf.call(arguments),
            None => count_udaf().call(arguments),
        }
    }

    /// The function that a call in SQL is, if it is one of these.
    pub fn of(udaf: &AggregateUDF, arguments: &[Expr]) -> Option<Self> {
        let counts_points = matches!(arguments, [] | [Expr::Literal(..)]);
        match (by_name(&udaf.name().to_ascii_lowercase())?, arguments) {
            (AggregateFunction::CountField, _) if counts_points => Some(AggregateFunction::Count),
            (percentile @ AggregateFunction::ApproxPercentile(_), [_, fraction]) => {
                match fraction {
                    Expr::Literal(ScalarValue::Float64(Some(p)), _) => {
                        Fraction::new(*p).map(|fraction| percentile.with_fraction(fraction))
                    }
                    _ => None,
                }
            }
            (AggregateFunction::ApproxPercentile(_), _) => None,
            (AggregateFunction::Histogram(_), [_, bounds @ ..]) => {
                let constant = |one: &Expr| match one {
                    Expr::Literal(value, _) => Some(value.clone()),
                    _ => None,
                };
                let constants: Vec<_> = bounds.iter().map(constant).collect();
                Bounds::of_constants(constants.iter().map(Option::as_ref))
                    .map(AggregateFunction::Histogram)
            }
            (function, _) => Some(function),
        }
    }

    /// An aggregate over points that gives partials.
    pub fn partial_expr(self, column: Option<&str>) -> Expr {
        partial_udaf(self.name(), self).call(self.arguments(column))
    }

    /// An aggregate over a column of partials that gives partials.
    pub fn merge_expr(self, partial_column: &str) -> Expr {
        self.merge_of(ident(partial_column))
    }

    /// The same over an expression that gives partials.
    pub(crate) fn merge_of(self, partial: Expr) -> Expr {
        merge_udaf(self.name(), self).call(vec![partial])
    }

    /// The answer of a column of partials, of type `output` (see
    /// [`output_type`](AggregateFunction::output_type)). An overflowing sum names the labels.
    pub fn finish_expr(self, partial_column: &str, output: FieldType, labels: Vec<Expr>) -> Expr {
        let partial = std::iter::once(ident(partial_column));
        let arguments = partial.chain(self.fraction_argument()).chain(labels).collect();
        finish_udf(self.name(), self, Some(output)).call(arguments)
    }

    fn arguments(self, column: Option<&str>) -> Vec<Expr> {
        let value = match (self, column) {
            (AggregateFunction::Count, _) | (_, None) => lit(1i64),
            (_, Some(name)) => Expr::Column(Column::from_name(name)),
        };
        let more = match self {
            AggregateFunction::Histogram(bounds) => bounds.values().map(lit).collect(),
            _ if self.goes_by_time() => vec![ident(TIME_COLUMN)],
            _ => Vec::new(),
        };
        std::iter::once(value).chain(more).collect()
    }

    fn fraction_argument(self) -> Option<Expr> {
        self.fraction().map(|fraction| lit(fraction.get()))
    }

    /// Whether the time is an argument too.
    pub(crate) fn goes_by_time(self) -> bool {
        matches!(
            self.partial_function(),
            Function::First | Function::Last | Function::Counter | Function::TimeWeighted
        )
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

/// The function as rule files spell it: a name, `approx_percentile(0.99)`, `p99`, or
/// `histogram(0.1, 1)`.
fn spelled(name: &str) -> Result<AggregateFunction, FunctionError> {
    if let Some(arguments) = name.strip_prefix("histogram") {
        let bounds = arguments.trim().strip_prefix('(').and_then(|text| text.strip_suffix(')'));
        let bounds = bounds.and_then(Bounds::parse).ok_or(FunctionError::NeedsBounds);
        return bounds.map(AggregateFunction::Histogram);
    }
    let needs_fraction = || FunctionError::NeedsFraction { name: "approx_percentile".to_owned() };
    let percentile = AggregateFunction::ApproxPercentile;
    if let Some(fraction) = Fraction::of_short(name) {
        return Ok(percentile(fraction));
    }
    let argument = name.strip_prefix("approx_percentile").map(str::trim);
    match argument.map(|text| text.strip_prefix('(').and_then(|text| text.strip_suffix(')'))) {
        None => by_name(name).ok_or_else(|| unknown(name)),
        Some(None) => Err(needs_fraction()),
        Some(Some(number)) => {
            let fraction = number.trim().parse().ok().and_then(Fraction::new);
            fraction.map(percentile).ok_or_else(needs_fraction)
        }
    }
}

fn unknown(name: &str) -> FunctionError {
    let name = name.to_owned();
    if NOT_MERGEABLE.contains(&&*name) {
        FunctionError::NotMergeable { name }
    } else {
        FunctionError::Unknown { name }
    }
}

impl fmt::Display for AggregateFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AggregateFunction::ApproxPercentile(fraction) => {
                write!(f, "{}({fraction})", self.name())
            }
            AggregateFunction::Histogram(bounds) if *bounds != Bounds::NONE => {
                write!(f, "{}({bounds})", self.name())
            }
            _ => f.write_str(self.name()),
        }
    }
}

#[cfg(test)]
mod tests;
