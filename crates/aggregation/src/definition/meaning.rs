//! What the stored partials of an aggregate depend on, and nothing else of its definition.

use std::sync::Arc;

use highwater_core::{Bucket, MeasurementId};

use super::{Definition, GroupBy, OutputRule, Source};
use crate::pieces::Pieces;

/// Which points go into which partials.
///
/// Two definitions with the same layout and the same outputs have the same stored partials. Order on
/// read, limits, schedules, retention and lateness are no part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// How rows are made and cut, whatever they hold.
    pub(crate) layout: Layout,
    outputs: Vec<OutputRule>,
}

/// Which rows there are, and which points each is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    source: Source,
    root: MeasurementId,
    bucket: Option<Bucket>,
    pieces: Pieces,
    time_column: Option<Arc<str>>,
    group_by: GroupBy,
    /// Conditions of the aggregate and of those that it reads, its own first.
    filters: Vec<Arc<str>>,
}

impl Meaning {
    /// The meaning of a definition among others; `find` knows them by name.
    pub(crate) fn of<'a>(
        definition: &'a Definition,
        find: &dyn Fn(&str) -> Option<&'a Definition>,
    ) -> Self {
        let parent = |one: &&'a Definition| find(&one.parent()?.name);
        let chain = std::iter::successors(Some(definition), parent);
        let layout = Layout {
            source: definition.source.clone(),
            root: definition.root.clone(),
            bucket: definition.bucket,
            pieces: definition.pieces,
            time_column: definition.time_column.clone(),
            group_by: definition.group_by.clone(),
            filters: chain.filter_map(|one| one.filter.clone()).collect(),
        };
        Meaning { layout, outputs: definition.outputs.clone() }
    }

    /// Whether rows that were stored for `other` can be read as rows of this, whatever points they
    /// were made of and whichever outputs they lack.
    pub(crate) fn reads_rows_of(&self, other: &Meaning) -> bool {
        let filters = Vec::clone(&self.layout.filters);
        self.layout == Layout { filters, ..other.layout.clone() }
    }

    /// Whether everything this needs is in partials that were stored for `other`.
    pub(crate) fn is_part_of(&self, other: &Meaning) -> bool {
        self.layout == other.layout && self.outputs.iter().all(|own| other.outputs.contains(own))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AggregateRule, compile_all};
    use super::*;

    fn rule(json: &str) -> (Arc<str>, AggregateRule) {
        ("t".into(), serde_json::from_str(json).unwrap())
    }

    /// The meaning of the last of these rules.
    fn meaning(rules: &[&str]) -> Meaning {
        let rules: Vec<_> = rules.iter().map(|json| rule(json)).collect();
        let definitions = compile_all(&rules).unwrap();
        let find = |name: &str| definitions.iter().find(|one| *one.id.name == *name);
        Meaning::of(find(&rules.last().unwrap().1.name).unwrap(), &find)
    }

    const PARENT: &str = r#"{"name":"p","source":"m","interval":"1m","group_by":["host"],
        "aggregations":[{"field":"v","function":["max","mean"]}]}"#;
    const CHILD: &str = r#"{"name":"c","source":"p","interval":"1h"}"#;

    fn changed(text: &str, from: &str, to: &str) -> String {
        assert!(text.contains(from));
        text.replace(from, to)
    }

    #[test]
    fn what_only_concerns_reads_and_schedules_is_no_part_of_it() {
        let before = meaning(&[PARENT]);
        let more = r#","retention":"30d","allowed_lateness":"1m","limit":3,
            "order_by":[{"column":"v_max"}],"freshness":"materialized","enabled":false}"#;
        assert_eq!(meaning(&[&format!("{}{more}", &PARENT[..PARENT.len() - 1])]), before);
    }

    #[test]
    fn fewer_outputs_are_a_part_and_more_are_not() {
        let (both, one) = (meaning(&[PARENT]), changed(PARENT, r#"["max","mean"]"#, r#""max""#));
        let one = meaning(&[&one]);
        assert!(one.is_part_of(&both) && !both.is_part_of(&one));
        let other = meaning(&[&changed(PARENT, "1m", "2m")]);
        assert!(!other.is_part_of(&both) && !both.is_part_of(&other));
    }

    #[test]
    fn a_child_means_what_its_parent_lets_through() {
        let before = meaning(&[PARENT, CHILD]);
        let with_parent = |from, to| meaning(&[&changed(PARENT, from, to), CHILD]);
        assert_eq!(with_parent("1m", "5m"), before, "merged to the same hours");
        let some = with_parent(r#""group_by""#, r#""where":"v > 1","group_by""#);
        assert!(!some.is_part_of(&before) && some.reads_rows_of(&before));
        assert_ne!(with_parent(r#"["host"]"#, r#"["host","dc"]"#), before, "inherited groups");
        assert!(before.is_part_of(&with_parent(r#""mean"]"#, r#""mean","min"]"#)));
    }
}
