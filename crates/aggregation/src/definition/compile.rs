//! Checks one rule and compiles it. Every problem is reported, not only the first.

use std::collections::HashSet;
use std::sync::Arc;

use highwater_core::bucket::Span;
use highwater_core::schema::TIME_COLUMN;
use highwater_core::{Bucket, MeasurementId};

use super::interval::interval;
use super::name::{aggregate_name, checked_name};
use super::refresh::refresh;
use super::rule::{AggregateRule, OrderRule};
use super::{
    AggregateId, Definition, DefinitionError, Freshness, GroupBy, LateAfterRetention, OrderBy,
    Source, Storage, canonical, columns, hierarchy,
};
use crate::pieces::Pieces;

/// Most groups in a stored piece unless the rule says so.
pub(super) const MAX_GROUPS: u64 = 1_000_000;

/// Compiles a rule whose source is `parent`, or a measurement if there is none.
///
/// # Errors
/// Everything that is wrong with it; the paths are relative to the rule.
pub(super) fn compile(
    database: &Arc<str>,
    rule: &AggregateRule,
    parent: Option<&Definition>,
) -> Result<Definition, Vec<DefinitionError>> {
    let mut problems = Problems::default();
    problems.extend(later_keys(rule));
    let compiled = parts(database, rule, parent, &mut problems);
    match compiled {
        Some(definition) if problems.0.is_empty() => Ok(definition),
        _ => Err(problems.0.into_iter().map(|e| e.of_aggregate(&rule.name)).collect()),
    }
}

/// Problems found so far.
#[derive(Default)]
struct Problems(Vec<DefinitionError>);

impl Problems {
    /// The value, or `None` once its problem is noted.
    fn note<T>(&mut self, checked: Result<T, DefinitionError>) -> Option<T> {
        checked.map_err(|problem| self.0.push(problem)).ok()
    }

    /// The value, or `None` once its problems are noted.
    fn note_all<T>(&mut self, checked: Result<T, Vec<DefinitionError>>) -> Option<T> {
        checked.map_err(|problems| self.extend(problems)).ok()
    }

    fn extend(&mut self, problems: impl IntoIterator<Item = DefinitionError>) {
        self.0.extend(problems);
    }
}

/// Compiles all parts, noting what is wrong with each; `None` if some part has no meaning at all.
fn parts(
    database: &Arc<str>,
    rule: &AggregateRule,
    parent: Option<&Definition>,
    problems: &mut Problems,
) -> Option<Definition> {
    if rule.set.is_some() || !rule.aggregates.is_empty() {
        problems.extend([DefinitionError::at(
            "set",
            "sets stand in rule files; define each aggregate as set.name",
        )]);
        return None;
    }
    let name = problems.note(aggregate_name(&rule.name));
    let source = problems.note(source_name(rule));
    let group_by = problems.note(group_by(rule, parent));
    let outputs = problems.note_all(columns::outputs(rule, parent));
    let refresh = problems.note(refresh(rule.refresh.as_ref()));
    let freshness = problems.note(freshness(rule));
    let storage = problems.note(storage(rule));
    let late = problems.note(late_after_retention(rule, parent));
    let max_groups = problems.note(max_groups(rule));
    let filter = problems.note(filter(rule));
    let bucket = problems.note(interval(rule))?;
    let time_column = problems.note(time_column(rule, parent, bucket));
    let pieces = problems.note(pieces(bucket, rule, parent));
    let by_days = bucket.is_none() || time_column.as_ref().is_some_and(Option::is_some);
    let retention = problems.note(retention(rule, by_days));
    let lateness = problems.note(lateness(rule, by_days));

    let (name, source) = (name?, source?);
    let root = MeasurementId::new(Arc::clone(database), Arc::clone(&source));
    let definition = Definition {
        id: AggregateId::new(Arc::clone(database), name),
        source: match parent {
            Some(parent) => Source::Aggregate(parent.id.clone()),
            None => Source::Measurement(root.clone()),
        },
        root: parent.map_or(root, |parent| parent.root.clone()),
        bucket,
        time_column: time_column?,
        group_by: group_by?,
        outputs: outputs?,
        filter: filter?,
        order_by: order_by(rule),
        limit: rule.limit,
        allowed_lateness: lateness?,
        refresh: refresh?,
        retention: retention?,
        late_after_retention: late?,
        max_groups: max_groups?,
        storage: storage?,
        freshness: freshness?,
        enabled: rule.enabled.unwrap_or(true),
        pieces: pieces?,
        rule: AggregateRule::default(),
    };
    problems.extend(columns::shared_names(&definition));
    problems.extend(columns::ordering(&definition));
    problems.extend(columns::several_series(&definition));
    Some(Definition { rule: canonical::canonical(rule, &definition), ..definition })
}

/// Keys, or values of keys, that a later version will honour.
fn later_keys(rule: &AggregateRule) -> Vec<DefinitionError> {
    let is_other = |value: &Option<String>, known: &[&str]| {
        value.as_deref().is_some_and(|value| known.contains(&value))
    };
    let later = [(
        is_other(&rule.late_after_retention, &["merge"]),
        "late_after_retention",
        ", other than reject and drop",
    )];
    let refused = |(is_there, key, what): (bool, &'static str, &'static str)| {
        is_there.then(|| DefinitionError::later(key, what))
    };
    later.into_iter().filter_map(refused).collect()
}

fn source_name(rule: &AggregateRule) -> Result<Arc<str>, DefinitionError> {
    let source = checked_name(&rule.source).map_err(|e| e.inside("source"))?;
    if rule.source == rule.name {
        let reason = format!("{source} would read itself; give it a name of its own");
        return Err(DefinitionError::at("source", reason));
    }
    Ok(source)
}

/// Reads a span of time under `key`; zero only if `zero_is_fine`.
pub(crate) fn span(key: &str, text: &str, zero_is_fine: bool) -> Result<Span, DefinitionError> {
    let span = text.trim().parse::<Span>();
    let span = span.map_err(|e| DefinitionError::at(key, e.to_string()))?;
    match span {
        Span::Nanos(0) if !zero_is_fine => {
            Err(DefinitionError::at(key, "must be longer than zero"))
        }
        span => Ok(span),
    }
}

fn time_column(
    rule: &AggregateRule,
    parent: Option<&Definition>,
    bucket: Option<Bucket>,
) -> Result<Option<Arc<str>>, DefinitionError> {
    let refused = |reason: String| Err(DefinitionError::at("time_column", reason));
    let inherited = parent.and_then(|parent| parent.time_column.clone());
    let Some(own) = rule.time_column.as_deref() else {
        return Ok(inherited.filter(|_| bucket.is_some()));
    };
    if bucket.is_none() {
        return refused("chooses what interval buckets, but there is no interval".into());
    }
    match parent {
        Some(parent) if own != inherited.as_deref().unwrap_or(TIME_COLUMN) => refused(format!(
            "{} buckets {}, so this aggregate does too",
            parent.id.name,
            inherited.as_deref().unwrap_or(TIME_COLUMN)
        )),
        Some(_) => Ok(inherited),
        None if own.is_empty() => refused("must not be empty".into()),
        None => Ok((own != TIME_COLUMN).then(|| own.into())),
    }
}

fn group_by(rule: &AggregateRule, parent: Option<&Definition>) -> Result<GroupBy, DefinitionError> {
    let own = match rule.group_by.as_deref() {
        None => return Ok(parent.map_or(GroupBy::Columns(vec![]), |p| p.group_by.clone())),
        Some([all]) if all == "*" => {
            return Ok(parent.map_or(GroupBy::AllTags, |parent| parent.group_by.clone()));
        }
        Some(own) => own,
    };
    let mut seen = HashSet::new();
    for (i, column) in own.iter().enumerate() {
        let reason = match column.as_str() {
            "*" => "\"*\" means all tags and stands alone".to_owned(),
            "" => "must not be empty".to_owned(),
            TIME_COLUMN => "time is bucketed by interval, not grouped by".to_owned(),
            column if !seen.insert(column) => format!("{column} is there twice"),
            _ => continue,
        };
        return Err(DefinitionError::new(reason).inside(i).inside("group_by"));
    }
    let columns: Vec<Arc<str>> = own.iter().map(|column| column.as_str().into()).collect();
    if let Some(parent) = parent {
        hierarchy::check_groups(&columns, parent).map_err(|e| e.inside("group_by"))?;
    }
    Ok(GroupBy::Columns(columns))
}

fn pieces(
    bucket: Option<Bucket>,
    rule: &AggregateRule,
    parent: Option<&Definition>,
) -> Result<Pieces, DefinitionError> {
    let is_on_time = rule.time_column.as_deref().is_none_or(|column| column == TIME_COLUMN);
    match parent {
        None if is_on_time => Ok(Pieces::of(bucket)),
        None => Ok(Pieces::of(None)),
        Some(parent) => hierarchy::pieces_over(bucket, parent),
    }
}

/// `by_days`: without buckets of `time`, so that none of them expires.
fn retention(rule: &AggregateRule, by_days: bool) -> Result<Option<Span>, DefinitionError> {
    let Some(text) = rule.retention.as_deref() else { return Ok(None) };
    let keep = span("retention", text, false)?;
    match (by_days, rule.interval.is_some()) {
        (false, _) => Ok(Some(keep)),
        (true, true) => Err(DefinitionError::later("retention", " together with time_column")),
        (true, false) => Err(DefinitionError::at(
            "retention",
            "an aggregate without interval is one bucket of all time, which never expires",
        )),
    }
}

/// `by_days`: without buckets of `time`, so that none of them closes.
fn lateness(rule: &AggregateRule, by_days: bool) -> Result<Span, DefinitionError> {
    let Some(text) = rule.allowed_lateness.as_deref() else { return Ok(Span::ZERO) };
    let lateness = span("allowed_lateness", text, true)?;
    if by_days && lateness != Span::ZERO {
        let reason = "only buckets of time close, and this aggregate has none";
        return Err(DefinitionError::at("allowed_lateness", reason));
    }
    Ok(lateness)
}

/// Only who reads points can say what becomes of late ones.
fn late_after_retention(
    rule: &AggregateRule,
    parent: Option<&Definition>,
) -> Result<LateAfterRetention, DefinitionError> {
    let refused = |reason: String| Err(DefinitionError::at("late_after_retention", reason));
    match (rule.late_after_retention.as_deref(), parent) {
        // What is to be merged is refused as a key of a later version.
        (None | Some("reject" | "merge"), _) => Ok(LateAfterRetention::Reject),
        (Some("drop"), None) => Ok(LateAfterRetention::Drop),
        (Some("drop"), Some(parent)) => refused(format!(
            "points reach this aggregate through {}; say it where {} is read",
            parent.id.name, parent.root.measurement
        )),
        (Some(other), _) => {
            refused(format!("unknown value {other:?}, expected one of reject, merge, drop"))
        }
    }
}

fn max_groups(rule: &AggregateRule) -> Result<u64, DefinitionError> {
    match rule.max_groups {
        Some(0) => Err(DefinitionError::at("max_groups", "must be greater than 0")),
        most => Ok(most.unwrap_or(MAX_GROUPS)),
    }
}

fn storage(rule: &AggregateRule) -> Result<Storage, DefinitionError> {
    match rule.storage.as_deref() {
        None | Some("durable") => Ok(Storage::Durable),
        Some("memory") => Ok(Storage::Memory),
        Some("hybrid") => Ok(Storage::Hybrid),
        Some(other) => {
            let reason =
                format!("unknown value {other:?}, expected one of durable, memory, hybrid");
            Err(DefinitionError::at("storage", reason))
        }
    }
}

fn freshness(rule: &AggregateRule) -> Result<Freshness, DefinitionError> {
    match rule.freshness.as_deref().map(str::trim) {
        None => Ok(Freshness::Exact),
        Some(text) => match text.parse() {
            Ok(highwater_query::Freshness::Exact) => Ok(Freshness::Exact),
            Ok(highwater_query::Freshness::Materialized) => Ok(Freshness::Materialized),
            Ok(highwater_query::Freshness::MaxStaleness(age)) => Ok(Freshness::MaxStaleness(age)),
            Ok(_) => Err(DefinitionError::at("freshness", "leave it out for the default")),
            Err(error) => Err(DefinitionError::at("freshness", error.to_string())),
        },
    }
}

fn filter(rule: &AggregateRule) -> Result<Option<Arc<str>>, DefinitionError> {
    match rule.filter.as_deref().map(str::trim) {
        Some("") => Err(DefinitionError::at("where", "must not be empty")),
        filter => Ok(filter.map(Into::into)),
    }
}

fn order_by(rule: &AggregateRule) -> Vec<OrderBy> {
    let order = |by: &OrderRule| OrderBy { column: by.column.as_str().into(), descending: by.desc };
    rule.order_by.iter().map(order).collect()
}
