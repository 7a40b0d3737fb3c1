//! Which rows of a batch a [`Condition`] holds for, in SQL's three-valued logic.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Datum, RecordBatch, Scalar, StringArray, TimestampNanosecondArray,
};
use arrow::compute::kernels::cmp;
use arrow::compute::{and_kleene, is_null, not, or_kleene};
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{Comparison, Condition, FieldValue, PointSet};

use crate::error::StorageError;
use crate::segment::sort::times_of;
use crate::segment::tag_keys::TagColumns;

/// Per row: true, false or NULL for "unknown". The condition names `time` and tags only, and the
/// batch has all of these columns.
///
/// # Errors
/// [`StorageError::Invalid`] if a column is missing or compared with a value of another type.
pub(crate) fn evaluate(
    condition: &Condition,
    batch: &RecordBatch,
) -> Result<BooleanArray, StorageError> {
    match condition {
        Condition::All => Ok(always(true, batch)),
        Condition::Compare { column, comparison, value } => {
            compare(column_of(batch, column)?, column, *comparison, value)
        }
        Condition::IsNull(column) => Ok(is_null(column_of(batch, column)?)?),
        Condition::Not(inner) => Ok(not(&evaluate(inner, batch)?)?),
        Condition::And(all) => all.iter().try_fold(always(true, batch), |holds, inner| {
            Ok(and_kleene(&holds, &evaluate(inner, batch)?)?)
        }),
        Condition::Or(any) => any.iter().try_fold(always(false, batch), |holds, inner| {
            Ok(or_kleene(&holds, &evaluate(inner, batch)?)?)
        }),
        Condition::Points(points) => is_one_of(points, batch),
    }
}

/// Adds the names of the columns that the condition looks at.
pub(crate) fn collect_columns(condition: &Condition, columns: &mut BTreeSet<Arc<str>>) {
    match condition {
        Condition::All => {}
        Condition::Compare { column, .. } | Condition::IsNull(column) => {
            columns.insert(Arc::clone(column));
        }
        Condition::Not(inner) => collect_columns(inner, columns),
        Condition::And(inner) | Condition::Or(inner) => {
            inner.iter().for_each(|inner| collect_columns(inner, columns));
        }
        Condition::Points(points) => {
            columns.insert(Arc::from(TIME_COLUMN));
            columns.extend(points.tags().iter().cloned());
        }
    }
}

/// Which rows are points of the set.
fn is_one_of(points: &PointSet, batch: &RecordBatch) -> Result<BooleanArray, StorageError> {
    let times = times_of(batch)?;
    let tags = TagColumns::of_names(points.tags().iter().map(|tag| &**tag), batch)?;
    let mut holds = Vec::with_capacity(times.len());
    for run in tags.runs(times.len()) {
        let own = points.times_of(|tag| tags.columns()[tag].value(run.start));
        holds.extend(times[run].iter().map(|time| own.binary_search(time).is_ok()));
    }
    Ok(BooleanArray::from(holds))
}

fn always(value: bool, batch: &RecordBatch) -> BooleanArray {
    BooleanArray::from(vec![value; batch.num_rows()])
}

fn column_of<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, StorageError> {
    let column = batch.column_by_name(name);
    column.ok_or_else(|| StorageError::Invalid(format!("there is no column {name}")))
}

fn compare(
    column: &ArrayRef,
    name: &str,
    comparison: Comparison,
    value: &FieldValue,
) -> Result<BooleanArray, StorageError> {
    let value: ArrayRef = match value {
        FieldValue::Timestamp(time) if name == TIME_COLUMN => {
            Arc::new(TimestampNanosecondArray::from(vec![time.as_nanos()]))
        }
        FieldValue::Integer(nanos) if name == TIME_COLUMN => {
            Arc::new(TimestampNanosecondArray::from(vec![*nanos]))
        }
        FieldValue::String(text) if name != TIME_COLUMN => {
            Arc::new(StringArray::from(vec![text.as_str()]))
        }
        other => {
            let written = other.field_type();
            return Err(StorageError::Invalid(format!(
                "{name} cannot be compared with a {written}"
            )));
        }
    };
    let (left, right): (&dyn Datum, &dyn Datum) = (&column, &Scalar::new(value));
    Ok(match comparison {
        Comparison::Equal => cmp::eq(left, right),
        Comparison::NotEqual => cmp::neq(left, right),
        Comparison::Less => cmp::lt(left, right),
        Comparison::LessOrEqual => cmp::lt_eq(left, right),
        Comparison::Greater => cmp::gt(left, right),
        Comparison::GreaterOrEqual => cmp::gt_eq(left, right),
    }?)
}

#[cfg(test)]
mod tests {
    use highwater_core::Timestamp;

    use super::*;
    use crate::segment::test_rows::{Row, batch, schema};

    fn tag(comparison: Comparison, value: &str) -> Condition {
        let value = FieldValue::String(value.to_owned());
        Condition::Compare { column: "host".into(), comparison, value }
    }

    fn holds(condition: &Condition) -> Vec<Option<bool>> {
        let rows =
            [Row::at(1).tag("host", "a"), Row::at(2).tag("host", "b"), Row::at(3).field("x", 1)];
        evaluate(condition, &batch(&schema(&["host"], &["x"]), &rows)).unwrap().iter().collect()
    }

    #[test]
    fn a_comparison_with_null_is_unknown() {
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(holds(&tag(Comparison::Equal, "a")), [yes, no, None]);
        assert_eq!(holds(&tag(Comparison::Greater, "a")), [no, yes, None]);
        let not_a = Condition::Not(Box::new(tag(Comparison::Equal, "a")));
        assert_eq!(holds(&not_a), [no, yes, None]);
        assert_eq!(holds(&Condition::IsNull("host".into())), [no, no, yes]);
        let either = Condition::Or(vec![not_a.clone(), Condition::IsNull("host".into())]);
        assert_eq!(holds(&either), [no, yes, yes]);
        assert_eq!(holds(&Condition::And(vec![not_a, Condition::Or(vec![])])), [no; 3]);
    }

    #[test]
    fn time_is_compared_with_times_only() {
        let time = |value| Condition::Compare {
            column: TIME_COLUMN.into(),
            comparison: Comparison::LessOrEqual,
            value,
        };
        let until = FieldValue::Timestamp(Timestamp::from_nanos(2));
        assert_eq!(holds(&time(until)), [Some(true), Some(true), Some(false)]);
        let rows = batch(&schema(&[], &["x"]), &[Row::at(1).field("x", 1)]);
        assert!(evaluate(&time(FieldValue::Float(1.0)), &rows).is_err());
    }
}
