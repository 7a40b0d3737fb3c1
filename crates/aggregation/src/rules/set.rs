//! Sets: blocks of aggregates of one source, found as `set.name`.

use crate::definition::{AggregateRule, DefinitionError, set_name};

/// The members of a set as rules of their own, each with what the set says for all of them; a
/// rule that is no set stays as it is.
///
/// # Errors
/// Everything that is wrong with the set itself; the paths are relative to it.
pub fn members(rule: AggregateRule) -> Result<Vec<AggregateRule>, Vec<DefinitionError>> {
    let Some(set) = rule.set.clone() else {
        return match rule.aggregates.is_empty() {
            true => Ok(vec![rule]),
            false => Err(vec![DefinitionError::at("aggregates", "belongs to a set; name it")]),
        };
    };
    let mut problems = Vec::new();
    problems.extend(set_name(&set).err().map(|e| e.inside("set")));
    problems.extend(unshared_keys(&rule));
    if rule.aggregates.is_empty() {
        problems.push(DefinitionError::at("aggregates", "must not be empty"));
    }
    let mut members = Vec::with_capacity(rule.aggregates.len());
    for (i, own) in rule.aggregates.iter().enumerate() {
        match member(&set, &rule, own) {
            Ok(member) => members.push(member),
            Err(problem) => problems.push(problem.inside(i).inside("aggregates")),
        }
    }
    if problems.is_empty() { Ok(members) } else { Err(problems) }
}

/// Keys that each member says for itself.
fn unshared_keys(set: &AggregateRule) -> Vec<DefinitionError> {
    let unshared = [
        ("name", !set.name.is_empty()),
        ("interval", set.interval.is_some()),
        ("time_column", set.time_column.is_some()),
        ("group_by", set.group_by.is_some()),
        ("where", set.filter.is_some()),
        ("aggregations", !set.aggregations.is_empty()),
        ("order_by", !set.order_by.is_empty()),
        ("limit", set.limit.is_some()),
        ("offset", set.offset.is_some()),
        ("week_start", set.week_start.is_some()),
    ];
    let reason = "belongs to an aggregate of the set, not to the set";
    let refused = unshared.into_iter().filter(|(_, is_there)| *is_there);
    refused.map(|(key, _)| DefinitionError::at(key, reason)).collect()
}

fn member(
    set: &str,
    shared: &AggregateRule,
    own: &AggregateRule,
) -> Result<AggregateRule, DefinitionError> {
    if own.name.is_empty() || own.name.contains('.') {
        let reason = format!("must be a name without dot; it is found as {set}.<name>");
        return Err(DefinitionError::at("name", reason));
    }
    if own.set.is_some() || !own.aggregates.is_empty() {
        return Err(DefinitionError::at("set", "sets do not hold sets"));
    }
    if !own.source.is_empty() {
        return Err(DefinitionError::at("source", "is named once, by the set"));
    }
    let own = own.clone();
    let has_buckets = own.interval.is_some() && own.time_column.is_none();
    let of_buckets = |shared: &Option<String>| shared.clone().filter(|_| has_buckets);
    Ok(AggregateRule {
        name: format!("{set}.{}", own.name),
        source: shared.source.clone(),
        allowed_lateness: own.allowed_lateness.or(of_buckets(&shared.allowed_lateness)),
        refresh: own.refresh.or(shared.refresh.clone()),
        storage: own.storage.or(shared.storage.clone()),
        retention: own.retention.or(of_buckets(&shared.retention)),
        late_after_retention: own.late_after_retention.or(shared.late_after_retention.clone()),
        max_groups: own.max_groups.or(shared.max_groups),
        freshness: own.freshness.or(shared.freshness.clone()),
        enabled: own.enabled.or(shared.enabled),
        timezone: own.timezone.or(shared.timezone.clone().filter(|_| own.interval.is_some())),
        ..own
    })
}
