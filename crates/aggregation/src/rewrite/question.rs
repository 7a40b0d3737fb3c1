//! What an aggregate query asks of one measurement, in terms of its columns.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::expr::AggregateFunction as UdafCall;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate, Cast, Expr, LogicalPlan, TableScan};
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{ColumnRole, FieldType, Schema, TimeRanges};
use highwater_query::MeasurementTable;
use highwater_query::pushdown::prune;

use super::reason::Reason;
use super::rounding::is_time;
use crate::definition::AggregateFunction;

/// What is asked: calls of functions over the points that meet conditions, per group.
///
/// All expressions are over the columns of the measurement, without its name.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// What points are grouped by; no expression for one group.
    pub(super) groups: Vec<Expr>,
    /// What is computed of each group.
    pub(super) calls: Vec<Call>,
    /// Only points in these times.
    pub(super) times: TimeRanges,
    /// Other conditions; points meet all.
    pub(super) conditions: Vec<Expr>,
    /// Names of the groups, then of the calls, in the answer; no two are equal.
    pub(super) names: Vec<String>,
}

/// One function over one column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// Which function.
    pub(super) function: AggregateFunction,
    /// Which field or tag; `None` for points.
    pub(super) column: Option<Arc<str>>,
    /// Type of its answer.
    pub(super) output: DataType,
    /// Whether it is a `count(DISTINCT ..)`, which has an answer however many values there are.
    pub(super) has_no_limit: bool,
    /// As SQL has it.
    pub(super) text: String,
}

/// The measurement that an aggregate node is about, if it is about just one and may be answered
/// from elsewhere.
pub(super) fn table_below(aggregate: &Aggregate) -> Option<&TableScan> {
    let mut plan = aggregate.input.as_ref();
    loop {
        match plan {
            LogicalPlan::TableScan(scan) => {
                return with_table(scan, MeasurementTable::is_replaceable).then_some(scan);
            }
            LogicalPlan::SubqueryAlias(alias) => plan = &alias.input,
            LogicalPlan::Projection(projection) => plan = &projection.input,
            LogicalPlan::Filter(filter) => plan = &filter.input,
            _ => return None,
        }
    }
}

/// What `look` says of the measurement that is scanned; `false` if it is none.
pub(super) fn with_table(scan: &TableScan, look: impl Fn(&MeasurementTable) -> bool) -> bool {
    let provider = source_as_provider(&scan.source).ok();
    provider.is_some_and(|provider| provider.downcast_ref::<MeasurementTable>().is_some_and(look))
}

impl Question {
    /// What the node asks of the table that [`table_below`] finds.
    ///
    /// # Errors
    /// Why no aggregate answers it.
    pub(super) fn of(aggregate: &Aggregate, table: &MeasurementTable) -> Result<Self, Reason> {
        let rows = Rows::of(&aggregate.input)?;
        let schema = table.measurement().schema();
        let below = aggregate.input.schema();
        let of_columns = |expr: &Expr| rows.of_columns(expr, below);
        let groups: Vec<Expr> =
            aggregate.group_expr.iter().map(of_columns).collect::<Result<_, _>>()?;
        let fields = aggregate.schema.fields();
        let names: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
        if groups.iter().any(|group| matches!(group, Expr::GroupingSet(_))) {
            return Err(unanswered("it groups in several ways at once"));
        }
        if names.iter().collect::<HashSet<_>>().len() < names.len() {
            return Err(unanswered("two of its columns have the same name"));
        }
        let outputs = fields[groups.len()..].iter().map(|field| field.data_type().clone());
        let call = |(expr, output): (&Expr, DataType)| {
            let kept = Call::of(&of_columns(expr)?, output, schema);
            let unknown = || format!("{} is none of what aggregates keep", expr.human_display());
            kept.ok_or_else(|| Reason::Question(unknown()))
        };
        let calls = aggregate.aggr_expr.iter().zip(outputs).map(call).collect::<Result<_, _>>()?;
        let (mut times, mut conditions) = (table.times().clone(), Vec::new());
        for condition in rows.conditions {
            let pruned = prune(&condition, schema);
            match pruned.exact {
                true => times = times.intersect(&pruned.times),
                false if !conditions.contains(&condition) => conditions.push(condition),
                false => {}
            }
        }
        Ok(Question { groups, calls, times, conditions, names })
    }

    /// Names of the groups.
    pub(super) fn group_names(&self) -> &[String] {
        &self.names[..self.groups.len()]
    }

    /// Names of the calls.
    pub(super) fn call_names(&self) -> &[String] {
        &self.names[self.groups.len()..]
    }
}

impl Call {
    /// The call that an expression is; `None` if partials cannot give it.
    fn of(expr: &Expr, output: DataType, schema: &Schema) -> Option<Self> {
        let Expr::AggregateFunction(UdafCall { func, params }) = expr else { return None };
        let is_plain = params.filter.is_none() && params.order_by.is_empty();
        if !is_plain || params.null_treatment.is_some() {
            return None;
        }
        let text = expr.human_display().to_string();
        if params.distinct {
            let [value] = params.args.as_slice() else { return None };
            // Floats that compare as equal may have different bits.
            let column = Some(column_of(value, schema)?).filter(|name| !is_float(name, schema));
            let function = AggregateFunction::Distinct;
            return (func.name() == "count" && column.is_some()).then_some(Call {
                function,
                column,
                output,
                has_no_limit: true,
                text,
            });
        }
        let function = AggregateFunction::of(func, &params.args)?;
        let (value, more) = params.args.split_first()?;
        let is_complete = match function {
            AggregateFunction::Histogram(_) => true,
            _ if function.goes_by_time() => matches!(more, [time] if is_time(time)),
            AggregateFunction::ApproxPercentile(_) => more.len() == 1,
            _ => more.is_empty(),
        };
        if !is_complete || function.goes_by_order() {
            return None;
        }
        let call =
            |function, column| Some(Call { function, column, output, has_no_limit: false, text });
        match (function, value) {
            (AggregateFunction::Count, Expr::Literal(value, _)) if value.is_null() => None,
            (AggregateFunction::Count, _) => call(function, None),
            (AggregateFunction::CountField, value) if is_time(value) => {
                call(AggregateFunction::Count, None)
            }
            (_, value) => call(function, Some(column_of(value, schema)?)),
        }
    }
}

fn is_float(column: &str, schema: &Schema) -> bool {
    let role = schema.column(column).map(|column| column.role);
    role == Some(ColumnRole::Field(FieldType::Float))
}

/// The column that values are of; a tag may be taken as text.
fn column_of(value: &Expr, schema: &Schema) -> Option<Arc<str>> {
    let is_tag = |name: &str| schema.tag_position(name).is_some();
    match value {
        Expr::Column(column) if column.name != TIME_COLUMN => Some(column.name.as_str().into()),
        Expr::Cast(Cast { expr, field, .. }) if *field.data_type() == DataType::Utf8 => {
            column_of(expr, schema).filter(|name| is_tag(name))
        }
        _ => None,
    }
}

/// Rows of one measurement: their columns and what they meet, in terms of its columns.
struct Rows {
    columns: Vec<Expr>,
    conditions: Vec<Expr>,
}

impl Rows {
    fn of(plan: &LogicalPlan) -> Result<Self, Reason> {
        match plan {
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => Rows::of_scan(scan),
            LogicalPlan::TableScan(_) => Err(unanswered("it looks at some of the points only")),
            LogicalPlan::SubqueryAlias(alias) => Rows::of(&alias.input),
            LogicalPlan::Projection(projection) => {
                let rows = Rows::of(&projection.input)?;
                let below = projection.input.schema();
                let columns = projection.expr.iter().map(|expr| rows.of_columns(expr, below));
                Ok(Rows { columns: columns.collect::<Result<_, _>>()?, ..rows })
            }
            LogicalPlan::Filter(filter) => {
                let mut rows = Rows::of(&filter.input)?;
                for condition in split_conjunction(&filter.predicate) {
                    let condition = rows.of_columns(condition, filter.input.schema())?;
                    rows.conditions.push(condition);
                }
                Ok(rows)
            }
            _ => Err(unanswered("it looks at more than the points of one measurement")),
        }
    }

    fn of_scan(scan: &TableScan) -> Result<Self, Reason> {
        let fields = scan.projected_schema.fields().iter();
        let columns = fields.map(|field| Expr::Column(Column::new_unqualified(field.name())));
        let conditions = scan.filters.iter().flat_map(split_conjunction);
        let conditions = conditions.map(|filter| unnormalize_col(filter.clone()).unalias());
        Ok(Rows { columns: columns.collect(), conditions: conditions.collect() })
    }

    /// An expression over these rows, in terms of the columns of the measurement.
    fn of_columns(&self, expr: &Expr, schema: &DFSchema) -> Result<Expr, Reason> {
        let replaced = expr.clone().transform(|part| match part {
            Expr::Column(column) => {
                let at = schema.index_of_column(&column)?;
                Ok(Transformed::yes(self.columns[at].clone()))
            }
            other => Ok(Transformed::no(other)),
        });
        Ok(replaced?.data.unalias_nested().data)
    }
}

fn unanswered(why: &str) -> Reason {
    Reason::Question(why.to_owned())
}
