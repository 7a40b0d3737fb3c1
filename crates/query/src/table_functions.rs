//! Functions that are tables: how statements call those in a schema.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as PlannedStatement;
use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, ObjectNamePart, TableFactor, VisitMut, VisitorMut,
};

/// Joins the schema and the name of every table function of a statement into one name, as the
/// planner looks at the first part of a name only.
pub(crate) fn join_names(statement: &mut PlannedStatement) {
    match statement {
        PlannedStatement::Statement(inner) => {
            let ControlFlow::Continue(()) = inner.visit(&mut Joining);
        }
        PlannedStatement::Explain(explain) => join_names(&mut explain.statement),
        _ => {}
    }
}

struct Joining;

impl VisitorMut for Joining {
    type Break = std::convert::Infallible;

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::Table { name, args: Some(_), .. } = table {
            let parts = name.0.iter().filter_map(|part| part.as_ident());
            let parts: Vec<&str> = parts.map(|ident| ident.value.as_str()).collect();
            *name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(parts.join(".")))]);
        }
        ControlFlow::Continue(())
    }
}
