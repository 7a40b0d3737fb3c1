//! Downsampling rules: aggregates that keep every series.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::definition::rule::{AggregateRule, AggregationRule, RefreshRule};

/// A continuous aggregate with `group_by: "*"`, named by its target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DownsamplingRule {
    /// A measurement or an aggregate.
    #[serde(default)]
    pub source: String,
    /// The table that SQL sees.
    #[serde(default)]
    pub target: String,
    /// Width of the buckets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// What is computed; an output is named like its field where that has one function only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<AggregationRule>,
    /// See [`AggregateRule::filter`].
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// See [`AggregateRule::allowed_lateness`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_lateness: Option<String>,
    /// See [`AggregateRule::refresh`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<RefreshRule>,
    /// See [`AggregateRule::storage`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// See [`AggregateRule::retention`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
    /// See [`AggregateRule::late_after_retention`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_after_retention: Option<String>,
    /// See [`AggregateRule::max_groups`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_groups: Option<u64>,
    /// See [`AggregateRule::freshness`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freshness: Option<String>,
    /// See [`AggregateRule::enabled`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// See [`AggregateRule::timezone`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// See [`AggregateRule::offset`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<String>,
    /// See [`AggregateRule::week_start`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub week_start: Option<String>,
}

impl DownsamplingRule {
    /// The aggregate that it stands for.
    pub fn into_aggregate(self) -> AggregateRule {
        AggregateRule {
            name: self.target,
            source: self.source,
            interval: self.interval,
            group_by: Some(vec!["*".to_owned()]),
            aggregations: with_own_names(self.fields),
            filter: self.filter,
            allowed_lateness: self.allowed_lateness,
            refresh: self.refresh,
            storage: self.storage,
            retention: self.retention,
            late_after_retention: self.late_after_retention,
            max_groups: self.max_groups,
            freshness: self.freshness,
            enabled: self.enabled,
            timezone: self.timezone,
            offset: self.offset,
            week_start: self.week_start,
            ..AggregateRule::default()
        }
    }

    /// The downsampling rule that says the same as an aggregate, if there is one.
    pub fn of(rule: &AggregateRule) -> Option<Self> {
        let keeps_series = rule.group_by.as_deref() == Some(&["*".to_owned()]);
        if !keeps_series || !rule.order_by.is_empty() || rule.time_column.is_some() {
            return None;
        }
        let rule = rule.clone();
        Some(DownsamplingRule {
            source: rule.source,
            target: rule.name,
            interval: rule.interval,
            fields: rule.aggregations,
            filter: rule.filter,
            allowed_lateness: rule.allowed_lateness,
            refresh: rule.refresh,
            storage: rule.storage,
            retention: rule.retention,
            late_after_retention: rule.late_after_retention,
            max_groups: rule.max_groups,
            freshness: rule.freshness,
            enabled: rule.enabled,
            timezone: rule.timezone,
            offset: rule.offset,
            week_start: rule.week_start,
        })
    }
}

/// Names outputs like their field where it has one function. Beside other fields of `"*"` a named
/// field has at least two.
fn with_own_names(mut fields: Vec<AggregationRule>) -> Vec<AggregationRule> {
    let mut functions: HashMap<Option<String>, usize> = HashMap::new();
    for entry in &fields {
        *functions.entry(entry.field.clone()).or_default() += entry.function.len();
    }
    let of_every = functions.get(&Some("*".to_owned())).copied().unwrap_or(0);
    for entry in &mut fields {
        let Some(field) = &entry.field else { continue };
        let others = if field == "*" { 0 } else { of_every };
        let own = functions.get(&entry.field).copied().unwrap_or(0);
        if entry.alias.is_none() && own + others == 1 {
            entry.alias = Some("*".to_owned());
        }
    }
    fields
}
