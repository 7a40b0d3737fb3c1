//! What a filter says about time and tags: DataFusion expressions to what a scan prunes with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{
    Between, BinaryExpr, Cast, Expr, Operator, TableProviderFilterPushDown, TryCast,
};
use highwater_core::schema::TIME_COLUMN;
use highwater_core::time::{NANOS_PER_DAY, NANOS_PER_SEC};
use highwater_core::{ScanFilter, Schema, TimeRange, TimeRanges, Timestamp};

/// A superset of the points for which a filter is true.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruning {
    /// Only points in here can pass.
    pub times: TimeRanges,
    /// Only points whose tag has one of these values can pass; all must hold.
    pub tags: BTreeMap<Arc<str>, BTreeSet<String>>,
    /// Whether `times` is the whole truth: the filter is true exactly there.
    pub exact: bool,
}

impl Pruning {
    /// Nothing is known.
    fn unknown() -> Self {
        Pruning { times: TimeRanges::all(), tags: BTreeMap::new(), exact: false }
    }

    /// True exactly in `times`.
    fn exactly(times: TimeRanges) -> Self {
        Pruning { times, tags: BTreeMap::new(), exact: true }
    }

    /// True only within `times`.
    fn within(times: TimeRanges) -> Self {
        Pruning { times, ..Pruning::unknown() }
    }

    fn tag(name: Arc<str>, values: BTreeSet<String>) -> Self {
        Pruning { tags: BTreeMap::from([(name, values)]), ..Pruning::unknown() }
    }

    fn and(mut self, other: Pruning) -> Self {
        self.times = self.times.intersect(&other.times);
        self.exact &= other.exact;
        for (tag, values) in other.tags {
            let both = match self.tags.get(&tag) {
                Some(own) => own.intersection(&values).cloned().collect(),
                None => values,
            };
            self.tags.insert(tag, both);
        }
        self
    }

    fn or(mut self, other: Pruning) -> Self {
        self.times = self.times.union(&other.times);
        self.exact &= other.exact;
        self.tags.retain(|tag, _| other.tags.contains_key(tag));
        for (tag, values) in &mut self.tags {
            values.extend(other.tags[tag].iter().cloned());
        }
        self
    }

    /// How a table that scans with this should answer DataFusion.
    pub fn pushdown(&self) -> TableProviderFilterPushDown {
        match self {
            Pruning { exact: true, .. } => TableProviderFilterPushDown::Exact,
            Pruning { times, tags, .. } if tags.is_empty() && *times == TimeRanges::all() => {
                TableProviderFilterPushDown::Unsupported
            }
            _ => TableProviderFilterPushDown::Inexact,
        }
    }

    /// As a scan takes it.
    pub fn into_scan_filter(self) -> ScanFilter {
        ScanFilter { tags: self.tags.into_iter().collect(), ..ScanFilter::at(self.times) }
    }
}

/// What `filter` says about the columns of `schema`.
pub fn prune(filter: &Expr, schema: &Schema) -> Pruning {
    match filter {
        Expr::Alias(alias) => prune(&alias.expr, schema),
        Expr::Literal(ScalarValue::Boolean(value), _) => match value {
            Some(true) => Pruning::exactly(TimeRanges::all()),
            Some(false) => Pruning::exactly(TimeRanges::none()),
            // Neither NULL nor its negation is true.
            None => Pruning::within(TimeRanges::none()),
        },
        Expr::Not(inner) => negated(prune(inner, schema)),
        Expr::IsNotNull(inner) if is_time(inner) => Pruning::exactly(TimeRanges::all()),
        Expr::IsNull(inner) if is_time(inner) => Pruning::exactly(TimeRanges::none()),
        Expr::Between(between) => prune_between(between, schema),
        Expr::InList(list) => prune_in_list(list, schema),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            prune(left, schema).and(prune(right, schema))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            prune(left, schema).or(prune(right, schema))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let flipped = || op.swap().and_then(|op| prune_comparison(right, op, left, schema));
            prune_comparison(left, *op, right, schema)
                .or_else(flipped)
                .unwrap_or_else(Pruning::unknown)
        }
        _ => Pruning::unknown(),
    }
}

/// What all of `filters` say together.
pub fn prune_all<'a>(filters: impl IntoIterator<Item = &'a Expr>, schema: &Schema) -> Pruning {
    let everything = Pruning::exactly(TimeRanges::all());
    filters.into_iter().fold(everything, |all, filter| all.and(prune(filter, schema)))
}

/// Time is never NULL, so the negation of something exact is its complement.
fn negated(inner: Pruning) -> Pruning {
    if inner.exact {
        Pruning::exactly(TimeRanges::all().subtract(&inner.times))
    } else {
        Pruning::unknown()
    }
}

fn prune_between(between: &Between, schema: &Schema) -> Pruning {
    let Between { expr, negated: is_negated, low, high } = between;
    let low = prune_comparison(expr, Operator::GtEq, low, schema);
    let high = prune_comparison(expr, Operator::LtEq, high, schema);
    match (low, high) {
        (Some(low), Some(high)) if *is_negated => negated(low.and(high)),
        (Some(low), Some(high)) => low.and(high),
        _ => Pruning::unknown(),
    }
}

fn prune_in_list(list: &InList, schema: &Schema) -> Pruning {
    let any =
        list.list.iter().map(|value| prune_comparison(&list.expr, Operator::Eq, value, schema));
    let any = any.reduce(|a, b| Some(a?.or(b?)));
    match any.flatten() {
        Some(any) if list.negated => negated(any),
        Some(any) => any,
        None => Pruning::unknown(),
    }
}

fn prune_comparison(column: &Expr, op: Operator, value: &Expr, schema: &Schema) -> Option<Pruning> {
    let Expr::Literal(value, _) = value else { return None };
    if is_time(column) {
        return Some(Pruning::exactly(times(op, instant(value)?)?));
    }
    if let Some((step, at)) = rounded_time(column, value) {
        return Some(Pruning::within(times_around(op, step, at)?));
    }
    let tag = tag_name(column, schema)?;
    let text = string(value)?;
    (op == Operator::Eq).then(|| Pruning::tag(tag, BTreeSet::from([text.to_owned()])))
}

fn is_time(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(column) if column.name == TIME_COLUMN)
}

/// The instants `t` with `t op at`; `None` for an operator that does not order.
fn times(op: Operator, at: Timestamp) -> Option<TimeRanges> {
    let after = at.saturating_add(1);
    Some(match op {
        Operator::Eq => TimeRange::new(at, after).into(),
        Operator::NotEq => TimeRanges::all().subtract(&TimeRange::new(at, after).into()),
        Operator::Lt => TimeRange::before(at).into(),
        Operator::LtEq => TimeRange::before(after).into(),
        Operator::Gt => TimeRange::since(after).into(),
        Operator::GtEq => TimeRange::since(at).into(),
        _ => return None,
    })
}

/// Wherever `t`, rounded to `step` in any direction, could satisfy `op at`.
fn times_around(op: Operator, step: i64, at: Timestamp) -> Option<TimeRanges> {
    let (low, high) = (at.saturating_sub(step), at.saturating_add(step));
    Some(match op {
        Operator::Eq => TimeRange::new(low, high.saturating_add(1)).into(),
        Operator::Lt | Operator::LtEq => TimeRange::before(high.saturating_add(1)).into(),
        Operator::Gt | Operator::GtEq => TimeRange::since(low).into(),
        _ => return None,
    })
}

/// The instant that a literal of a timestamp type stands for.
pub(crate) fn instant(value: &ScalarValue) -> Option<Timestamp> {
    let (amount, nanos) = match value {
        ScalarValue::TimestampNanosecond(Some(v), _) => (*v, 1),
        ScalarValue::TimestampMicrosecond(Some(v), _) => (*v, 1_000),
        ScalarValue::TimestampMillisecond(Some(v), _) => (*v, 1_000_000),
        ScalarValue::TimestampSecond(Some(v), _) => (*v, NANOS_PER_SEC),
        _ => return None,
    };
    amount.checked_mul(nanos).map(Timestamp::from_nanos)
}

/// `CAST(time AS DATE)` or of a coarser unit, compared with a literal of that type: the step of
/// the rounding in nanoseconds, and the literal.
fn rounded_time(expr: &Expr, value: &ScalarValue) -> Option<(i64, Timestamp)> {
    let (Expr::Cast(Cast { expr, field, .. }) | Expr::TryCast(TryCast { expr, field, .. })) = expr
    else {
        return None;
    };
    if !is_time(expr) {
        return None;
    }
    match (field.data_type(), value) {
        (DataType::Date32, ScalarValue::Date32(Some(days))) => {
            let at = Timestamp::from_nanos(i64::from(*days).checked_mul(NANOS_PER_DAY)?);
            Some((NANOS_PER_DAY, at))
        }
        (DataType::Timestamp(unit, None), value) => {
            let step = match unit {
                TimeUnit::Second => NANOS_PER_SEC,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond => 1_000,
                TimeUnit::Nanosecond => 1,
            };
            Some((step, instant(value)?))
        }
        _ => None,
    }
}

/// The tag that an expression is, perhaps cast to another type of string.
pub(crate) fn tag_name(expr: &Expr, schema: &Schema) -> Option<Arc<str>> {
    match expr {
        Expr::Column(column) => {
            schema.tags().iter().find(|tag| ***tag == column.name).map(Arc::clone)
        }
        Expr::Cast(Cast { expr, field, .. }) | Expr::TryCast(TryCast { expr, field, .. })
            if is_string(field.data_type()) =>
        {
            tag_name(expr, schema)
        }
        _ => None,
    }
}

fn is_string(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_string(value),
        _ => false,
    }
}

/// The text of a string literal of any string type.
pub(crate) fn string(value: &ScalarValue) -> Option<&str> {
    match value {
        ScalarValue::Dictionary(_, inner) => string(inner),
        other => other.try_as_str().flatten(),
    }
}

#[cfg(test)]
mod tests;
