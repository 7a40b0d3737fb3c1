//! One spelling for every rule, so that equal definitions are equal texts.

use highwater_core::Bucket;
use highwater_core::bucket::Span;
use highwater_core::schema::TIME_COLUMN;

use super::columns::function_named;
use super::compile::MAX_GROUPS;
use super::rule::{AggregateRule, AggregationRule};
use super::{Definition, Freshness, LateAfterRetention, Storage};

/// The rule in canonical words: what says nothing new is left out, the rest is spelled one way.
pub(super) fn canonical(rule: &AggregateRule, definition: &Definition) -> AggregateRule {
    let is_over_points = definition.parent().is_none();
    let lateness = definition.allowed_lateness;
    let words = definition.bucket.map(Bucket::words);
    AggregateRule {
        name: rule.name.clone(),
        source: rule.source.clone(),
        interval: words.as_ref().map(|words| words.width.clone()),
        timezone: words.as_ref().and_then(|words| words.zone.clone()),
        offset: words.as_ref().and_then(|words| words.offset.clone()),
        week_start: words.filter(|words| words.from_sunday).map(|_| "sunday".to_owned()),
        time_column: rule.time_column.clone().filter(|column| column != TIME_COLUMN),
        group_by: rule.group_by.clone().filter(|own| !own.is_empty() || !is_over_points),
        filter: definition.filter.as_deref().map(str::to_owned),
        aggregations: rule.aggregations.iter().map(canonical_entry).collect(),
        order_by: rule.order_by.clone(),
        limit: rule.limit,
        allowed_lateness: (lateness != Span::ZERO).then(|| lateness.to_string()),
        refresh: definition.refresh.rule(),
        retention: definition.retention.map(|keep| keep.to_string()),
        late_after_retention: match definition.late_after_retention {
            LateAfterRetention::Reject => None,
            LateAfterRetention::Drop => Some("drop".to_owned()),
        },
        max_groups: (definition.max_groups != MAX_GROUPS).then_some(definition.max_groups),
        freshness: match definition.freshness {
            Freshness::Exact => None,
            Freshness::Materialized => Some("materialized".to_owned()),
            Freshness::MaxStaleness(age) => Some(format!("max_staleness {}", Span::Nanos(age))),
        },
        storage: match definition.storage {
            Storage::Durable => None,
            Storage::Hybrid | Storage::Memory => Some(definition.storage.name().to_owned()),
        },
        enabled: (!definition.enabled).then_some(false),
        ..AggregateRule::default()
    }
}

fn canonical_entry(entry: &AggregationRule) -> AggregationRule {
    let has_field = entry.field.is_some();
    let functions = entry.function.iter().filter_map(|name| function_named(name, has_field).ok());
    let functions: Vec<_> = functions.collect();
    let default = match (entry.field.as_deref(), functions.as_slice()) {
        (None, [one]) => Some(one.suffix()),
        (Some(field), [one]) => Some(format!("{field}_{}", one.suffix())),
        _ => None,
    };
    AggregationRule {
        field: entry.field.clone(),
        alias: entry.alias.clone().filter(|alias| Some(alias) != default.as_ref()),
        function: functions.iter().map(ToString::to_string).collect(),
    }
}
