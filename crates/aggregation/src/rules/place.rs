//! Where in a rule file something is said.
//!
//! A file is read twice: into rules, and into an [`Outline`] that only knows on which line each
//! key and element stands. So rules carry no positions, and every error still has its line.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use crate::definition::Step;

/// The places of everything in a YAML document.
#[derive(Debug)]
pub(super) enum Outline {
    /// A value without inner structure.
    Leaf,
    /// Elements.
    List(Vec<Spanned<Outline>>),
    /// Keys, each with the line it stands on, and values.
    Map(Vec<(String, u64, Spanned<Outline>)>),
}

impl Outline {
    /// The outline of a document that was read before.
    pub(super) fn of(text: &str) -> Self {
        let read = serde_saphyr::from_str::<Option<Outline>>(text);
        read.ok().flatten().unwrap_or(Outline::Leaf)
    }

    /// Line of what `path` leads to, or of the last step that exists; none if no step does.
    pub(super) fn line_of(&self, path: &[Step]) -> Option<u64> {
        let (step, rest) = path.split_first()?;
        let (line, inner) = self.step(step)?;
        inner.line_of(rest).or(Some(line))
    }

    /// The innermost key whose value, or an element of it, starts there.
    pub(super) fn key_at(&self, at: Location) -> Option<&str> {
        let is_there = |outline: &Spanned<Outline>| {
            let start = outline.referenced;
            (start.line(), start.column()) == (at.line(), at.column())
        };
        match self {
            Outline::Leaf => None,
            Outline::List(list) => list.iter().find_map(|element| element.value.key_at(at)),
            Outline::Map(map) => map.iter().find_map(|(key, _, value)| {
                let is_element = match &value.value {
                    Outline::List(list) => list.iter().any(is_there),
                    _ => false,
                };
                let here = (is_there(value) || is_element).then_some(key.as_str());
                value.value.key_at(at).or(here)
            }),
        }
    }

    /// Whether all steps of `path` exist.
    pub(super) fn has(&self, path: &[Step]) -> bool {
        match path.split_first() {
            None => true,
            Some((step, rest)) => self.step(step).is_some_and(|(_, inner)| inner.has(rest)),
        }
    }

    fn step(&self, step: &Step) -> Option<(u64, &Outline)> {
        match (self, step) {
            (Outline::List(list), Step::Index(at)) => {
                list.get(*at).map(|element| (element.referenced.line(), &element.value))
            }
            (Outline::Map(map), Step::Key(key)) => {
                let found = map.iter().find(|(name, ..)| **name == **key);
                found.map(|(_, line, outline)| (*line, &outline.value))
            }
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OutlineVisitor)
    }
}

struct OutlineVisitor;

impl<'de> Visitor<'de> for OutlineVisitor {
    type Value = Outline;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
        let mut keys = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            keys.push((key.value, key.referenced.line(), map.next_value()?));
        }
        Ok(Outline::Map(keys))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Outline, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            elements.push(element);
        }
        Ok(Outline::List(elements))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Outline, E> {
        Ok(Outline::Leaf)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Outline, E> {
        Ok(Outline::Leaf)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Outline, E> {
        Ok(Outline::Leaf)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Outline, E> {
        Ok(Outline::Leaf)
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Outline, E> {
        Ok(Outline::Leaf)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Outline, E> {
        Ok(Outline::Leaf)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Outline, E> {
        Ok(Outline::Leaf)
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Outline, E> {
        Ok(Outline::Leaf)
    }

    fn visit_unit<E: Error>(self) -> Result<Outline, E> {
        Ok(Outline::Leaf)
    }

    fn visit_none<E: Error>(self) -> Result<Outline, E> {
        Ok(Outline::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Outline, D::Error> {
        Outline::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(steps: &str) -> Vec<Step> {
        steps
            .split('.')
            .map(|step| step.parse::<usize>().map_or_else(|_| step.into(), Step::from))
            .collect()
    }

    #[test]
    fn keys_and_elements_have_lines() {
        let text = "\
# a comment
databases:
  t:
    aggregates:
      - name: a     # line 5
        limit: 3
        refresh:
          every: 5m
      - {name: b, group_by: [host,
         region]}
    empty:
";
        let outline = Outline::of(text);
        for (steps, line) in [
            ("databases", 2),
            ("databases.t.aggregates", 4),
            ("databases.t.aggregates.0", 5),
            ("databases.t.aggregates.0.limit", 6),
            ("databases.t.aggregates.0.refresh.every", 8),
            ("databases.t.aggregates.1.group_by.1", 10),
            ("databases.t.aggregates.1.nothing", 9),
            ("databases.t.empty", 11),
        ] {
            assert_eq!(outline.line_of(&path(steps)), Some(line), "{steps}");
        }
        assert_eq!(outline.line_of(&path("nothing")), None);
        assert!(outline.has(&path("databases.t.aggregates.0.limit")));
        assert!(!outline.has(&path("databases.t.aggregates.1.limit")));
    }
}
