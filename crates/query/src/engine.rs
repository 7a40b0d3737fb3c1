//! What all sessions share: storage, extensions, and a planner set up once.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result as PlanResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::ensure_requirements::EnsureRequirements;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;
use highwater_storage::{Engine, Version};

use crate::error::QueryError;
use crate::extension::{Extension, Registry};
use crate::functions;
use crate::functions::checked::CheckedIntegers;
use crate::gapfill_exec::GapFillPlanner;
use crate::grouping::GroupRuns;
use crate::limits::Limits;
use crate::options::SessionOptions;
use crate::rules::correlation::CorrelatedAggregates;
use crate::rules::gapfill::FillGaps;
use crate::rules::in_subquery::InSubqueries;
use crate::rules::last_points::LastPoints;
use crate::session::QuerySession;

/// Name of the only catalog.
pub const CATALOG: &str = "highwater";
/// Name of the schema with the measurements of the session's database.
pub const PUBLIC: &str = "public";

/// Answers SQL over one storage engine; cheap to clone.
#[derive(Clone)]
pub struct QueryEngine(Arc<Shared>);

struct Shared {
    storage: Engine,
    extensions: Vec<Arc<dyn Extension>>,
    limits: Limits,
    /// Functions, rules and settings; sessions start as a clone of it.
    template: SessionState,
    /// The same with few rules.
    lean: SessionState,
}

impl fmt::Debug for QueryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryEngine").field("extensions", &self.0.extensions).finish()
    }
}

impl QueryEngine {
    /// Starts an engine over `storage`.
    pub fn builder(storage: Engine) -> QueryEngineBuilder {
        QueryEngineBuilder { storage, extensions: Vec::new(), limits: Limits::default() }
    }

    /// A session that sees the newest version of the data, from now on unchanged.
    pub fn session(&self, options: SessionOptions) -> QuerySession {
        self.session_at(self.0.storage.version(), options)
    }

    /// A session that sees this version of the data.
    pub fn session_at(&self, version: Arc<Version>, options: SessionOptions) -> QuerySession {
        QuerySession::new(self.clone(), version, options)
    }

    /// The storage below.
    pub fn storage(&self) -> &Engine {
        &self.0.storage
    }

    /// The extensions, in the order they are asked.
    pub fn extensions(&self) -> &[Arc<dyn Extension>] {
        &self.0.extensions
    }

    /// Limits of every statement.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    pub(crate) fn template(&self) -> &SessionState {
        &self.0.template
    }

    pub(crate) fn lean(&self) -> &SessionState {
        &self.0.lean
    }
}

/// Puts a [`QueryEngine`] together.
#[derive(Debug)]
pub struct QueryEngineBuilder {
    storage: Engine,
    extensions: Vec<Arc<dyn Extension>>,
    limits: Limits,
}

impl QueryEngineBuilder {
    /// Adds an extension; extensions are asked in this order.
    #[must_use]
    pub fn extend(mut self, extension: Arc<dyn Extension>) -> Self {
        self.extensions.push(extension);
        self
    }

    /// Sets the limits of every statement.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The engine.
    ///
    /// # Errors
    /// If the memory limit is not one that can be set up.
    pub fn build(self) -> Result<QueryEngine, QueryError> {
        let mut registry = Registry::default();
        self.extensions.iter().for_each(|extension| extension.register(&mut registry));
        let lean_rules = lean_rules(&registry);
        let template = template(registry, self.limits)?;
        let lean = SessionStateBuilder::new_from_existing(template.clone())
            .with_optimizer_rules(lean_rules);
        let mut lean = lean.build();
        lean.config_mut().options_mut().optimizer.max_passes = 1;
        let QueryEngineBuilder { storage, extensions, limits } = self;
        Ok(QueryEngine(Arc::new(Shared { storage, extensions, limits, template, lean })))
    }
}

/// A planner with all functions of SQL and without tables, for expressions that stand alone.
///
/// # Errors
/// Those of setting it up.
pub fn expression_planner() -> Result<SessionState, QueryError> {
    template(Registry::default(), Limits::default())
}

fn template(registry: Registry, limits: Limits) -> Result<SessionState, QueryError> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_limit(limits.memory_bytes, 1.0)
        .build_arc()
        .map_err(QueryError::from)?;
    let mut optimizer = Optimizer::new().rules;
    optimizer.insert(0, Arc::new(FillGaps));
    optimizer.splice(0..0, registry.first_optimizer_rules);
    let pushes =
        |rule: &Arc<dyn OptimizerRule + Send + Sync>| rule.name() == PushDownFilter::new().name();
    let pushed = optimizer.iter().rposition(pushes).map_or(optimizer.len(), |at| at + 1);
    optimizer.splice(pushed..pushed, registry.pushed_optimizer_rules);
    optimizer.extend(registry.last_optimizer_rules);
    optimizer.push(Arc::new(LastPoints { functions: registry.last_functions }));
    let mut planners: Vec<Arc<dyn ExtensionPlanner + Send + Sync>> = vec![Arc::new(GapFillPlanner)];
    planners.extend(registry.planners);
    let mut builder = SessionStateBuilder::new_with_default_features()
        .with_config(config())
        .with_runtime_env(runtime)
        .with_optimizer_rules(optimizer)
        .with_physical_optimizer_rules(physical_rules(registry.partial_functions))
        .with_analyzer_rule(Arc::new(CorrelatedAggregates))
        .with_analyzer_rule(Arc::new(InSubqueries))
        .with_query_planner(Arc::new(Planner(planners)));
    for rule in registry.analyzer_rules {
        builder = builder.with_analyzer_rule(rule);
    }
    for rule in registry.physical_rules {
        builder = builder.with_physical_optimizer_rule(rule);
    }
    let scalars = builder.scalar_functions().get_or_insert_default();
    scalars.extend(functions::scalars().into_iter().chain(registry.scalar_functions));
    let aggregates = builder.aggregate_functions().get_or_insert_default();
    aggregates.extend(functions::aggregates().into_iter().chain(registry.aggregate_functions));
    builder.window_functions().get_or_insert_default().extend(registry.window_functions);
    let mut state = builder.build();
    for name in functions::bounded::names() {
        let inner = state.udf(name)?;
        state.register_udf(functions::bounded::bounded(inner))?;
    }
    state.register_function_rewrite(Arc::new(CheckedIntegers))?;
    Ok(state)
}

/// The logical rules that plans need which are put together to be run as they are: to read no column
/// in vain, and to leave rows out early.
fn lean_rules(registry: &Registry) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(SimplifyExpressions::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(OptimizeProjections::new()),
    ];
    rules.extend(registry.last_optimizer_rules.iter().cloned());
    rules.push(Arc::new(LastPoints { functions: registry.last_functions.clone() }));
    rules
}

/// DataFusion's physical rules, and the one that replaces its grouping of scanned rows.
fn physical_rules(partials: BTreeSet<String>) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let distributes = |rule: &Arc<dyn PhysicalOptimizerRule + Send + Sync>| {
        rule.name() == EnsureRequirements::new().name()
    };
    let before = rules.iter().position(distributes).unwrap_or(0);
    rules.insert(before, Arc::new(GroupRuns { partials }));
    rules
}

fn config() -> SessionConfig {
    let partitions = std::thread::available_parallelism().map_or(1, usize::from);
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, PUBLIC)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(partitions)
        .with_batch_size(8192);
    let parser = &mut config.options_mut().sql_parser;
    // Names of measurements and fields match exactly.
    parser.enable_ident_normalization = false;
    parser.map_string_types_to_utf8view = false;
    config
}

/// DataFusion's planner with the planners of extensions.
struct Planner(Vec<Arc<dyn ExtensionPlanner + Send + Sync>>);

impl fmt::Debug for Planner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Planner")
    }
}

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(self.0.clone());
        planner.create_physical_plan(plan, session).await
    }
}
