//! What a rule says: the same keys in YAML rule files, in JSON and in the bodies of the API.
//!
//! These structs hold the words as written; [`Definition`](super::Definition) is what they mean.
//! A key is either honoured or refused by name; an unknown one is an error.

use serde::de::{self, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::DefinitionError;

/// One continuous aggregate.
///
/// Serialized without the keys that were not given, so that the body of a GET, posted elsewhere,
/// is the identical definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregateRule {
    /// The table that SQL sees: `name`, or `set.name` for a member of a set.
    #[serde(default)]
    pub name: String,
    /// A measurement or another aggregate.
    #[serde(default)]
    pub source: String,
    /// Width of the buckets (`10s`, `1h`, `1d`, `1w`, `1mo`, ..); none for all time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// The declared timestamp field whose value is bucketed, or `time` (default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_column: Option<String>,
    /// Tags or fields, or `"*"` for all tags. Omitted: one group; over an aggregate: its groups.
    #[serde(default, with = "group_by", skip_serializing_if = "Option::is_none")]
    pub group_by: Option<Vec<String>>,
    /// A condition in SQL that points must meet.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// What is computed. Omitted over an aggregate: everything that one computes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aggregations: Vec<AggregationRule>,
    /// Order of the rows on read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order_by: Vec<OrderRule>,
    /// Only so many rows, after ordering, on read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// How late a point may come before its bucket closes (default `0s`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_lateness: Option<String>,
    /// When stored partials are brought up to date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<RefreshRule>,
    /// Where stored partials live: `durable` (default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// How long the aggregate's own buckets are kept; none for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
    /// What becomes of points older than the source's retention: `reject` (default) or
    /// `drop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_after_retention: Option<String>,
    /// Most groups in a stored piece: a bucket, or a day of longer ones (default 1000000).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_groups: Option<u64>,
    /// What reads see unless they ask otherwise: `exact` (default), `materialized` or
    /// `max_staleness 10m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freshness: Option<String>,
    /// Whether scheduled refreshes run (default true).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Time zone whose clocks buckets follow, such as `Europe/Berlin` (default UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// How much later buckets start, in civil time, such as `6h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<String>,
    /// First day of weeks: `monday` (default) or `sunday`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub week_start: Option<String>,
    /// Instead of a name: this is a set, a block of aggregates of one source.
    #[serde(skip_serializing)]
    pub set: Option<String>,
    /// The aggregates of a set.
    #[serde(default, skip_serializing)]
    pub aggregates: Vec<AggregateRule>,
}

impl AggregateRule {
    /// Reads the JSON of a rule.
    ///
    /// # Errors
    /// What is wrong with it; also keys that no rule has.
    pub fn from_json(text: &str) -> Result<Self, DefinitionError> {
        serde_json::from_str(text).map_err(|error| DefinitionError::from_json(&error))
    }
}

/// Functions of one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregationRule {
    /// A field or tag, or `"*"` for every field of a fitting type. Only `count` does without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// One function, or a list of them.
    #[serde(default, with = "one_or_many")]
    pub function: Vec<String>,
    /// Name of the output (default `<field>_<function>`); `"*"` is the field's own name.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}

/// One column to order by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRule {
    /// An output or a group column.
    pub column: String,
    /// Greatest first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub desc: bool,
}

/// When stored partials are brought up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshRule {
    /// `realtime`, `periodic` (default), `on_demand` or `hybrid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Period of `periodic` (default `5m`) and `hybrid` (default `15m`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// From a commit to the refresh under `realtime` and `hybrid` (default `100ms`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debounce: Option<String>,
    /// Fields that count at once under `hybrid`.
    #[serde(default, with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub critical: Vec<String>,
}

/// The value of a key that a later version will honour: its presence is refused by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later;

impl<'de> Deserialize<'de> for Later {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Later)
    }
}

/// A text or a list of texts.
struct Texts(Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts, E> {
        Ok(Texts(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element()? {
            texts.push(text);
        }
        Ok(Texts(texts))
    }
}

/// A list that is written as a bare text when it has one element.
mod one_or_many {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Texts};

    pub(super) fn serialize<S: Serializer>(list: &[String], to: S) -> Result<S::Ok, S::Error> {
        match list {
            [one] => one.serialize(to),
            list => list.serialize(to),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        Texts::deserialize(from).map(|texts| texts.0)
    }
}

/// A list that is written as a bare text only when it is `"*"`.
mod group_by {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Texts};

    pub(super) fn serialize<S: Serializer>(
        list: &Option<Vec<String>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match list.as_deref() {
            Some([all]) if all == "*" => "*".serialize(to),
            list => list.serialize(to),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<String>>, D::Error> {
        Ok(Option::<Texts>::deserialize(from)?.map(|texts| texts.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_say_the_same_and_come_back_unchanged() {
        let yaml = "\
name: cpu_1h
source: cpu
interval: 1h
group_by: host
where: region = 'eu'
aggregations:
  - {field: usage, function: [count, mean]}
  - {field: usage, function: max, as: peak}
order_by: [{column: peak, desc: true}]
limit: 10
refresh: {strategy: periodic, every: 10s}
enabled: no
";
        let rule: AggregateRule = serde_saphyr::from_str(yaml).unwrap();
        let json = serde_json::to_string(&rule).unwrap();
        insta::assert_snapshot!(json, @r#"{"name":"cpu_1h","source":"cpu","interval":"1h","group_by":["host"],"where":"region = 'eu'","aggregations":[{"field":"usage","function":["count","mean"]},{"field":"usage","function":"max","as":"peak"}],"order_by":[{"column":"peak","desc":true}],"limit":10,"refresh":{"strategy":"periodic","every":"10s"},"enabled":false}"#);
        assert_eq!(serde_json::from_str::<AggregateRule>(&json).unwrap(), rule);
    }

    #[test]
    fn all_tags_are_a_star() {
        for text in [r#"{"group_by": "*"}"#, r#"{"group_by": ["*"]}"#] {
            let rule: AggregateRule = serde_json::from_str(text).unwrap();
            let json = serde_json::to_string(&rule).unwrap();
            assert_eq!(json, r#"{"name":"","source":"","group_by":"*"}"#);
        }
    }
}
