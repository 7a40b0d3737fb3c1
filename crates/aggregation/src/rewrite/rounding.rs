//! Which buckets an expression of time tells apart.

use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Cast, Expr};
use datafusion::scalar::ScalarValue;
use highwater_core::Bucket;
use highwater_core::schema::TIME_COLUMN;
use highwater_core::time::NANOS_PER_DAY;
use highwater_query::functions::time_bucket::{self, bucket_of_arguments};

/// Buckets in each of which the expression, over `time`, has one value; `None` if it is none of the
/// roundings that are known.
pub(super) fn rounding(expr: &Expr) -> Option<Bucket> {
    match expr {
        Expr::ScalarFunction(call) => of_call(call),
        Expr::Cast(Cast { expr, field, .. }) if is_time(expr) => {
            (*field.data_type() == DataType::Date32).then_some(Bucket::DAY)
        }
        _ => None,
    }
}

/// Whether this is the time of the point.
pub(super) fn is_time(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(column) if column.name == TIME_COLUMN)
}

fn of_call(call: &ScalarFunction) -> Option<Bucket> {
    match (call.name(), call.args.as_slice()) {
        (time_bucket::NAME, [_, time, ..]) if is_time(time) => {
            // What is wrong with it, the function itself will say.
            bucket_of_arguments(&call.args).ok().flatten()
        }
        ("date_bin", [stride, time]) if is_time(time) => strides(stride, 0),
        ("date_bin", [stride, time, Expr::Literal(origin, _)]) if is_time(time) => {
            let ScalarValue::TimestampNanosecond(Some(origin), None) = origin else { return None };
            strides(stride, *origin)
        }
        ("date_trunc", [Expr::Literal(unit, _), time]) if is_time(time) => {
            bucket_of_unit(unit.try_as_str().flatten()?)
        }
        ("date_part", [Expr::Literal(part, _), time]) if is_time(time) => {
            bucket_of_part(part.try_as_str().flatten()?)
        }
        _ => None,
    }
}

/// The buckets of `date_bin` of a fixed width.
fn strides(stride: &Expr, origin: i64) -> Option<Bucket> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(stride)), _) = stride else {
        return None;
    };
    let IntervalMonthDayNano { months, days, nanoseconds } = *stride;
    let width = i64::from(days).checked_mul(NANOS_PER_DAY)?.checked_add(nanoseconds)?;
    let is_fixed = months == 0 && width > 0;
    is_fixed.then(|| Bucket::Fixed { width, offset: origin.rem_euclid(width) })
}

fn bucket_of_unit(unit: &str) -> Option<Bucket> {
    let bucket = match unit.to_ascii_lowercase().as_str() {
        "second" => "1s",
        "minute" => "1m",
        "hour" => "1h",
        "day" => "1d",
        "week" => "1w",
        "month" => "1mo",
        "quarter" => "1q",
        "year" => "1y",
        _ => return None,
    };
    bucket.parse().ok()
}

/// Parts of a date or time are the same all through the unit that they count.
fn bucket_of_part(part: &str) -> Option<Bucket> {
    match part.to_ascii_lowercase().as_str() {
        "dow" | "doy" | "isodow" => Some(Bucket::DAY),
        "second" => None,
        unit => bucket_of_unit(unit),
    }
}
