//! What aggregation adds to SQL: aggregates as tables, the schema `system`, functions, `REFRESH`,
//! and deletes that sealed buckets follow.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use async_trait::async_trait;
use datafusion::catalog::{TableFunctionImpl, TableProvider};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::ObjectName;
use highwater_core::{Condition, MeasurementId, TimeRange, Timestamp};
use highwater_query::{
    Deleting, Extension, QueryError, QueryResult, QuerySession, Registry, Statement,
};
use highwater_storage::LatePoints;

use crate::audit::AuditReport;
use crate::buckets::{self, AggregateBuckets};
use crate::catalog::Catalog;
use crate::definition::AggregateId;
use crate::dropping::DropMeasurements;
use crate::error::AggregationError;
use crate::explain_bucket::explain_bucket;
use crate::freshness::tolerance;
use crate::functions;
use crate::late::late_points_of;
use crate::rewrite::{self, AnswerFromAggregates};
use crate::runtime::{Aggregates, RefreshReport, Shared};
use crate::sealed_delete::Reach;
use crate::system;
use crate::table::AggregateTable;

/// Schema of the tables about the database itself.
const SYSTEM: &str = "system";
/// Schema of names without a set.
const PUBLIC: &str = "public";

/// The aggregation layer as the query engine sees it.
#[derive(Debug)]
pub(crate) struct AggregateTables {
    shared: Arc<Shared>,
    answers: Arc<AnswerFromAggregates>,
}

impl AggregateTables {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let answers = Arc::new(AnswerFromAggregates::new(Arc::clone(&shared)));
        AggregateTables { shared, answers }
    }

    fn ids(&self, session: &QuerySession) -> Vec<AggregateId> {
        let catalog = self.shared.cache.catalog(session.version(), session.database());
        let ids = |all: Arc<Catalog>| all.next().iter().map(|one| one.id().clone()).collect();
        catalog.map_or_else(|_| Vec::new(), ids)
    }

    fn aggregate_table(
        &self,
        session: &QuerySession,
        name: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>, AggregationError> {
        let reader = self.shared.reader_of(session)?;
        let Some((reader, aggregate)) = reader.find(name) else { return Ok(None) };
        let tolerance = tolerance(session.freshness(), &reader, &aggregate)?;
        let mentioned = |word: &str| session.mentions(word);
        let table = AggregateTable::new(reader, aggregate, tolerance, mentioned)?;
        Ok(Some(Arc::new(table)))
    }
}

/// The name of an aggregate from the schema and table that SQL sees.
fn full_name(schema: &str, table: &str) -> String {
    if schema == PUBLIC { table.to_owned() } else { format!("{schema}.{table}") }
}

#[async_trait]
impl Extension for AggregateTables {
    fn register(&self, registry: &mut Registry) {
        registry.scalar_functions.extend(functions::scalar_functions());
        registry.aggregate_functions.extend(functions::aggregate_functions());
        registry.partial_functions.extend(functions::partial_functions());
        registry.last_functions.extend(functions::last_functions());
        registry.analyzer_rules.extend(functions::analyzer_rules());
        registry.pushed_optimizer_rules.push(Arc::clone(&self.answers) as _);
        registry.last_optimizer_rules.extend(functions::optimizer_rules());
    }

    fn schemas(&self, session: &QuerySession) -> Vec<String> {
        let mut schemas: Vec<String> =
            self.ids(session).iter().map(|id| id.schema().to_owned()).collect();
        schemas.push(SYSTEM.to_owned());
        schemas.sort();
        schemas.dedup();
        schemas
    }

    fn tables(&self, session: &QuerySession, schema: &str) -> Vec<String> {
        if schema == SYSTEM {
            return system::TABLES.map(str::to_owned).to_vec();
        }
        let ids = self.ids(session);
        ids.iter().filter(|id| id.schema() == schema).map(|id| id.table().to_owned()).collect()
    }

    async fn table(
        &self,
        session: &QuerySession,
        schema: &str,
        name: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>, QueryError> {
        let table = match schema {
            SYSTEM => system::table(&self.shared, session, name).transpose(),
            _ => self.aggregate_table(session, &full_name(schema, name)),
        };
        table.map_err(QueryError::from)
    }

    fn table_functions(&self, session: &QuerySession) -> Vec<(String, Arc<dyn TableFunctionImpl>)> {
        let buckets = AggregateBuckets::new(Arc::clone(&self.shared), session.clone());
        vec![(format!("{SYSTEM}.{}", buckets::NAME), Arc::new(buckets))]
    }

    fn remarks(
        &self,
        session: &QuerySession,
        optimized: &LogicalPlan,
    ) -> Result<Vec<String>, QueryError> {
        rewrite::remarks(&self.answers, optimized, session.options().rewrite)
    }

    async fn statement(
        &self,
        session: &QuerySession,
        statement: &Statement,
    ) -> Result<Option<QueryResult>, QueryError> {
        let aggregates = Aggregates::of(session.engine().clone(), Arc::clone(&self.shared));
        let database = session.database();
        match statement {
            Statement::RefreshMaterializedView { name, .. } => {
                let report = aggregates.refresh(database, &dotted(name), None).await?;
                Ok(Some(refreshed(report)?))
            }
            Statement::VerifyAggregate { name, range } => {
                let window = range.as_ref().map(parsed_range).transpose()?;
                let report = aggregates.verify(database, &dotted(name), window, true).await?;
                Ok(Some(verified(&report)?))
            }
            Statement::ExplainBucket { name, at } => {
                let at = Timestamp::parse(at).map_err(AggregationError::Invalid)?;
                let reader = self.shared.reader_of(session)?;
                let rows = explain_bucket(&reader, &dotted(name), at).await?;
                Ok(Some(QueryResult::of(rows.schema(), vec![rows])))
            }
            Statement::Sql(statement) => {
                let Some(drop) = DropMeasurements::of(statement) else { return Ok(None) };
                aggregates.drop_measurements(database, &drop).await?;
                Ok(Some(QueryResult::empty()))
            }
        }
    }

    fn late_points(&self, session: &QuerySession, measurement: &str) -> Option<LatePoints> {
        let catalog = self.shared.cache.catalog(session.version(), session.database()).ok()?;
        Some(late_points_of(&catalog, measurement))
    }

    async fn delete(
        &self,
        session: &QuerySession,
        id: &MeasurementId,
        condition: &Condition,
        is_all: bool,
    ) -> Result<Deleting, QueryError> {
        let aggregates = Aggregates::of(session.engine().clone(), Arc::clone(&self.shared));
        let reach = Reach::of(condition, is_all);
        let is_done = aggregates.delete_sealed(session, id, &reach, condition).await?;
        Ok(if is_done { Deleting::Done } else { Deleting::PointsOnly })
    }
}

/// A name as the catalogue has it.
fn dotted(name: &ObjectName) -> String {
    let parts = name.0.iter().filter_map(|part| part.as_ident());
    parts.map(|ident| ident.value.as_str()).collect::<Vec<_>>().join(".")
}

fn parsed_range((from, to): &(String, String)) -> Result<TimeRange, AggregationError> {
    let at = |text: &str| Timestamp::parse(text).map_err(AggregationError::Invalid);
    let range = TimeRange::new(at(from)?, at(to)?);
    match range.is_empty() {
        true => Err(AggregationError::Invalid("FROM has to lie before TO".to_owned())),
        false => Ok(range),
    }
}

/// What `VERIFY` answers: one row for the aggregate and one for each dependant that was verified
/// because of it.
fn verified(report: &AuditReport) -> Result<QueryResult, QueryError> {
    let all: Vec<&AuditReport> = std::iter::once(report).chain(&report.dependants).collect();
    let numbers = |of: fn(&AuditReport) -> u64| -> ArrayRef {
        Arc::new(all.iter().map(|one| of(one)).collect::<UInt64Array>())
    };
    let names: StringArray = all.iter().map(|one| Some(one.name.as_str())).collect();
    let details = all.iter().map(|one| serde_json::to_string(&one.details).map(Some));
    let details: StringArray = details
        .collect::<Result<_, _>>()
        .map_err(|error| QueryError::Internal(error.to_string()))?;
    let columns: [(&str, ArrayRef); 7] = [
        ("name", Arc::new(names)),
        ("buckets_checked", numbers(|one| one.buckets_checked)),
        ("buckets_sealed", numbers(|one| one.buckets_sealed)),
        ("buckets_stale", numbers(|one| one.buckets_stale)),
        ("mismatches", numbers(|one| one.mismatches)),
        ("buckets_repaired", numbers(|one| one.buckets_repaired)),
        ("details", Arc::new(details)),
    ];
    answer(columns)
}

fn answer<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<QueryResult, QueryError> {
    let batch = RecordBatch::try_from_iter(columns)
        .map_err(|error| QueryError::Internal(error.to_string()))?;
    Ok(QueryResult::of(batch.schema(), vec![batch]))
}

/// What `REFRESH` answers: one row with `buckets`, `rows` and `duration_ms`.
fn refreshed(report: RefreshReport) -> Result<QueryResult, QueryError> {
    let columns: [(&str, ArrayRef); 3] = [
        ("buckets", Arc::new(UInt64Array::from(vec![report.buckets]))),
        ("rows", Arc::new(UInt64Array::from(vec![report.rows]))),
        ("duration_ms", Arc::new(Float64Array::from(vec![report.duration_ms]))),
    ];
    answer(columns)
}

impl From<AggregationError> for QueryError {
    fn from(error: AggregationError) -> Self {
        match error {
            AggregationError::Query(error) => error,
            AggregationError::Storage(error) => QueryError::Storage(error),
            AggregationError::DataFusion(error) => QueryError::from(error),
            error => QueryError::Other { kind: error.kind(), message: error.to_string() },
        }
    }
}
