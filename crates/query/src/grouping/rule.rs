//! Puts [`GroupRunsExec`] where the rows of a scan are grouped.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;

use super::exec::GroupRunsExec;
use super::keys::Keys;
use super::worker::{Aggregate, Grouping};
use crate::scan_exec::MeasurementScanExec;

/// So few that their state stays in the caches, so many that few groups are met twice.
const GROUPS_AT_ONCE: usize = 32 * 1024;

/// Has to run before distribution is enforced, while both stages of a grouping are neighbours.
#[derive(Debug)]
pub(crate) struct GroupRuns {
    /// Names of the aggregates whose answer is their state.
    pub(crate) partials: BTreeSet<String>,
}

impl PhysicalOptimizerRule for GroupRuns {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let replace = |node: Arc<dyn ExecutionPlan>| {
            Ok(match self.replacement(&node) {
                Some(new) => Transformed::yes(new),
                None => Transformed::no(node),
            })
        };
        plan.transform_up(replace).data()
    }

    fn name(&self) -> &str {
        "group_runs"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

impl GroupRuns {
    fn replacement(&self, node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
        let last = node.downcast_ref::<AggregateExec>()?;
        let first = match last.mode() {
            AggregateMode::Final | AggregateMode::FinalPartitioned => {
                let first = last.input().downcast_ref::<AggregateExec>()?;
                (*first.mode() == AggregateMode::Partial).then_some(first)?
            }
            AggregateMode::Single | AggregateMode::SinglePartitioned => last,
            _ => return None,
        };
        let is_plain = |stage: &AggregateExec| stage.limit_options().is_none();
        let keys = first.group_expr();
        let is_grouped = keys.is_single() && !keys.is_empty();
        if !is_grouped || !is_plain(first) || !is_plain(last) || !returns_runs(first.input()) {
            return None;
        }
        let schema = node.schema();
        let types = schema.fields()[..keys.expr().len()].iter().map(|field| field.data_type());
        let input = first.input_schema();
        let are_same = types
            .clone()
            .zip(keys.expr())
            .all(|(own, (key, _))| key.data_type(&input).is_ok_and(|key: DataType| key == *own));
        if !are_same || !Keys::support(types) {
            return None;
        }
        let aggregates = first.aggr_expr().iter().zip(first.filter_expr()).map(|(one, filter)| {
            let is_plain = one.groups_accumulator_supported() && one.order_bys().is_empty();
            let is_partial = self.partials.contains(one.fun().name());
            let (function, filter) = (Arc::clone(one), filter.clone());
            is_plain.then_some(Aggregate { function, filter, is_partial })
        });
        let grouping = Grouping {
            keys: keys.input_exprs(),
            aggregates: aggregates.collect::<Option<_>>()?,
            schema,
            groups_at_once: GROUPS_AT_ONCE,
        };
        Some(Arc::new(GroupRunsExec::new(Arc::clone(first.input()), Arc::new(grouping))))
    }
}

/// Whether rows come out as scans return them.
fn returns_runs(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let passes_on = plan.downcast_ref::<ProjectionExec>().is_some()
        || plan.downcast_ref::<FilterExec>().is_some()
        || plan.downcast_ref::<UnionExec>().is_some();
    let is_source = plan.downcast_ref::<MeasurementScanExec>().is_some()
        || plan.downcast_ref::<GroupRunsExec>().is_some();
    is_source || (passes_on && plan.children().into_iter().all(returns_runs))
}
