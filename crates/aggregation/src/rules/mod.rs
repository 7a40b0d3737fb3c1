//! Rule files: all definitions of a server, validated as a whole before anything is applied.
//!
//! The keys are described in `docs/rules.md`. Reading order: `file` (what may stand in a file),
//! `loading` (from text to definitions), [`set`] and [`downsampling`] (rules that stand for
//! aggregates), `place` (lines of errors), [`changes`] (what applying them would do).

mod builder;
pub mod changes;
pub mod downsampling;
mod file;
mod loading;
mod place;
pub mod set;

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_core::Column;
use highwater_storage::RetentionRule;

pub use builder::DownsampleBuilder;
pub use changes::{Changed, Changes};
pub use downsampling::DownsamplingRule;

use crate::definition::{AggregateId, AggregateRule, Definition, DefinitionError};
use loading::Loading;

/// The rules of all files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Rules by the name of their database.
    pub databases: BTreeMap<Arc<str>, DatabaseRules>,
    /// Where the aggregates stand.
    pub places: BTreeMap<AggregateId, Place>,
}

/// Where in the rule files something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the file.
    pub file: Arc<str>,
    /// Line in it, counted from 1.
    pub line: Option<u64>,
}

/// The rules of one database.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatabaseRules {
    /// Columns that exist before any point has them.
    pub measurements: Vec<MeasurementRule>,
    /// Aggregates, sources first.
    pub definitions: Vec<Definition>,
    /// How long points are kept.
    pub retention: Vec<RetentionRule>,
}

/// Columns declared for a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasurementRule {
    /// Name of the measurement.
    pub name: Arc<str>,
    /// Its declared columns, all of them timestamps.
    pub columns: Vec<Column>,
}

impl Rules {
    /// Reads and validates rule files, given as name and text, in order of their names.
    ///
    /// # Errors
    /// Everything that is wrong, each with its file and line; of a file that cannot be read, the
    /// first thing.
    pub fn load(
        files: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Rules, Vec<DefinitionError>> {
        Rules::load_beside(files, &[])
    }

    /// [`Rules::load`], where rules may read aggregates that exist without a rule file: `others`,
    /// each with its database. Of two with one name the one in a file counts. The result has those
    /// of the files only.
    ///
    /// # Errors
    /// As [`Rules::load`]; those of `others` are without file.
    pub fn load_beside(
        files: impl IntoIterator<Item = (String, String)>,
        others: &[(Arc<str>, AggregateRule)],
    ) -> Result<Rules, Vec<DefinitionError>> {
        let mut files: Vec<(String, String)> = files.into_iter().collect();
        files.sort();
        let mut loading = Loading::default();
        for (name, text) in &files {
            loading.read(name, text);
        }
        loading.finish(others)
    }

    /// All aggregates, sources before what reads them.
    pub fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.databases.values().flat_map(|database| &database.definitions)
    }

    /// What applying these rules would change, where `current` are the aggregates that came from
    /// rule files before (others are nobody's to remove).
    pub fn diff<'a>(&'a self, current: impl IntoIterator<Item = &'a Definition>) -> Changes {
        Changes::between(current, self.definitions())
    }
}

#[cfg(test)]
mod tests;
