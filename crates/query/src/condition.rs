//! The WHERE of a DELETE as a condition that storage understands.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_binary;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{Comparison, Condition, FieldValue, Schema};

use crate::error::QueryError;
use crate::pushdown::{instant, string, tag_name};

/// `filter`, simplified and with its types coerced, over the columns of `schema`.
///
/// # Errors
/// [`QueryError::Unsupported`] naming the part that is more than comparing `time` and tags with
/// constants.
pub(crate) fn condition(filter: &Expr, schema: &Schema) -> Result<Condition, QueryError> {
    let not = |inner: Condition| Condition::Not(Box::new(inner));
    match filter {
        Expr::Alias(alias) => condition(&alias.expr, schema),
        Expr::Literal(ScalarValue::Boolean(Some(true)), _) => Ok(Condition::All),
        Expr::Literal(ScalarValue::Boolean(_), _) => Ok(Condition::Or(Vec::new())),
        Expr::Not(inner) => Ok(not(condition(inner, schema)?)),
        Expr::IsNull(inner) => Ok(Condition::IsNull(column(inner, schema)?)),
        Expr::IsNotNull(inner) => Ok(not(Condition::IsNull(column(inner, schema)?))),
        Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) => {
            let parts = split_binary(filter, *op).into_iter().map(|part| condition(part, schema));
            let parts = parts.collect::<Result<_, _>>()?;
            Ok(if *op == Operator::And { Condition::And(parts) } else { Condition::Or(parts) })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Literal(value, _), column) => {
                let op = op.swap().ok_or_else(|| refused(filter))?;
                compare(column, op, value, schema, filter)
            }
            (column, Expr::Literal(value, _)) => compare(column, *op, value, schema, filter),
            _ => Err(refused(filter)),
        },
        Expr::Between(between) => {
            let bound = |op, bound: &Expr| match bound {
                Expr::Literal(value, _) => compare(&between.expr, op, value, schema, filter),
                _ => Err(refused(filter)),
            };
            let inside = Condition::And(vec![
                bound(Operator::GtEq, &between.low)?,
                bound(Operator::LtEq, &between.high)?,
            ]);
            Ok(if between.negated { not(inside) } else { inside })
        }
        Expr::InList(list) => {
            let values = list.list.iter().map(|value| match value {
                Expr::Literal(value, _) => compare(&list.expr, Operator::Eq, value, schema, filter),
                _ => Err(refused(filter)),
            });
            let any = Condition::Or(values.collect::<Result<_, _>>()?);
            Ok(if list.negated { not(any) } else { any })
        }
        other => Err(refused(other)),
    }
}

fn refused(part: &Expr) -> QueryError {
    QueryError::unsupported_but(
        format!("{part} in the WHERE of DELETE"),
        "compare time and tags with constants there, with AND, OR, NOT, IN, BETWEEN and IS NULL",
    )
}

/// The column that an expression is, if points may be deleted by it.
fn column(expr: &Expr, schema: &Schema) -> Result<Arc<str>, QueryError> {
    match expr {
        Expr::Column(column) if column.name == TIME_COLUMN => Ok(Arc::from(TIME_COLUMN)),
        Expr::Column(column) if schema.field_type(&column.name).is_some() => {
            Err(QueryError::unsupported_but(
                format!("deleting by the field {}", column.name),
                "points are deleted by time and tags, which identify them",
            ))
        }
        other => tag_name(other, schema).ok_or_else(|| refused(other)),
    }
}

fn compare(
    left: &Expr,
    op: Operator,
    value: &ScalarValue,
    schema: &Schema,
    whole: &Expr,
) -> Result<Condition, QueryError> {
    let comparison = match op {
        Operator::Eq => Comparison::Equal,
        Operator::NotEq => Comparison::NotEqual,
        Operator::Lt => Comparison::Less,
        Operator::LtEq => Comparison::LessOrEqual,
        Operator::Gt => Comparison::Greater,
        Operator::GtEq => Comparison::GreaterOrEqual,
        _ => return Err(refused(whole)),
    };
    let column = column(left, schema)?;
    let value = match &*column {
        TIME_COLUMN => instant(value).map(FieldValue::Timestamp),
        _ => string(value).map(|text| FieldValue::String(text.to_owned())),
    };
    match value {
        Some(value) => Ok(Condition::Compare { column, comparison, value }),
        None => Err(refused(whole)),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit, not};
    use highwater_core::{Column, FieldType, Timestamp};

    use super::*;

    fn of(filter: Expr) -> Result<Condition, QueryError> {
        let schema = Schema::of([Column::tag("host"), Column::field("usage", FieldType::Float)]);
        condition(&filter, &schema)
    }

    fn at(nanos: i64) -> Expr {
        lit(ScalarValue::TimestampNanosecond(Some(nanos), None))
    }

    fn time(comparison: Comparison, nanos: i64) -> Condition {
        let value = FieldValue::Timestamp(Timestamp::from_nanos(nanos));
        Condition::Compare { column: Arc::from("time"), comparison, value }
    }

    fn host(value: &str) -> Condition {
        let value = FieldValue::String(value.to_owned());
        Condition::Compare { column: Arc::from("host"), comparison: Comparison::Equal, value }
    }

    #[test]
    fn comparisons_of_time_and_tags_are_understood() {
        let (less, greater) = (Comparison::Less, Comparison::GreaterOrEqual);
        assert_eq!(of(at(5).gt(col("time"))).unwrap(), time(less, 5));
        assert_eq!(
            of(not(col("time").gt_eq(at(5)).and(col("host").eq(lit("a"))))).unwrap(),
            Condition::Not(Box::new(Condition::And(vec![time(greater, 5), host("a")])))
        );
        assert_eq!(
            of(col("host").in_list(vec![lit("a"), lit("b")], false)).unwrap(),
            Condition::Or(vec![host("a"), host("b")])
        );
        assert_eq!(of(col("host").is_null()).unwrap(), Condition::IsNull(Arc::from("host")));
        assert_eq!(of(lit(false)).unwrap(), Condition::Or(Vec::new()));
    }

    #[test]
    fn what_storage_cannot_do_is_refused_by_name() {
        for (filter, expected) in [
            (col("usage").gt(lit(1.0)), "deleting by the field usage"),
            (col("host").like(lit("a%")), "host LIKE"),
            (col("host").eq(col("dc")), "host = dc"),
        ] {
            let message = of(filter).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
