//! The folder of rule files, and making what it says the rules in force.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_aggregation::{
    AggregateRule, Aggregates, AggregationError, AppliedRules, Origin, RulePlan, Rules,
};
use highwater_core::ErrorKind;

/// Why rule files could not be applied; nothing of them is in force then.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The folder or a file in it cannot be read.
    #[error("could not read the rules in {path}")]
    Read {
        /// The folder or the file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The rules are wrong, or contradict what exists.
    #[error(transparent)]
    Aggregation(#[from] AggregationError),
}

impl RulesError {
    /// What the caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RulesError::Read { .. } => ErrorKind::Invalid,
            RulesError::Aggregation(error) => error.kind(),
        }
    }
}

/// Name and text of every `*.yml` and `*.yaml` in a folder, in order of their names.
///
/// # Errors
/// [`RulesError::Read`] if the folder or a file in it cannot be read.
pub fn read_folder(folder: &Path) -> Result<Vec<(String, String)>, RulesError> {
    let unreadable = |source| RulesError::Read { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_rules = path.extension().is_some_and(|kind| kind == "yml" || kind == "yaml");
        if is_rules && path.is_file() {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| RulesError::Read { path: path.clone(), source })?;
            files.push((path.display().to_string(), text));
        }
    }
    files.sort();
    Ok(files)
}

/// Makes the rules of a folder those in force, all of them or none.
///
/// # Errors
/// [`RulesError`]
pub async fn apply_folder(
    aggregates: &Aggregates,
    folder: &Path,
) -> Result<AppliedRules, RulesError> {
    apply_files(aggregates, read_folder(folder)?).await
}

/// Makes the rules of files, given as name and text, those in force, all of them or none.
///
/// # Errors
/// [`RulesError::Aggregation`]
pub async fn apply_files(
    aggregates: &Aggregates,
    files: Vec<(String, String)>,
) -> Result<AppliedRules, RulesError> {
    let rules = Rules::load_beside(files, &made_by_requests(aggregates)?)
        .map_err(AggregationError::Rules)?;
    let applied = aggregates.apply_rules(&rules).await?;
    let AppliedRules { added, changed, detached, .. } = &applied;
    let (added, changed, detached) = (added.len(), changed.len(), detached.len());
    tracing::info!(added, changed, detached, "applied the rule files");
    Ok(applied)
}

/// What [`apply_files`] would do; changes nothing.
///
/// # Errors
/// [`RulesError::Aggregation`] if what is stored cannot be read; wrong rules are part of the plan.
pub async fn plan_files(
    aggregates: &Aggregates,
    files: Vec<(String, String)>,
) -> Result<RulePlan, RulesError> {
    match Rules::load_beside(files, &made_by_requests(aggregates)?) {
        Ok(rules) => Ok(aggregates.plan_rules(&rules).await?),
        Err(problems) => Ok(RulePlan::refused(problems)),
    }
}

/// Aggregates that rule files may read although no rule file has them.
fn made_by_requests(
    aggregates: &Aggregates,
) -> Result<Vec<(Arc<str>, AggregateRule)>, AggregationError> {
    let version = aggregates.engine().version();
    let mut made = Vec::new();
    for database in version.databases() {
        let all = aggregates.list(database)?.into_iter();
        let own = all.filter(|one| one.origin == Origin::Api && one.status != "detached");
        made.extend(own.map(|one| (Arc::clone(database), one.wanted_definition().clone())));
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_files_are_read_in_order_and_others_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.yaml", "notes.md"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::fs::create_dir(folder.path().join("old.yml")).unwrap();
        let texts: Vec<String> =
            read_folder(folder.path()).unwrap().into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["a.yaml", "b.yml"]);
        assert!(read_folder(&folder.path().join("none")).is_err());
    }
}
