//! When stored partials are brought up to date: the key `refresh` of a rule.

use std::sync::Arc;

use highwater_core::bucket::Span;
use highwater_core::time::NANOS_PER_MINUTE;

use super::DefinitionError;
use super::compile::span;
use super::rule::RefreshRule;

/// Period of `periodic` unless the rule has one: five minutes.
const EVERY: Span = Span::Nanos(5 * NANOS_PER_MINUTE);
/// Period of `hybrid` unless the rule has one: a quarter of an hour.
const HYBRID_EVERY: Span = Span::Nanos(15 * NANOS_PER_MINUTE);
/// How long `realtime` and `hybrid` gather commits unless the rule says so: 100 ms.
const DEBOUNCE: Span = Span::Nanos(100_000_000);

/// When stored partials are brought up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// After every commit that touches the source, open buckets included.
    Realtime {
        /// From the first commit that is not applied to the refresh; never calendar months.
        debounce: Span,
    },
    /// Every so often, closed buckets.
    Periodic {
        /// Longer than zero.
        every: Span,
    },
    /// Only when asked.
    OnDemand,
    /// What a commit of critical fields touches as under `Realtime`, the rest as under `Periodic`.
    Hybrid {
        /// Fields (or tags) of the points at the root; never empty.
        critical: Vec<Arc<str>>,
        /// Longer than zero.
        every: Span,
        /// See [`Refresh::Realtime`].
        debounce: Span,
    },
}

impl Refresh {
    /// As rules spell it.
    pub fn strategy(&self) -> &'static str {
        match self {
            Refresh::Realtime { .. } => "realtime",
            Refresh::Periodic { .. } => "periodic",
            Refresh::OnDemand => "on_demand",
            Refresh::Hybrid { .. } => "hybrid",
        }
    }

    /// How often the clock alone makes it due. Under `Realtime` that moves the watermark over
    /// buckets that no commit touched.
    pub fn every(&self) -> Option<Span> {
        match self {
            Refresh::Periodic { every } | Refresh::Hybrid { every, .. } => Some(*every),
            Refresh::Realtime { .. } => Some(EVERY),
            Refresh::OnDemand => None,
        }
    }

    /// How long after a commit it is due; `None` if commits do not make it due.
    pub fn debounce(&self) -> Option<Span> {
        match self {
            Refresh::Realtime { debounce } | Refresh::Hybrid { debounce, .. } => Some(*debounce),
            Refresh::Periodic { .. } | Refresh::OnDemand => None,
        }
    }

    /// The fields that count at once, if not all do.
    pub fn critical(&self) -> &[Arc<str>] {
        match self {
            Refresh::Hybrid { critical, .. } => critical,
            _ => &[],
        }
    }

    /// In canonical words; `None` if nothing needs to be said.
    pub(super) fn rule(&self) -> Option<RefreshRule> {
        let other_than = |span: Span, usual: Span| (span != usual).then(|| span.to_string());
        let rule = RefreshRule { strategy: Some(self.strategy().into()), ..RefreshRule::default() };
        match self {
            Refresh::Periodic { every: EVERY } => None,
            Refresh::Periodic { every } => {
                Some(RefreshRule { every: Some(every.to_string()), ..rule })
            }
            Refresh::OnDemand => Some(rule),
            Refresh::Realtime { debounce } => {
                Some(RefreshRule { debounce: other_than(*debounce, DEBOUNCE), ..rule })
            }
            Refresh::Hybrid { critical, every, debounce } => Some(RefreshRule {
                critical: critical.iter().map(|field| field.to_string()).collect(),
                every: other_than(*every, HYBRID_EVERY),
                debounce: other_than(*debounce, DEBOUNCE),
                ..rule
            }),
        }
    }
}

/// The strategy that a rule asks for.
///
/// # Errors
/// An unknown strategy, or a key that the strategy has no use for.
pub(super) fn refresh(rule: Option<&RefreshRule>) -> Result<Refresh, DefinitionError> {
    let Some(rule) = rule else { return Ok(Refresh::Periodic { every: EVERY }) };
    strategy(rule).map_err(|error| error.inside("refresh"))
}

fn strategy(rule: &RefreshRule) -> Result<Refresh, DefinitionError> {
    let strategy = rule.strategy.as_deref().unwrap_or("periodic");
    let (may_have_period, may_have_debounce) = match strategy {
        "realtime" => (false, true),
        "periodic" => (true, false),
        "on_demand" => (false, false),
        "hybrid" => (true, true),
        other => {
            let reason = format!(
                "unknown strategy {other:?}, expected realtime, periodic, on_demand or hybrid"
            );
            return Err(DefinitionError::at("strategy", reason));
        }
    };
    let useless = |key: &str| {
        Err(DefinitionError::at(key, format!("strategy {strategy} has no {key}; leave it out")))
    };
    if rule.every.is_some() && !may_have_period {
        return useless("every");
    }
    if rule.debounce.is_some() && !may_have_debounce {
        return useless("debounce");
    }
    if !rule.critical.is_empty() && strategy != "hybrid" {
        return useless("critical");
    }
    let every = rule.every.as_deref().map(|text| span("every", text, false)).transpose()?;
    let debounce = rule.debounce.as_deref().map(debounce).transpose()?.unwrap_or(DEBOUNCE);
    Ok(match strategy {
        "realtime" => Refresh::Realtime { debounce },
        "on_demand" => Refresh::OnDemand,
        "hybrid" => {
            let (critical, every) = (critical(&rule.critical)?, every.unwrap_or(HYBRID_EVERY));
            Refresh::Hybrid { critical, every, debounce }
        }
        _ => Refresh::Periodic { every: every.unwrap_or(EVERY) },
    })
}

fn debounce(text: &str) -> Result<Span, DefinitionError> {
    match span("debounce", text, true)? {
        Span::Months(_) => Err(DefinitionError::at("debounce", "must be shorter than a month")),
        debounce => Ok(debounce),
    }
}

fn critical(fields: &[String]) -> Result<Vec<Arc<str>>, DefinitionError> {
    let reason = match fields {
        [] => "strategy hybrid needs the fields that count at once, like critical: [status]",
        fields if fields.iter().any(String::is_empty) => "the name of a field must not be empty",
        fields => {
            let mut fields: Vec<Arc<str>> =
                fields.iter().map(|field| field.as_str().into()).collect();
            fields.sort();
            fields.dedup();
            return Ok(fields);
        }
    };
    Err(DefinitionError::at("critical", reason))
}
