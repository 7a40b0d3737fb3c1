//! Refreshes that wait for their turn: one at a time per aggregate, equal ones joined.

use std::collections::{BTreeMap, HashMap, VecDeque};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::definition::AggregateId;
use crate::lanes::Lane;
use crate::plan::Occasion;
use crate::schedule::Run;

/// Answers with the run of a refresh, or with nothing if there was nothing to do. It is dropped if
/// the refresh is given up because the process ends.
pub(crate) type Answer = oneshot::Receiver<Option<Run>>;

/// Refreshes that run or wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    aggregates: Mutex<HashMap<AggregateId, Turns>>,
    /// Told when a refresh has ended, or turns out to take long.
    ended: Notify,
}

/// What runs of one aggregate, and what waits behind it.
#[derive(Debug, Default)]
struct Turns {
    /// Counts those that have ended, to tell the one that runs from the next.
    ended: u64,
    has_begun: bool,
    /// The lane of the one that runs, once it is planned.
    lane: Option<Lane>,
    waiting: VecDeque<Waiting>,
}

/// A refresh that has not begun, so that whoever asks for the same can have its result.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) occasion: Occasion,
    pub(crate) askers: Vec<oneshot::Sender<Option<Run>>>,
}

impl Queue {
    /// Puts a refresh behind those of the aggregate. Also returns whether nobody works on the
    /// aggregate, so that the caller has to: with [`Queue::next`] until there is nothing left.
    pub(crate) fn add(&self, id: &AggregateId, occasion: Occasion) -> (Answer, bool) {
        let (asker, answer) = oneshot::channel();
        let mut aggregates = self.aggregates.lock();
        let is_idle = !aggregates.contains_key(id);
        let waiting = &mut aggregates.entry(id.clone()).or_default().waiting;
        match waiting.iter_mut().find(|waiting| waiting.occasion == occasion) {
            Some(same) => same.askers.push(asker),
            None => waiting.push_back(Waiting { occasion, askers: vec![asker] }),
        }
        (answer, is_idle)
    }

    /// The next refresh of an aggregate, which begins now; without one nobody works on it any more.
    pub(crate) fn next(&self, id: &AggregateId) -> Option<Waiting> {
        let next = {
            let mut aggregates = self.aggregates.lock();
            let turns = aggregates.get_mut(id)?;
            turns.ended += u64::from(turns.has_begun);
            (turns.has_begun, turns.lane) = (true, None);
            let next = turns.waiting.pop_front();
            if next.is_none() {
                aggregates.remove(id);
            }
            next
        };
        self.ended.notify_waiters();
        next
    }

    /// Notes in which lane the refresh runs that has begun.
    pub(crate) fn planned(&self, id: &AggregateId, lane: Lane) {
        if let Some(turns) = self.aggregates.lock().get_mut(id) {
            turns.lane = Some(lane);
        }
        self.ended.notify_waiters();
    }

    /// Whether a refresh of the aggregate runs or waits.
    pub(crate) fn is_busy(&self, id: &AggregateId) -> bool {
        self.aggregates.lock().contains_key(id)
    }

    /// The lane in which a refresh of the aggregate runs.
    pub(crate) fn lane(&self, id: &AggregateId) -> Option<Lane> {
        self.aggregates.lock().get(id)?.lane
    }

    /// How many refreshes run, by lane.
    pub(crate) fn running(&self) -> BTreeMap<&'static str, usize> {
        let mut running: BTreeMap<_, _> =
            [Lane::Live, Lane::Repair, Lane::Backfill].map(|lane| (lane.name(), 0)).into();
        for lane in self.aggregates.lock().values().filter_map(|turns| turns.lane) {
            *running.entry(lane.name()).or_default() += 1;
        }
        running
    }

    /// Waits until the refreshes of these aggregates have ended that run now; not for backfills.
    pub(crate) async fn others_ended(&self, ids: &[AggregateId]) {
        let running = self.short_runs(ids);
        loop {
            // Made before looking, so that nothing that ends in between is missed.
            let ended = self.ended.notified();
            let now = self.short_runs(ids);
            if !now.iter().any(|run| running.contains(run)) {
                return;
            }
            ended.await;
        }
    }

    /// Waits until nobody works on anything.
    pub(crate) async fn all_ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.aggregates.lock().is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn short_runs<'a>(&self, ids: &'a [AggregateId]) -> Vec<(&'a AggregateId, u64)> {
        let aggregates = self.aggregates.lock();
        let short = ids.iter().filter_map(|id| Some((id, aggregates.get(id)?)));
        let short = short.filter(|(_, turns)| turns.lane != Some(Lane::Backfill));
        short.map(|(id, turns)| (id, turns.ended)).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn id(name: &str) -> AggregateId {
        AggregateId::new("t", name)
    }

    #[test]
    fn equal_requests_that_wait_are_one() {
        let queue = Queue::default();
        let add = |occasion| queue.add(&id("a"), occasion).1;
        assert!(add(Occasion::Requested), "the first asker has to work");
        let begun = queue.next(&id("a")).unwrap();
        assert_eq!(begun.askers.len(), 1);
        assert!(!add(Occasion::Requested), "what has begun may have missed a write");
        assert!(!add(Occasion::Scheduled));
        assert!(!add(Occasion::Requested));
        let joined = queue.next(&id("a")).unwrap();
        assert_eq!((joined.occasion, joined.askers.len()), (Occasion::Requested, 2));
        assert_eq!(queue.next(&id("a")).unwrap().occasion, Occasion::Scheduled);
        assert!(queue.next(&id("a")).is_none() && !queue.is_busy(&id("a")));
    }

    #[test]
    fn a_child_waits_for_its_source_but_not_for_a_backfill() {
        let queue = Queue::default();
        let source = [id("source")];
        let waits = || queue.others_ended(&source).now_or_never().is_none();
        assert!(!waits());
        let _answer = queue.add(&id("source"), Occasion::Scheduled);
        let mut waiting = Box::pin(queue.others_ended(&source));
        assert!(waiting.as_mut().now_or_never().is_none(), "it is about to begin");
        queue.next(&id("source"));
        assert!(waiting.as_mut().now_or_never().is_none(), "it runs");
        queue.planned(&id("source"), Lane::Backfill);
        assert!(!waits());
        assert_eq!(queue.running()["backfill"], 1);
        queue.planned(&id("source"), Lane::Live);
        assert!(waiting.as_mut().now_or_never().is_none());
        let _answer = queue.add(&id("source"), Occasion::Scheduled);
        queue.next(&id("source"));
        assert!(waiting.now_or_never().is_some(), "not for the next one");
    }
}
