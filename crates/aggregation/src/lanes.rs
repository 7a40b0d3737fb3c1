//! Lanes: so much work at a time, and never so much of it old that what is new has to wait.

use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

/// What kind of work a refresh is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Lane {
    /// Buckets that have just closed or changed.
    Live,
    /// Buckets that were done and have changed, or whose source is about to expire.
    Repair,
    /// So much that it takes several steps.
    Backfill,
}

impl Lane {
    /// As tables and logs spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Lane::Live => "live",
            Lane::Repair => "repair",
            Lane::Backfill => "backfill",
        }
    }
}

/// Places for steps of refreshes. Whoever waits for one gets it in order of arrival.
#[derive(Debug)]
pub(crate) struct Slots {
    all: Semaphore,
    /// At most half of them; one, if there is only one.
    not_live: Semaphore,
}

/// A place that is taken until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    _one: SemaphorePermit<'a>,
    _not_live: Option<SemaphorePermit<'a>>,
}

impl Slots {
    /// So many places, at least one.
    pub(crate) fn new(count: usize) -> Self {
        let count = count.clamp(1, Semaphore::MAX_PERMITS);
        Slots { all: Semaphore::new(count), not_live: Semaphore::new((count / 2).max(1)) }
    }

    /// Waits for a place.
    pub(crate) async fn take(&self, lane: Lane) -> Slot<'_> {
        let not_live = match lane {
            Lane::Live => None,
            Lane::Repair | Lane::Backfill => Some(acquired(&self.not_live).await),
        };
        Slot { _one: acquired(&self.all).await, _not_live: not_live }
    }
}

async fn acquired(places: &Semaphore) -> SemaphorePermit<'_> {
    places.acquire().await.expect("places are never closed")
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn what_is_live_keeps_half() {
        let slots = Slots::new(4);
        let now = |lane| slots.take(lane).now_or_never();
        let backfill = now(Lane::Backfill).unwrap();
        let _repair = now(Lane::Repair).unwrap();
        assert!(now(Lane::Backfill).is_none() && now(Lane::Repair).is_none());
        let live = [now(Lane::Live).unwrap(), now(Lane::Live).unwrap()];
        assert!(now(Lane::Live).is_none(), "there are four");
        drop(live);
        drop(backfill);
        let all = [Lane::Live; 3].map(|lane| now(lane).unwrap());
        assert!(now(Lane::Repair).is_none(), "live may take all");
        drop(all);
        assert!(now(Lane::Repair).is_some());
    }

    #[test]
    fn one_slot_serves_every_lane() {
        let slots = Slots::new(0);
        for lane in [Lane::Backfill, Lane::Live, Lane::Repair] {
            assert!(slots.take(lane).now_or_never().is_some(), "{}", lane.name());
        }
    }
}
