//! Views: queries under a name, planned anew by whoever reads them.
//!
//! They are documents of the manifest, `view/<database>/<name>`. A view may read views; a query reads
//! no more than [`MOST_READ`] of them, each as often as it is named.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::datasource::ViewTable;
use datafusion::sql::parser::Statement as PlannedStatement;
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{
    self, CreateTableOptions, CreateView, Ident, ObjectName, ObjectType, visit_relations,
};
use highwater_core::ErrorKind;
use highwater_storage::{Commit, Edit, Version};

use crate::catalog::Catalogs;
use crate::engine::PUBLIC;
use crate::error::QueryError;
use crate::session::{QueryResult, QuerySession};
use crate::statement::{Parsed, Statement, parse};

/// More views than this are not read by one view.
const MOST_READ: usize = 1_000;

fn prefix(database: &str) -> String {
    format!("view/{database}/")
}

fn key(database: &str, name: &str) -> String {
    format!("{}{name}", prefix(database))
}

/// The query of a view, if there is one of that name.
pub fn view_query<'a>(version: &'a Version, database: &str, name: &str) -> Option<&'a Arc<str>> {
    version.document(&key(database, name))
}

/// The queries of all views of a database, by name.
pub(crate) fn queries(version: &Version, database: &str) -> BTreeMap<String, Arc<str>> {
    let prefix = prefix(database);
    let views = version.documents(&prefix);
    views.map(|(key, query)| (key[prefix.len()..].to_owned(), Arc::clone(query))).collect()
}

/// The view of that name as a table, if there is one.
pub(crate) async fn table(
    session: &QuerySession,
    name: &str,
) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
    let Some(query) = view_query(session.version(), session.database(), name) else {
        return Ok(None);
    };
    let in_view = |error: QueryError| QueryError::Other {
        kind: error.kind(),
        message: format!("view {name} cannot be read any more: {error}"),
    };
    let plan = session.plan(query).await.map_err(in_view)?;
    Ok(Some(Arc::new(ViewTable::new(plan, Some(query.to_string())))))
}

/// Carries out `CREATE VIEW` and `DROP VIEW`; `None` if it is neither.
pub(crate) async fn statement(
    session: &QuerySession,
    statement: &Statement,
) -> Result<Option<QueryResult>, QueryError> {
    let Statement::Sql(statement) = statement else { return Ok(None) };
    let commit = match &**statement {
        ast::Statement::CreateView(view) if !view.materialized => create(session, view).await?,
        ast::Statement::Drop {
            object_type: ObjectType::View, if_exists, names, cascade, ..
        } => {
            if *cascade {
                let advice = "name all views that are to go";
                return Err(QueryError::unsupported_but("DROP VIEW .. CASCADE", advice));
            }
            drop_views(session, names, *if_exists)?
        }
        _ => return Ok(None),
    };
    if !commit.edits.is_empty() {
        session.engine().storage().commit(commit).await?;
    }
    Ok(Some(QueryResult::empty()))
}

async fn create(session: &QuerySession, view: &CreateView) -> Result<Commit, QueryError> {
    refuse_clauses(view)?;
    let (version, database) = (session.version(), session.database());
    let name = own_name(&view.name)?;
    let before = queries(version, database);
    match before.get(name) {
        Some(_) if view.if_not_exists => return Ok(Commit::default()),
        Some(_) if !view.or_replace => {
            return Err(conflict(format!("there is a view {name}; write CREATE OR REPLACE VIEW")));
        }
        None if Catalogs::new(session.clone()).has_table(name) => {
            return Err(conflict(format!("there is a table {name}; choose another name")));
        }
        _ => {}
    }
    if !version.has_database(database) {
        let message = format!("there is no database {database}; write points to it first");
        return Err(QueryError::Other { kind: ErrorKind::NotFound, message });
    }
    let query = text_of(view)?;
    let plan = session.plan(&query).await?;
    let params = plan.get_parameter_names().map_err(QueryError::while_planning)?;
    if !params.is_empty() {
        return Err(QueryError::unsupported("a parameter in a view"));
    }
    let mut after = before.clone();
    after.insert(name.to_owned(), query.as_str().into());
    check_nesting(&after, session)?;
    let key = key(database, name);
    let mut commit = Commit::of([Edit::PutDocument { key: key.clone(), text: Some(query.into()) }]);
    commit.expect_documents.push((key, before.get(name).cloned()));
    // Two changes at once, each sound by itself, could make a circle.
    let others = before.into_iter().filter(|(other, _)| other != name);
    commit
        .expect_documents
        .extend(others.map(|(other, query)| (self::key(database, &other), Some(query))));
    Ok(commit)
}

/// Refuses what would be ignored.
fn refuse_clauses(view: &CreateView) -> Result<(), QueryError> {
    let columns = &view.columns;
    let is_typed = columns.iter().any(|one| one.data_type.is_some() || one.options.is_some());
    let clauses = [
        (view.or_alter, "OR ALTER"),
        (view.secure, "SECURE"),
        (is_typed, "a type or option of a column of a view"),
        (view.options != CreateTableOptions::None, "an option of a view"),
        (!view.cluster_by.is_empty(), "CLUSTER BY"),
        (view.comment.is_some(), "COMMENT"),
        (view.with_no_schema_binding, "WITH NO SCHEMA BINDING"),
        (view.temporary, "a temporary view"),
        (view.copy_grants, "COPY GRANTS"),
        (view.to.is_some(), "TO"),
        (view.params.is_some(), "ALGORITHM, DEFINER or SQL SECURITY"),
        (view.or_replace && view.if_not_exists, "OR REPLACE together with IF NOT EXISTS"),
    ];
    match clauses.iter().find(|(is_there, _)| *is_there) {
        Some((_, what)) => Err(QueryError::unsupported(*what)),
        None => Ok(()),
    }
}

/// The query of a view, with the names of its columns.
fn text_of(view: &CreateView) -> Result<String, QueryError> {
    if view.columns.is_empty() {
        return Ok(view.query.to_string());
    }
    let names: Vec<String> = view.columns.iter().map(|column| quoted(&column.name)).collect();
    Ok(format!("SELECT * FROM ({}) AS view ({})", view.query, names.join(", ")))
}

fn quoted(name: &Ident) -> String {
    format!("\"{}\"", name.value.replace('"', "\"\""))
}

fn drop_views(
    session: &QuerySession,
    objects: &[ObjectName],
    if_exists: bool,
) -> Result<Commit, QueryError> {
    let (version, database) = (session.version(), session.database());
    let mut going = BTreeSet::new();
    for object in objects {
        let name = own_name(object)?;
        match view_query(version, database, name) {
            Some(_) => drop(going.insert(name)),
            None if if_exists => {}
            None => {
                let message = format!("there is no view {name}");
                return Err(QueryError::Other { kind: ErrorKind::NotFound, message });
            }
        }
    }
    let mut staying = queries(version, database);
    staying.retain(|name, _| !going.contains(name.as_str()));
    for (reader, query) in staying {
        if let Some(read) =
            reads(&query, session)?.keys().find(|read| going.contains(read.as_str()))
        {
            return Err(conflict(format!("view {reader} reads {read}; drop it first, or with it")));
        }
    }
    let mut commit = Commit::default();
    for name in going {
        let key = key(database, name);
        commit.expect_documents.push((key.clone(), version.document(&key).cloned()));
        commit.edits.push(Edit::PutDocument { key, text: None });
    }
    Ok(commit)
}

/// The name of a view where views are: in `public`.
fn own_name(object: &ObjectName) -> Result<&str, QueryError> {
    let parts: Vec<&str> =
        object.0.iter().filter_map(|part| Some(part.as_ident()?.value.as_str())).collect();
    match parts[..] {
        [name] | [PUBLIC, name] if !name.is_empty() => Ok(name),
        _ => Err(QueryError::Invalid(format!(
            "a view has a name without a schema, or in {PUBLIC}; {object} is none"
        ))),
    }
}

/// How often a query names tables in `public`, measurements and views, by name.
fn reads(query: &str, session: &QuerySession) -> Result<BTreeMap<String, usize>, QueryError> {
    let (parsed, _) = parse(query, session.engine().limits())?;
    let Parsed::Query(statement) = parsed else { return Ok(BTreeMap::new()) };
    let (tables, _) =
        resolve_table_references(&statement, false).map_err(QueryError::while_planning)?;
    let own = tables.iter().filter(|table| table.schema().is_none_or(|schema| schema == PUBLIC));
    let mut counts: BTreeMap<String, usize> =
        own.map(|table| (table.table().to_owned(), 0)).collect();
    if let PlannedStatement::Statement(statement) = &statement {
        let _ = visit_relations(&**statement, |relation| {
            let last = relation.0.last().and_then(|part| part.as_ident());
            if let Some(count) = last.and_then(|ident| counts.get_mut(&ident.value)) {
                *count += 1;
            }
            ControlFlow::<()>::Continue(())
        });
    }
    Ok(counts)
}

/// Refuses views that read themselves, or too many.
fn check_nesting(
    queries: &BTreeMap<String, Arc<str>>,
    session: &QuerySession,
) -> Result<(), QueryError> {
    let mut views_of = BTreeMap::new();
    for (name, query) in queries {
        let mut read = reads(query, session)?;
        read.retain(|name, _| queries.contains_key(name));
        views_of.insert(name.as_str(), read);
    }
    let mut counted = BTreeMap::new();
    for name in queries.keys() {
        let count = count(name, &views_of, &mut counted, &mut Vec::new())?;
        if count > MOST_READ {
            return Err(QueryError::Invalid(format!(
                "view {name} would read more than {MOST_READ} views, through others"
            )));
        }
    }
    Ok(())
}

/// How many views are read by one, through others too.
fn count<'a>(
    name: &'a str,
    views_of: &'a BTreeMap<&str, BTreeMap<String, usize>>,
    counted: &mut BTreeMap<&'a str, usize>,
    path: &mut Vec<&'a str>,
) -> Result<usize, QueryError> {
    if let Some(count) = counted.get(name) {
        return Ok(*count);
    }
    if let Some(at) = path.iter().position(|one| *one == name) {
        path.push(name);
        let circle = path[at..].join(" -> ");
        return Err(QueryError::Invalid(format!("a view would read itself: {circle}")));
    }
    path.push(name);
    let mut total = 0_usize;
    for (read, times) in views_of.get(name).into_iter().flatten() {
        let below = count(read, views_of, counted, path)?;
        total = total.saturating_add(times.saturating_mul(below.saturating_add(1)));
    }
    path.pop();
    counted.insert(name, total);
    Ok(total)
}

fn conflict(message: String) -> QueryError {
    QueryError::Other { kind: ErrorKind::Conflict, message }
}
