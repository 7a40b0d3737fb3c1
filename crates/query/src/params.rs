//! Parameters of a statement: bound as values, never spliced into its text.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::LogicalPlan;

use crate::error::QueryError;

/// Values for the placeholders of a statement.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Params {
    /// The statement has no placeholders.
    #[default]
    None,
    /// `$1` is the first.
    Positional(Vec<ScalarValue>),
    /// `$name`, keyed without the dollar sign.
    Named(BTreeMap<String, ScalarValue>),
}

impl Params {
    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        match self {
            Params::None => true,
            Params::Positional(values) => values.is_empty(),
            Params::Named(values) => values.is_empty(),
        }
    }

    /// Placeholders that these values are for.
    fn names(&self) -> BTreeSet<String> {
        match self {
            Params::None => BTreeSet::new(),
            Params::Positional(values) => (1..=values.len()).map(|i| format!("${i}")).collect(),
            Params::Named(values) => values.keys().map(|name| format!("${name}")).collect(),
        }
    }

    /// `plan` with its placeholders replaced.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] naming a placeholder without value or a value without placeholder.
    pub(crate) fn bind(&self, plan: LogicalPlan) -> Result<LogicalPlan, QueryError> {
        let wanted = plan.get_parameter_names().map_err(QueryError::while_planning)?;
        let wanted: BTreeSet<String> = wanted.into_iter().collect();
        let given = self.names();
        if let Some(unbound) = wanted.difference(&given).next() {
            return Err(QueryError::Invalid(format!("parameter {unbound} has no value")));
        }
        if let Some(unused) = given.difference(&wanted).next() {
            return Err(QueryError::Invalid(format!(
                "there is a value for parameter {unused}, which the statement does not use"
            )));
        }
        let values = match self {
            _ if wanted.is_empty() => return Ok(plan),
            Params::None => return Ok(plan),
            Params::Positional(values) => {
                ParamValues::List(values.iter().cloned().map(ScalarAndMetadata::from).collect())
            }
            Params::Named(values) => ParamValues::Map(
                values.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect(),
            ),
        };
        plan.with_param_values(values).map_err(QueryError::while_planning)
    }
}
