//! Audits without anybody asking: every so often a part of what one aggregate has stored is computed
//! again and compared.
//!
//! Which one is drawn from the time and a counter, so equal histories draw equal audits.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use highwater_core::bucket::Span;
use highwater_core::{TimeRange, Timestamp};
use highwater_storage::guarded;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::audit::{AuditReport, clean};
use crate::catalog::Aggregate;
use crate::definition::AggregateId;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::runtime::Aggregates;
use crate::steps::in_steps;

/// Points of the source that one audit looks at, about; a day at least.
const POINTS: u64 = 200_000;
/// Longest time without a look at the clock.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When the next audit is due, and what audits found since the start, on request or not.
#[derive(Debug, Default)]
pub(crate) struct Audits {
    next: Option<Timestamp>,
    count: u64,
    by_aggregate: HashMap<AggregateId, Audited>,
}

/// What audits of one aggregate found since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audited {
    /// When the last one ended.
    pub(crate) last: Option<Timestamp>,
    /// Rows that were not what they should be.
    pub(crate) mismatches: u64,
}

impl Audits {
    /// Whether one is due; the first is after one period. If so, what it is drawn by.
    fn draw(&mut self, every: Span, now: Timestamp) -> Option<u64> {
        let is_due = self.next.is_some_and(|next| next <= now);
        if is_due || self.next.is_none() {
            self.next = Some(every.after(now));
        }
        if !is_due {
            return None;
        }
        self.count += 1;
        let mut hasher = DefaultHasher::new();
        (now, self.count).hash(&mut hasher);
        Some(hasher.finish())
    }

    /// Notes what an audit found.
    pub(crate) fn record(&mut self, id: &AggregateId, report: &AuditReport, now: Timestamp) {
        let own = self.by_aggregate.entry(id.clone()).or_default();
        own.last = Some(now);
        own.mismatches += report.mismatches;
    }

    /// What audits of an aggregate found.
    pub(crate) fn get(&self, id: &AggregateId) -> Audited {
        self.by_aggregate.get(id).copied().unwrap_or_default()
    }
}

impl Aggregates {
    /// Audits when that is due, on the real clock, until told to stop.
    pub(crate) async fn keep_auditing(&self, stop: &CancellationToken) {
        if self.settings().audit_every.is_none() {
            return;
        }
        loop {
            if stop.run_until_cancelled(self.audit_due()).await.is_none() {
                return;
            }
            let next = self.audits().lock().next.unwrap_or_default();
            let nanos = next.as_nanos().saturating_sub(self.now().as_nanos());
            let pause = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)).min(LONGEST_PAUSE);
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Audits a part of one aggregate if that is due. Returns whether something was repaired. What
    /// keeps it from comparing is logged: it is no reason to keep anything else from running.
    pub(crate) async fn audit_due(&self) -> bool {
        let Some(every) = self.settings().audit_every else { return false };
        let drawn = self.audits().lock().draw(every, self.now());
        let Some(drawn) = drawn else { return false };
        match guarded(self.audit_drawn(drawn)).await {
            Ok(repaired) => repaired > 0,
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "an audit failed");
                false
            }
        }
    }

    /// Audits a part of one aggregate, and returns how many buckets were repaired.
    async fn audit_drawn(&self, drawn: u64) -> Result<u64, AggregationError> {
        let Some((id, window)) = self.drawn(drawn)? else { return Ok(0) };
        let report = self.audit_with_dependants(&id, window, true).await?;
        let dependants = report.dependants.iter().map(|one| one.buckets_repaired);
        Ok(report.buckets_repaired + dependants.sum::<u64>())
    }

    /// The aggregate and the range that a number draws; none if nothing is clean.
    fn drawn(&self, drawn: u64) -> Result<Option<(AggregateId, TimeRange)>, AggregationError> {
        let mut all: Vec<(Reader, Arc<Aggregate>)> = Vec::new();
        for database in self.databases() {
            let reader = self.reader(&database)?;
            let attached = reader.catalog().iter().filter(|one| !one.document.detached);
            all.extend(attached.map(|one| (reader.clone(), Arc::clone(one))));
        }
        let first = below(drawn, all.len());
        all.rotate_left(first);
        for (reader, aggregate) in all {
            let steps = in_steps(&reader, &aggregate, &clean(&reader, &aggregate), POINTS);
            let window = steps.get(below(drawn.rotate_left(32), steps.len()));
            if let Some(window) = window.and_then(highwater_core::TimeRanges::hull) {
                return Ok(Some((aggregate.id().clone(), window)));
            }
        }
        Ok(None)
    }
}

/// A number below `count`, or zero.
fn below(drawn: u64, count: usize) -> usize {
    let count = (count as u64).max(1);
    usize::try_from(drawn % count).unwrap_or(0)
}

/// A span of time, or `off`.
pub(crate) mod span_or_off {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Span;

    pub(crate) fn serialize<S: Serializer>(
        every: &Option<Span>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match every {
            Some(every) => serializer.collect_str(every),
            None => serializer.serialize_str("off"),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Span>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(None);
        }
        let every: Span = text.parse().map_err(D::Error::custom)?;
        match every == Span::ZERO {
            true => Err(D::Error::custom("say `off` for no audits; a period is longer than 0s")),
            false => Ok(Some(every)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_is_due_once_a_period_and_drawn_anew() {
        let (mut audits, every) = (Audits::default(), Span::Nanos(60_000_000_000));
        let mut draw = |secs| audits.draw(every, Timestamp::from_secs(secs));
        assert_eq!((draw(0), draw(59)), (None, None), "the first after a period");
        let first = draw(60);
        assert!(first.is_some());
        assert_eq!((draw(60), draw(119)), (None, None), "while the clock stands still");
        let later = draw(1_000_000);
        assert!(later.is_some() && later != first);
        assert_eq!(draw(1_000_059), None, "what was missed is not made up for");
    }
}
