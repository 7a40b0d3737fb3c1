//! What applying rules would change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::definition::{AggregateId, AggregateRule, Definition};

/// The difference between the aggregates that rules ask for and those that exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New ones, sources first.
    pub added: Vec<Definition>,
    /// Those that exist with another definition: the new ones, sources first.
    pub changed: Vec<Changed>,
    /// Those that no rule asks for any more, by name; they are detached, their data stays.
    pub removed: Vec<AggregateId>,
    /// Those that stay as they are, by name.
    pub same: Vec<AggregateId>,
}

/// An aggregate whose definition changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// What it shall be.
    pub definition: Definition,
    /// The keys of its rule that differ; none if only its source changed.
    pub keys: Vec<String>,
}

impl Changes {
    /// From `current` to `wanted`.
    pub fn between<'a>(
        current: impl IntoIterator<Item = &'a Definition>,
        wanted: impl IntoIterator<Item = &'a Definition>,
    ) -> Self {
        let mut left: BTreeMap<&AggregateId, &Definition> =
            current.into_iter().map(|definition| (&definition.id, definition)).collect();
        let mut changes = Changes::default();
        for definition in wanted {
            match left.remove(&definition.id) {
                None => changes.added.push(definition.clone()),
                Some(present) if present == definition => changes.same.push(present.id.clone()),
                Some(present) => changes.changed.push(Changed {
                    definition: definition.clone(),
                    keys: differing_keys(&present.rule, &definition.rule),
                }),
            }
        }
        changes.same.sort();
        changes.removed = left.into_keys().cloned().collect();
        changes
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

fn differing_keys(one: &AggregateRule, other: &AggregateRule) -> Vec<String> {
    let [one, other] = [one, other].map(|rule| match serde_json::to_value(rule) {
        Ok(serde_json::Value::Object(keys)) => keys,
        _ => serde_json::Map::new(),
    });
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    keys.into_iter().filter(|key| one.get(*key) != other.get(*key)).cloned().collect()
}

impl fmt::Display for Changes {
    /// One line per change; nothing if there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for definition in &self.added {
            writeln!(f, "+ {}", definition.id)?;
        }
        for Changed { definition, keys } in &self.changed {
            match keys.is_empty() {
                true => writeln!(f, "~ {} (its source changes)", definition.id)?,
                false => writeln!(f, "~ {} ({})", definition.id, keys.join(", "))?,
            }
        }
        for id in &self.removed {
            writeln!(f, "- {id} (detached, its data stays)")?;
        }
        Ok(())
    }
}
