//! The part of a WHERE that storage understands as a condition.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_binary;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{Comparison, Condition, FieldValue, Schema};

use crate::pushdown::{instant, string, tag_name};

/// `filter`, simplified and with its types coerced, over the columns of `schema`; `None` if it is
/// more than comparing `time` and tags with constants.
pub(crate) fn condition(filter: &Expr, schema: &Schema) -> Option<Condition> {
    let not = |inner: Condition| Condition::Not(Box::new(inner));
    Some(match filter {
        Expr::Alias(alias) => condition(&alias.expr, schema)?,
        Expr::Literal(ScalarValue::Boolean(Some(true)), _) => Condition::All,
        Expr::Literal(ScalarValue::Boolean(_), _) => Condition::Or(Vec::new()),
        Expr::Not(inner) => not(condition(inner, schema)?),
        Expr::IsNull(inner) => Condition::IsNull(column(inner, schema)?),
        Expr::IsNotNull(inner) => not(Condition::IsNull(column(inner, schema)?)),
        Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) => {
            let parts = split_binary(filter, *op).into_iter().map(|part| condition(part, schema));
            let parts = parts.collect::<Option<_>>()?;
            if *op == Operator::And { Condition::And(parts) } else { Condition::Or(parts) }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Literal(value, _), column) => compare(column, op.swap()?, value, schema)?,
            (column, Expr::Literal(value, _)) => compare(column, *op, value, schema)?,
            _ => return None,
        },
        Expr::Between(between) => {
            let bound = |op, bound: &Expr| match bound {
                Expr::Literal(value, _) => compare(&between.expr, op, value, schema),
                _ => None,
            };
            let inside = Condition::And(vec![
                bound(Operator::GtEq, &between.low)?,
                bound(Operator::LtEq, &between.high)?,
            ]);
            if between.negated { not(inside) } else { inside }
        }
        Expr::InList(list) => {
            let values = list.list.iter().map(|value| match value {
                Expr::Literal(value, _) => compare(&list.expr, Operator::Eq, value, schema),
                _ => None,
            });
            let any = Condition::Or(values.collect::<Option<_>>()?);
            if list.negated { not(any) } else { any }
        }
        _ => return None,
    })
}

/// The column that an expression is, if it is `time` or a tag.
fn column(expr: &Expr, schema: &Schema) -> Option<Arc<str>> {
    match expr {
        Expr::Column(column) if column.name == TIME_COLUMN => Some(Arc::from(TIME_COLUMN)),
        other => tag_name(other, schema),
    }
}

fn compare(left: &Expr, op: Operator, value: &ScalarValue, schema: &Schema) -> Option<Condition> {
    let comparison = match op {
        Operator::Eq => Comparison::Equal,
        Operator::NotEq => Comparison::NotEqual,
        Operator::Lt => Comparison::Less,
        Operator::LtEq => Comparison::LessOrEqual,
        Operator::Gt => Comparison::Greater,
        Operator::GtEq => Comparison::GreaterOrEqual,
        _ => return None,
    };
    let column = column(left, schema)?;
    let value = match &*column {
        TIME_COLUMN => FieldValue::Timestamp(instant(value)?),
        _ => FieldValue::String(string(value)?.to_owned()),
    };
    Some(Condition::Compare { column, comparison, value })
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit, not};
    use highwater_core::{Column, FieldType, Timestamp};

    use super::*;

    fn of(filter: Expr) -> Option<Condition> {
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
    fn anything_else_is_not() {
        for filter in [
            col("usage").gt(lit(1.0)),
            col("host").like(lit("a%")),
            col("host").eq(col("dc")),
            col("host").eq(lit("a")).or(col("usage").is_null()),
        ] {
            assert_eq!(of(filter.clone()), None, "{filter}");
        }
    }
}
