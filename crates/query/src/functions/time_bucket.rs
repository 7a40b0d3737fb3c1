//! `time_bucket(width, time[, origin or zone])`: start of the bucket that holds `time`.
//!
//! Buckets are [`Bucket`]s: they count from the Unix epoch, weeks from Monday, months, quarters
//! and years by the calendar, before 1970 as well as after; with a zone by its clocks.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit, TimestampNanosecondType};
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use highwater_core::bucket::{BucketError, zone_of};
use highwater_core::time::NANOS_PER_DAY;
use highwater_core::{Bucket, TimeRange, Timestamp};

use crate::error::QueryError;

/// Name of the function in SQL.
pub const NAME: &str = "time_bucket";

/// The function; see the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TimeBucket {
    signature: Signature,
}

impl Default for TimeBucket {
    fn default() -> Self {
        TimeBucket { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        coerce(NAME, arguments)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[1].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut constants = Vec::with_capacity(args.args.len());
        for argument in [Some(&args.args[0]), args.args.get(2)].into_iter().flatten() {
            let ColumnarValue::Scalar(value) = argument else {
                return plan_err!("width and origin or zone of {NAME} must be constants");
            };
            constants.push(value);
        }
        let null = || ScalarValue::try_new_null(args.return_field.data_type());
        if constants.iter().any(|value| value.is_null()) {
            return Ok(ColumnarValue::Scalar(null()?));
        }
        let bucket = bucket(constants[0], constants.get(1).copied())?;
        match &args.args[1] {
            ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(time, zone)) => {
                let start = time.map(|t| bucket.start_of(Timestamp::from_nanos(t)).as_nanos());
                let value = ScalarValue::TimestampNanosecond(start, zone.clone());
                Ok(ColumnarValue::Scalar(value))
            }
            ColumnarValue::Array(times) => Ok(ColumnarValue::Array(starts(bucket, times))),
            ColumnarValue::Scalar(other) => {
                plan_err!("{NAME} takes a timestamp, not {}", other.data_type())
            }
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let is_constant =
            |input: &ExprProperties| input.sort_properties == SortProperties::Singleton;
        let others = [Some(&inputs[0]), inputs.get(2)];
        let constant = others.into_iter().flatten().all(is_constant);
        Ok(if constant { inputs[1].sort_properties } else { SortProperties::Unordered })
    }

    /// `time_bucket(w, time) = start` holds exactly for times of that bucket, so that comparing
    /// buckets prunes like comparing times.
    fn preimage(
        &self,
        args: &[Expr],
        literal: &Expr,
        _: &SimplifyContext,
    ) -> Result<PreimageResult> {
        let at = match literal {
            Expr::Literal(ScalarValue::TimestampNanosecond(Some(at), None), _) => *at,
            _ => return Ok(PreimageResult::None),
        };
        let Some(bucket) = bucket_of_arguments(args)? else { return Ok(PreimageResult::None) };
        let at = Timestamp::from_nanos(at);
        if !bucket.is_boundary(at) {
            return Ok(PreimageResult::None);
        }
        let scalar = |at: Timestamp| ScalarValue::TimestampNanosecond(Some(at.as_nanos()), None);
        let range = bucket.range_of(at);
        let interval = Box::new(Interval::try_new(scalar(range.start), scalar(range.end))?);
        Ok(PreimageResult::Range { expr: args[1].clone(), interval })
    }
}

/// The types that arguments are cast to: width as text or interval, times in nanoseconds.
pub(crate) fn coerce(name: &str, arguments: &[DataType]) -> Result<Vec<DataType>> {
    if !(2..=3).contains(&arguments.len()) {
        return plan_err!("{name} takes a width, a time and perhaps an origin or a time zone");
    }
    let width = match &arguments[0] {
        DataType::Interval(_) => DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            DataType::Utf8
        }
        other => return plan_err!("the width of {name} is text or an interval, not {other}"),
    };
    let time = match &arguments[1] {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()),
        DataType::Date32
        | DataType::Date64
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Null => DataType::Timestamp(TimeUnit::Nanosecond, None),
        other => return plan_err!("{name} takes a timestamp, not {other}"),
    };
    let origin = arguments.get(2).map(|origin| match origin {
        // The name of a zone, or an origin.
        text if text.is_string() => DataType::Utf8,
        _ => DataType::Timestamp(TimeUnit::Nanosecond, None),
    });
    Ok([width, time].into_iter().chain(origin).collect())
}

/// The buckets that a call of `time_bucket` with these arguments rounds to; `None` if they are
/// not constant or NULL.
///
/// # Errors
/// If the width is not understood.
pub fn bucket_of_arguments(arguments: &[Expr]) -> Result<Option<Bucket>> {
    let constant = |expr: &Expr| match expr {
        Expr::Literal(value, _) if !value.is_null() => Some(value.clone()),
        _ => None,
    };
    let Some(width) = arguments.first().and_then(constant) else { return Ok(None) };
    match arguments.get(2) {
        None => bucket(&width, None).map(Some),
        Some(origin) => match constant(origin) {
            Some(origin) => bucket(&width, Some(&origin)).map(Some),
            None => Ok(None),
        },
    }
}

/// The buckets of this width, by the clocks of a zone or shifted so that one starts at an origin.
fn bucket(width: &ScalarValue, origin: Option<&ScalarValue>) -> Result<Bucket> {
    let bucket = match width {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => bucket_of_interval(*interval)?,
        other => bucket_of_text(crate::pushdown::string(other).unwrap_or_default())?,
    };
    let origin = match origin {
        Some(ScalarValue::TimestampNanosecond(Some(origin), _)) => *origin,
        Some(ScalarValue::Utf8(Some(text))) => match zone_of(text) {
            Ok(zone) => return bucket.in_zone(zone).map_err(|error| invalid(&error)),
            Err(_) => origin_of_text(text)?,
        },
        _ => return Ok(bucket),
    };
    match bucket {
        Bucket::Fixed { width, .. } => {
            Ok(Bucket::Fixed { width, offset: origin.rem_euclid(width) })
        }
        months if months.is_boundary(Timestamp::from_nanos(origin)) => Ok(months),
        _ => Err(QueryError::unsupported_but(
            format!("an origin inside a {bucket} bucket"),
            "months, quarters and years start where the calendar says",
        )
        .into()),
    }
}

fn origin_of_text(text: &str) -> Result<i64> {
    let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
    match ScalarValue::from(text).cast_to(&nanoseconds) {
        Ok(ScalarValue::TimestampNanosecond(Some(origin), _)) => Ok(origin),
        _ => {
            let reason = format!("{text:?} is neither a time zone nor the time of an origin");
            Err(QueryError::Invalid(reason).into())
        }
    }
}

/// Reads `1h`, `1 hour` too, and all that a bucket prints as.
fn bucket_of_text(text: &str) -> Result<Bucket> {
    let is_number = |amount: &str| amount.bytes().all(|byte| byte.is_ascii_digit());
    let short = match text.trim().split_once(' ') {
        Some((amount, unit)) if is_number(amount) => {
            format!("{amount}{}", short_unit(unit.trim()))
        }
        _ => text.trim().to_owned(),
    };
    short.parse().map_err(|error: BucketError| invalid(&error))
}

fn invalid(error: &BucketError) -> DataFusionError {
    QueryError::Invalid(error.to_string()).into()
}

fn short_unit(unit: &str) -> &str {
    match unit.strip_suffix('s').unwrap_or(unit) {
        "nanosecond" => "ns",
        "microsecond" => "us",
        "millisecond" => "ms",
        "second" => "s",
        "minute" => "m",
        "hour" => "h",
        "day" => "d",
        "week" => "w",
        "month" => "mo",
        "quarter" => "q",
        "year" => "y",
        _ => unit,
    }
}

fn bucket_of_interval(interval: IntervalMonthDayNano) -> Result<Bucket> {
    let IntervalMonthDayNano { months, days, nanoseconds } = interval;
    let invalid = |reason: &str| -> Result<Bucket> {
        Err(QueryError::Invalid(format!("the width of {NAME} {reason}")).into())
    };
    if months != 0 {
        return match (u32::try_from(months), days, nanoseconds) {
            (Ok(months), 0, 0) => bucket_of_text(&format!("{months}mo")),
            (Ok(_), ..) => invalid("cannot mix months with days or smaller units"),
            (Err(_), ..) => invalid("must be longer than zero"),
        };
    }
    let width = i128::from(days) * i128::from(NANOS_PER_DAY) + i128::from(nanoseconds);
    match i64::try_from(width).ok().and_then(Bucket::fixed) {
        Some(Bucket::Fixed { width, .. }) if width % (7 * NANOS_PER_DAY) == 0 => invalid(
            "is ambiguous as an interval of whole weeks: write '1w' for weeks from Monday or '7d' \
             for days counted from 1970-01-01",
        ),
        Some(bucket) => Ok(bucket),
        None => invalid("must be longer than zero and shorter than 292 years"),
    }
}

/// Starts of the buckets of `times`; neighbours mostly share a bucket, which then is computed once.
fn starts(bucket: Bucket, times: &ArrayRef) -> ArrayRef {
    let times = times.as_primitive::<TimestampNanosecondType>();
    let mut current = TimeRange::new(Timestamp::EPOCH, Timestamp::EPOCH);
    let start_of = |time: &i64| {
        let time = Timestamp::from_nanos(*time);
        if !current.contains(time) {
            current = bucket.range_of(time);
        }
        current.start.as_nanos()
    };
    let starts: Vec<i64> = times.values().iter().map(start_of).collect();
    let starts = TimestampNanosecondArray::new(starts.into(), times.nulls().cloned());
    Arc::new(starts.with_timezone_opt(times.timezone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn width(text: &str) -> Result<String> {
        bucket_of_text(text).map(|bucket| bucket.to_string())
    }

    #[test]
    fn widths_are_read_from_text_and_intervals() {
        assert_eq!(width("1h").unwrap(), "1h");
        assert_eq!(width(" 5 minutes ").unwrap(), "5m");
        assert_eq!(width("1 week").unwrap(), "1w");
        assert_eq!(width("2 quarters").unwrap(), "2q");
        assert!(width("1 fortnight").is_err());
        let interval = IntervalMonthDayNano::new;
        assert_eq!(bucket_of_interval(interval(3, 0, 0)).unwrap(), Bucket::Months(3));
        let days = bucket_of_interval(interval(0, 1, 0)).unwrap();
        assert_eq!(days, Bucket::DAY);
        for ambiguous in [(0, 7, 0), (0, 0, 0), (1, 1, 0), (-1, 0, 0), (0, -1, 0)] {
            let (months, days, nanos) = ambiguous;
            assert!(bucket_of_interval(interval(months, days, nanos)).is_err(), "{ambiguous:?}");
        }
    }

    #[test]
    fn an_origin_shifts_fixed_buckets_only() {
        let time = |nanos| ScalarValue::TimestampNanosecond(Some(nanos), None);
        let text = |text: &str| ScalarValue::Utf8(Some(text.into()));
        let shifted = bucket(&text("10ns"), Some(&time(-3))).unwrap();
        assert_eq!(shifted, Bucket::Fixed { width: 10, offset: 7 });
        assert!(bucket(&text("1mo"), Some(&time(5))).is_err());
        assert!(bucket(&text("1mo"), Some(&time(0))).is_ok());
    }

    #[test]
    fn arrays_round_like_single_values_and_keep_nulls() {
        let times = [Some(0), None, Some(-1), Some(3_600_000_000_000), Some(3_599_999_999_999)];
        let array: arrow::array::TimestampNanosecondArray = times.into_iter().collect();
        let array: ArrayRef = Arc::new(array);
        for text in ["1h", "7ns", "1w", "1mo"] {
            let bucket = bucket_of_text(text).unwrap();
            let rounded = starts(bucket, &array);
            let rounded: Vec<_> =
                rounded.as_primitive::<TimestampNanosecondType>().iter().collect();
            let expected =
                times.map(|t| t.map(|t| bucket.start_of(Timestamp::from_nanos(t)).as_nanos()));
            assert_eq!(rounded, expected, "{text}");
        }
    }
}
