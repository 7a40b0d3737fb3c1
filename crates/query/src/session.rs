//! One reader: a pinned version of the data, and SQL over it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use chrono::DateTime;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::parser::Statement as PlannedStatement;
use futures::{TryStreamExt, stream};
use highwater_core::{MeasurementId, ScanFilter, TimeRange, Timestamp};
use highwater_storage::Version;

use crate::catalog::Catalogs;
use crate::engine::{PUBLIC, QueryEngine};
use crate::error::QueryError;
use crate::options::{Freshness, Rewrite, SessionOptions};
use crate::params::Params;
use crate::refusal::refuse_ignored;
use crate::statement::{Parsed, Statement};
use crate::table::MeasurementTable;
use crate::{delete, explain, insert, statement, table_functions, views};

/// A stream of batches and their schema.
pub struct QueryResult {
    /// Columns of every batch.
    pub schema: SchemaRef,
    /// The rows. Errors convert to [`QueryError`].
    pub batches: SendableRecordBatchStream,
}

impl fmt::Debug for QueryResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryResult").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl QueryResult {
    /// No columns and no rows: the answer of a statement.
    pub fn empty() -> Self {
        QueryResult::of(Arc::new(Schema::empty()), Vec::new())
    }

    /// Rows that are there already.
    pub fn of(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        let stream = stream::iter(batches.into_iter().map(Ok));
        let batches = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), stream));
        QueryResult { schema, batches }
    }

    /// All rows.
    ///
    /// # Errors
    /// The first error of the stream.
    pub async fn collect(self) -> Result<Vec<RecordBatch>, QueryError> {
        self.batches.try_collect().await.map_err(QueryError::from)
    }
}

/// A reader pinned to one version of the data and one instant; cheap to clone.
#[derive(Clone)]
pub struct QuerySession {
    pinned: Arc<Pinned>,
    /// Words of the statement being planned; `None` outside of a statement.
    words: Option<Arc<HashSet<String>>>,
    /// Whether this plans a query that may be answered from elsewhere than the tables it names.
    replaces: bool,
}

struct Pinned {
    engine: QueryEngine,
    version: Arc<Version>,
    now: Timestamp,
    options: SessionOptions,
}

impl fmt::Debug for QuerySession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuerySession")
            .field("seq", &self.pinned.version.seq())
            .field("options", &self.pinned.options)
            .finish_non_exhaustive()
    }
}

impl QuerySession {
    pub(crate) fn new(engine: QueryEngine, version: Arc<Version>, options: SessionOptions) -> Self {
        let now = engine.storage().clock().now();
        let pinned = Arc::new(Pinned { engine, version, now, options });
        QuerySession { pinned, words: None, replaces: false }
    }

    /// The same session at the newest version and instant.
    pub(crate) fn at_newest_version(&self) -> Self {
        let engine = self.engine().clone();
        let version = engine.storage().version();
        let session = QuerySession::new(engine, version, self.options().clone());
        QuerySession { words: self.words.clone(), replaces: self.replaces, ..session }
    }

    /// The engine this is a session of.
    pub fn engine(&self) -> &QueryEngine {
        &self.pinned.engine
    }

    /// The version all queries of this session see.
    pub fn version(&self) -> &Arc<Version> {
        &self.pinned.version
    }

    /// What `now()` is in this session.
    pub fn now(&self) -> Timestamp {
        self.pinned.now
    }

    /// What the session was opened with.
    pub fn options(&self) -> &SessionOptions {
        &self.pinned.options
    }

    /// The database whose measurements are the tables.
    pub fn database(&self) -> &Arc<str> {
        &self.pinned.options.database
    }

    /// How fresh the answers of aggregates are.
    pub fn freshness(&self) -> Freshness {
        self.pinned.options.freshness
    }

    /// Whether the statement being planned contains the identifier `word`, so that a table may
    /// have columns that are there only for those who name them.
    pub fn mentions(&self, word: &str) -> bool {
        self.words.as_ref().is_some_and(|words| words.contains(word))
    }

    /// A planner with this session's tables and clock.
    pub fn state(&self) -> SessionState {
        self.planner(self.engine().template())
    }

    /// The same for plans that are put together to be run as they are, not written by somebody:
    /// with few rules, so that planning is quick.
    pub fn lean_state(&self) -> SessionState {
        self.planner(self.engine().lean())
    }

    /// How many streams a statement runs side by side.
    pub fn partitions(&self) -> usize {
        let usual = || self.engine().template().config().target_partitions();
        self.options().partitions.map_or_else(usual, |partitions| partitions.max(1))
    }

    fn planner(&self, template: &SessionState) -> SessionState {
        let mut state = template.clone();
        state.register_catalog_list(Arc::new(Catalogs::new(self.clone())));
        for extension in self.engine().extensions() {
            for (name, function) in extension.table_functions(self) {
                state.register_udtf(&name, function);
            }
        }
        if self.options().partitions.is_some() {
            state.config_mut().options_mut().execution.target_partitions = self.partitions();
        }
        let now = DateTime::from_timestamp_nanos(self.now().as_nanos());
        let mut props = ExecutionProps::new().with_query_execution_start_time(now);
        props.config_options = Some(Arc::clone(state.config_options()));
        *state.execution_props_mut() = props;
        state
    }

    /// A measurement as a table, within `limits`. Expired points are left out unless the
    /// session shows them.
    ///
    /// # Errors
    /// [`QueryError::NoSuchTable`] if there is none, in whichever kind.
    pub fn measurement_table(
        &self,
        id: &MeasurementId,
        limits: ScanFilter,
    ) -> Result<Arc<dyn TableProvider>, QueryError> {
        Ok(Arc::new(self.table_within(id, limits)?))
    }

    /// The measurement that a query names.
    pub(crate) fn named_table(
        &self,
        id: &MeasurementId,
    ) -> Result<Arc<dyn TableProvider>, QueryError> {
        let table = self.table_within(id, ScanFilter::all())?;
        Ok(Arc::new(if self.replaces { table.replaceable() } else { table }))
    }

    fn table_within(
        &self,
        id: &MeasurementId,
        mut limits: ScanFilter,
    ) -> Result<MeasurementTable, QueryError> {
        let Some(measurement) = self.version().measurement(id) else {
            return Err(QueryError::NoSuchTable {
                table: id.measurement.to_string(),
                close: Vec::new(),
            });
        };
        if let Some(horizon) = self.horizon(id) {
            limits.times = limits.times.intersect(&TimeRange::since(horizon).into());
        }
        Ok(MeasurementTable::new(self.clone(), Arc::clone(measurement), limits))
    }

    /// Points before this instant are not seen.
    fn horizon(&self, id: &MeasurementId) -> Option<Timestamp> {
        let hides = !self.options().show_expired;
        self.version().horizon(id, self.now()).filter(|_| hides)
    }

    /// Answers a statement.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] and its like if the statement cannot be planned. Errors of the
    /// computation itself may also come out of the stream.
    pub async fn sql(&self, sql: &str, params: Params) -> Result<QueryResult, QueryError> {
        let limits = self.engine().limits();
        let (parsed, words) = statement::parse(sql, limits)?;
        if self.options().read_only && !parsed.only_reads() {
            let reason = "this request may only read, and the statement would change something";
            return Err(QueryError::Invalid(reason.to_owned()));
        }
        let session = QuerySession { words: Some(Arc::new(words)), ..self.clone() };
        match parsed {
            Parsed::Query(query) => {
                let session = session.replacing();
                let state = session.state();
                let plan = session.plan_statement(&state, query).await?;
                session.run(&state, &params.bind(plan)?).await
            }
            Parsed::Delete(statement) => delete::delete(&session, statement, &params).await,
            Parsed::Insert(statement) => insert::insert(&session, statement, &params).await,
            Parsed::Other { .. } if !params.is_empty() => {
                Err(QueryError::unsupported("a parameter in this kind of statement"))
            }
            Parsed::Other { name, statement } => session.extended(&name, &statement).await,
        }
    }

    /// The same session, which answers from elsewhere than the tables that a query names if it may.
    fn replacing(self) -> Self {
        let replaces = self.options().rewrite != Rewrite::Off;
        QuerySession { replaces, ..self }
    }

    /// The plan of a query, not optimized yet: views and definitions are made of these.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] and its like if it is not a query or cannot be planned.
    pub async fn plan(&self, sql: &str) -> Result<LogicalPlan, QueryError> {
        let (parsed, words) = statement::parse(sql, self.engine().limits())?;
        let session = QuerySession { words: Some(Arc::new(words)), ..self.clone() };
        match parsed {
            Parsed::Query(query) => session.plan_statement(&session.state(), query).await,
            _ => Err(QueryError::Invalid("this is not a query".to_owned())),
        }
    }

    /// Runs a plan.
    ///
    /// # Errors
    /// If it cannot be planned for execution.
    pub async fn execute(&self, plan: &LogicalPlan) -> Result<QueryResult, QueryError> {
        self.run(&self.state(), plan).await
    }

    /// A plan, optimized and ready to run.
    ///
    /// # Errors
    /// If it cannot be planned for execution.
    pub async fn physical_plan(
        &self,
        plan: &LogicalPlan,
    ) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
        self.state().create_physical_plan(plan).await.map_err(QueryError::while_planning)
    }

    pub(crate) async fn run(
        &self,
        state: &SessionState,
        plan: &LogicalPlan,
    ) -> Result<QueryResult, QueryError> {
        let optimized = state.optimize(plan).map_err(QueryError::while_planning)?;
        let remarks = self.remarks(&optimized)?;
        let planner = state.query_planner();
        let physical = planner.create_physical_plan(&optimized, state).await;
        let physical = physical.map_err(QueryError::while_planning)?;
        let batches = execute_stream(physical, state.task_ctx()).map_err(QueryError::from)?;
        explain::with_remarks(QueryResult { schema: batches.schema(), batches }, &remarks)
    }

    /// What extensions say about an optimized plan that is to be explained, or that has to be
    /// answered from elsewhere than the tables it names.
    fn remarks(&self, optimized: &LogicalPlan) -> Result<Vec<String>, QueryError> {
        let is_explained = explain::is_explained(optimized);
        if !self.replaces || !is_explained && self.options().rewrite != Rewrite::Require {
            return Ok(Vec::new());
        }
        let extensions = self.engine().extensions().iter();
        let remarks = extensions.map(|extension| extension.remarks(self, optimized));
        let remarks = remarks.collect::<Result<Vec<_>, _>>()?.concat();
        Ok(if is_explained { remarks } else { Vec::new() })
    }

    pub(crate) async fn plan_statement(
        &self,
        state: &SessionState,
        mut query: PlannedStatement,
    ) -> Result<LogicalPlan, QueryError> {
        table_functions::join_names(&mut query);
        if let Some(statement) = statement::innermost(&query) {
            let is_scalar = |name: &str| state.scalar_functions().contains_key(name);
            refuse_ignored(statement, &is_scalar)?;
        }
        let planned = state.statement_to_plan(query).await;
        planned.map_err(|error| self.explain_missing(QueryError::while_planning(error)))
    }

    async fn extended(&self, name: &str, statement: &Statement) -> Result<QueryResult, QueryError> {
        if let Some(result) = views::statement(self, statement).await? {
            return Ok(result);
        }
        for extension in self.engine().extensions() {
            if let Some(result) = extension.statement(self, statement).await? {
                return Ok(result);
            }
        }
        Err(QueryError::unsupported(name))
    }

    /// Turns the planner's message about a missing table into an error that knows which.
    fn explain_missing(&self, error: QueryError) -> QueryError {
        let QueryError::Invalid(message) = &error else { return error };
        let missing = message
            .strip_prefix("table '")
            .and_then(|rest| rest.strip_suffix("' not found"))
            .map(|name| TableReference::parse_str_normalized(name, true));
        match missing {
            Some(name) => {
                let table = match name.schema() {
                    Some(schema) if schema != PUBLIC => format!("{schema}.{}", name.table()),
                    _ => name.table().to_owned(),
                };
                let close = Catalogs::new(self.clone()).names_like(name.table());
                QueryError::NoSuchTable { table, close }
            }
            None => error,
        }
    }
}
