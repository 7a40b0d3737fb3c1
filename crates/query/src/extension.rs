//! The seam: how layers above add tables, functions, planner rules and statements.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{TableFunctionImpl, TableProvider};
use datafusion::logical_expr::{AggregateUDF, LogicalPlan, ScalarUDF, WindowUDF};
use datafusion::optimizer::{AnalyzerRule, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_planner::ExtensionPlanner;
use highwater_core::{Condition, MeasurementId};
use highwater_storage::LatePoints;

use crate::error::QueryError;
use crate::session::{QueryResult, QuerySession};
use crate::statement::Statement;

/// What a layer above adds to the query engine.
#[async_trait]
pub trait Extension: Send + Sync + Debug {
    /// Adds functions and rules, once per engine.
    fn register(&self, registry: &mut Registry) {
        let _ = registry;
    }

    /// Schemas of this extension beside `public`.
    fn schemas(&self, session: &QuerySession) -> Vec<String> {
        let _ = session;
        Vec::new()
    }

    /// Names of its tables in a schema, as `SHOW TABLES` lists them.
    fn tables(&self, session: &QuerySession, schema: &str) -> Vec<String> {
        let _ = (session, schema);
        Vec::new()
    }

    /// A table, if this extension has it; `schema` is `public` for an unqualified name.
    /// Measurements come first.
    async fn table(
        &self,
        session: &QuerySession,
        schema: &str,
        name: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>, QueryError> {
        let _ = (session, schema, name);
        Ok(None)
    }

    /// Functions that are tables, by name; one of a schema has it in front: `system.name`.
    fn table_functions(&self, session: &QuerySession) -> Vec<(String, Arc<dyn TableFunctionImpl>)> {
        let _ = session;
        Vec::new()
    }

    /// What its rules made of the optimized plan of a query, as `EXPLAIN` shows it. Asked only for
    /// a plan that is explained, and for one that has to be answered from elsewhere than its tables.
    ///
    /// # Errors
    /// Why the plan is none that the session takes.
    fn remarks(
        &self,
        session: &QuerySession,
        optimized: &LogicalPlan,
    ) -> Result<Vec<String>, QueryError> {
        let _ = (session, optimized);
        Ok(Vec::new())
    }

    /// Carries out a statement that is not a query, `DELETE` or `INSERT`; `None` if it is not
    /// for this extension.
    async fn statement(
        &self,
        session: &QuerySession,
        statement: &Statement,
    ) -> Result<Option<QueryResult>, QueryError> {
        let _ = (session, statement);
        Ok(None)
    }

    /// What becomes of points of a measurement that are older than its retention; the first
    /// extension that has an opinion decides.
    fn late_points(&self, session: &QuerySession, measurement: &str) -> Option<LatePoints> {
        let _ = (session, measurement);
        None
    }

    /// Asked before points are deleted. `condition` says what their times and tags are; unless
    /// `is_all`, they have to meet more than that.
    ///
    /// # Errors
    /// A reason why they must not be; nothing is deleted then.
    async fn delete(
        &self,
        session: &QuerySession,
        id: &MeasurementId,
        condition: &Condition,
        is_all: bool,
    ) -> Result<Deleting, QueryError> {
        let _ = (session, id, condition, is_all);
        Ok(Deleting::PointsOnly)
    }
}

/// What an [`Extension`] makes of a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleting {
    /// It is about points alone, which are still to be deleted.
    PointsOnly,
    /// More depended on it. All of it is deleted, the points too.
    Done,
}

/// What an [`Extension`] registers with every session.
#[derive(Default)]
pub struct Registry {
    /// Functions of one row; they replace others of the same name.
    pub scalar_functions: Vec<Arc<ScalarUDF>>,
    /// Functions of many rows; they replace others of the same name.
    pub aggregate_functions: Vec<Arc<AggregateUDF>>,
    /// Names of the aggregate functions whose answer is the one column of their state.
    pub partial_functions: BTreeSet<String>,
    /// Names of those functions `f(x, time)` that need of every series the newest `x` only.
    pub last_functions: BTreeSet<String>,
    /// Functions over windows; they replace others of the same name.
    pub window_functions: Vec<Arc<WindowUDF>>,
    /// Run after DataFusion's analyzer rules, on plans with all types coerced.
    pub analyzer_rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>>,
    /// Run before DataFusion's optimizer rules: filters stand where SQL put them.
    pub first_optimizer_rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>,
    /// Run when filters have been pushed into scans, and before aggregates are taken apart.
    pub pushed_optimizer_rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>,
    /// Run after DataFusion's optimizer rules: filters are pushed into scans.
    pub last_optimizer_rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>,
    /// Run after DataFusion's physical optimizer rules.
    pub physical_rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>,
    /// Plan extension nodes.
    pub planners: Vec<Arc<dyn ExtensionPlanner + Send + Sync>>,
}
