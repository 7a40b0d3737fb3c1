//! Refuses what the planner would silently drop.
//!
//! DataFusion plans statements while ignoring some of their clauses; an answer that ignores part
//! of the question is wrong, so every such clause is an error that names it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArguments, GroupByExpr, Query, Select, SelectFlavor, Statement,
    TableAlias, TableFactor, TableWithJoins, Visit, Visitor, WindowType,
};

use crate::error::QueryError;

/// Checks a statement that is about to be planned.
///
/// `is_scalar` tells whether a function of that (lower case) name gives one value per row.
///
/// # Errors
/// [`QueryError::Unsupported`] naming the first clause that would be ignored.
pub(crate) fn refuse_ignored(
    statement: &Statement,
    is_scalar: &dyn Fn(&str) -> bool,
) -> Result<(), QueryError> {
    if let Statement::ExplainTable { hive_format: Some(format), .. } = statement {
        return Err(QueryError::unsupported(format!("DESCRIBE {format}")));
    }
    match statement.visit(&mut Refusal { is_scalar }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(what) => Err(QueryError::unsupported(what)),
    }
}

struct Refusal<'a> {
    is_scalar: &'a dyn Fn(&str) -> bool,
}

type Flow = ControlFlow<String>;

/// Breaks with the first clause that is there.
fn refuse(clauses: &[(bool, &str)]) -> Flow {
    match clauses.iter().find(|(is_there, _)| *is_there) {
        Some((_, what)) => ControlFlow::Break((*what).to_owned()),
        None => ControlFlow::Continue(()),
    }
}

impl Visitor for Refusal<'_> {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        refuse(&[
            (!query.locks.is_empty(), "FOR UPDATE or FOR SHARE"),
            (query.for_clause.is_some(), "FOR XML, FOR JSON or FOR BROWSE"),
            (query.settings.is_some(), "SETTINGS"),
            (query.format_clause.is_some(), "FORMAT"),
        ])
    }

    fn pre_visit_select(&mut self, select: &Select) -> Flow {
        let modifiers = match &select.group_by {
            GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => modifiers,
        };
        refuse(&[
            (!select.optimizer_hints.is_empty(), "an optimizer hint"),
            (select.select_modifiers.is_some(), "a modifier of SELECT"),
            (select.exclude.is_some(), "EXCLUDE after the list of columns"),
            (select.into.is_some(), "SELECT INTO"),
            (select.prewhere.is_some(), "PREWHERE"),
            (!select.connect_by.is_empty(), "CONNECT BY"),
            (!select.distribute_by.is_empty(), "DISTRIBUTE BY"),
            (!select.cluster_by.is_empty(), "CLUSTER BY"),
            (!select.sort_by.is_empty(), "SORT BY"),
            (!select.lateral_views.is_empty(), "LATERAL VIEW"),
            (select.top.is_some(), "TOP"),
            (select.value_table_mode.is_some(), "SELECT AS VALUE or AS STRUCT"),
            (
                !modifiers.is_empty(),
                "WITH ROLLUP, CUBE or TOTALS; write GROUP BY ROLLUP (..), which",
            ),
            (select.flavor == SelectFlavor::FromFirstNoSelect, "FROM without SELECT"),
        ])?;
        select.from.iter().try_for_each(refuse_joins)
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> Flow {
        match table {
            TableFactor::Table {
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
                ..
            } => {
                refuse(&[
                    (args.as_ref().is_some_and(|args| args.settings.is_some()), "SETTINGS"),
                    (!with_hints.is_empty(), "a table hint"),
                    (version.is_some(), "a version of a table (AS OF)"),
                    (*with_ordinality, "WITH ORDINALITY"),
                    (!partitions.is_empty(), "PARTITION of a table"),
                    (json_path.is_some(), "a path after a table"),
                    (sample.is_some(), "TABLESAMPLE"),
                    (!index_hints.is_empty(), "an index hint"),
                ])?;
                refuse_alias(alias.as_ref())
            }
            TableFactor::Derived { alias, sample, .. } => {
                refuse(&[(sample.is_some(), "TABLESAMPLE")])?;
                refuse_alias(alias.as_ref())
            }
            TableFactor::Function { alias, with_ordinality, .. } => {
                refuse(&[(*with_ordinality, "WITH ORDINALITY")])?;
                refuse_alias(alias.as_ref())
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                refuse_joins(table_with_joins)?;
                refuse_alias(alias.as_ref())
            }
            TableFactor::UNNEST { alias, .. } => refuse_alias(alias.as_ref()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Flow {
        match expr {
            Expr::Function(function) => self.refuse_in_function(function),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn refuse_joins(tables: &TableWithJoins) -> Flow {
    refuse(&[(tables.joins.iter().any(|join| join.global), "GLOBAL JOIN")])
}

fn refuse_alias(alias: Option<&TableAlias>) -> Flow {
    let Some(alias) = alias else { return ControlFlow::Continue(()) };
    refuse(&[
        (alias.at.is_some(), "AT after an alias"),
        (alias.columns.iter().any(|c| c.data_type.is_some()), "a type in a list of column aliases"),
    ])
}

impl Refusal<'_> {
    fn refuse_in_function(&self, function: &Function) -> Flow {
        let is_subquery = |args: &FunctionArguments| matches!(args, FunctionArguments::Subquery(_));
        let inherits = matches!(&function.over,
            Some(WindowType::WindowSpec(spec)) if spec.window_name.is_some());
        refuse(&[
            (function.parameters != FunctionArguments::None, "a second list of arguments"),
            (is_subquery(&function.args), "a subquery as the argument of a function"),
            (inherits, "a window that extends another window"),
        ])?;
        let name = function.name.to_string().to_lowercase();
        if !(self.is_scalar)(&name) {
            return ControlFlow::Continue(());
        }
        let (distinct, clauses) = match &function.args {
            FunctionArguments::List(list) => {
                (list.duplicate_treatment.is_some(), !list.clauses.is_empty())
            }
            _ => (false, false),
        };
        let found = [
            (distinct, "DISTINCT or ALL"),
            (clauses, "ORDER BY or another clause"),
            (function.filter.is_some(), "FILTER"),
            (function.over.is_some(), "OVER"),
            (function.null_treatment.is_some(), "IGNORE or RESPECT NULLS"),
            (!function.within_group.is_empty(), "WITHIN GROUP"),
        ];
        match found.iter().find(|(is_there, _)| *is_there) {
            Some((_, what)) => ControlFlow::Break(format!("{what} in {name}, a scalar function,")),
            None => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn refused(sql: &str) -> Option<String> {
        let statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
        refuse_ignored(&statements[0], &|name| name == "abs").err().map(|e| e.to_string())
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        for (sql, what) in [
            ("SELECT * FROM cpu FOR UPDATE", "FOR UPDATE"),
            ("SELECT * FROM (SELECT * FROM cpu FOR SHARE) x", "FOR UPDATE"),
            ("SELECT * FROM cpu TABLESAMPLE (10 PERCENT)", "TABLESAMPLE"),
            ("SELECT a FROM t GROUP BY a WITH ROLLUP", "WITH ROLLUP"),
            ("SELECT abs(DISTINCT a) FROM t", "DISTINCT or ALL in abs"),
            ("SELECT abs(a) FILTER (WHERE a > 1) FROM t", "FILTER in abs"),
            ("SELECT 1 WHERE EXISTS (SELECT abs(a) OVER () FROM t)", "OVER in abs"),
            ("SELECT * INTO x FROM t", "SELECT INTO"),
            ("DESCRIBE EXTENDED t", "DESCRIBE EXTENDED"),
        ] {
            let message = refused(sql).unwrap_or_default();
            assert!(message.starts_with(what), "{sql}: {message:?}");
        }
    }

    #[test]
    fn what_is_planned_passes() {
        for sql in [
            "SELECT sum(DISTINCT a) FILTER (WHERE b), row_number() OVER (ORDER BY a) FROM t",
            "WITH x AS (SELECT 1) SELECT * FROM x JOIN t USING (a) ORDER BY 1 LIMIT 3",
            "SELECT * FROM generate_series(1, 3) g(value)",
        ] {
            assert_eq!(refused(sql), None, "{sql}");
        }
    }
}
