//! Any history of two machines that share a bucket reads like a map does, whatever becomes of
//! writes to the bucket and of copies of segments.

use proptest::prelude::*;

use super::bucket::Machine;
use super::model::{Model, Step, apply, carry_out, shown, steps, with_sorted_fields};
use super::*;
use crate::file_store::{Fault, FaultyBucket};

/// What a crash is here.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// The process is killed and started again.
    Restart,
    /// It stops in order, and the other machine goes on.
    Move,
    /// The other machine goes on without its log, while it still runs.
    Takeover,
}

/// What goes wrong around a step.
#[derive(Clone, Debug)]
struct Trouble {
    /// Of the next writes to the bucket.
    faults: Vec<Option<Fault>>,
    change: Change,
    damages_copies: bool,
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let fault = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Fault::AnswerLost)),
        1 => Just(Some(Fault::Lost)),
        1 => Just(Some(Fault::NeverSent)),
    ];
    let change = prop_oneof![Just(Change::Restart), Just(Change::Move), Just(Change::Takeover)];
    let faults = prop::collection::vec(fault, 0..5);
    (faults, change, prop::bool::weighted(0.2))
        .prop_map(|(faults, change, damages_copies)| Trouble { faults, change, damages_copies })
}

struct World {
    bucket: FaultyBucket,
    machines: [Machine; 2],
    /// Which machine has the database open.
    current: usize,
    /// Gone in between.
    engine: Option<Engine>,
    /// What was true at the last flush that surely happened, and after each step since.
    since_flush: Vec<Model>,
}

impl World {
    async fn new() -> World {
        let bucket = FaultyBucket::default();
        let machines = [(); 2].map(|()| Machine::of(&bucket).abandoning());
        let engine = Some(machines[0].open().await.unwrap());
        World { bucket, machines, current: 0, engine, since_flush: vec![Model::new()] }
    }

    async fn step(&mut self, step: &Step, trouble: &Trouble) {
        let mut model = self.since_flush.last().unwrap().clone();
        apply(&mut model, step);
        self.since_flush.push(model);
        self.bucket.next_puts(trouble.faults.iter().copied());
        match step {
            Step::Crash => self.change(trouble.change).await,
            step => self.carry_out(step).await,
        }
        self.bucket.recover();
        if trouble.damages_copies {
            self.machines[self.current].damage_copies();
        }
    }

    async fn carry_out(&mut self, step: &Step) {
        let engine = self.engine.as_ref().unwrap();
        let result = match step {
            Step::Flush => engine.flush().await,
            Step::Compact => engine.compact().await.map(drop),
            step => {
                carry_out(engine, step).await;
                return;
            }
        };
        match result {
            Ok(()) if matches!(step, Step::Flush) => self.only_the_last(),
            Ok(()) | Err(StorageError::Unreachable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn change(&mut self, change: Change) {
        let old = self.engine.take().unwrap();
        match change {
            Change::Restart => {
                drop(old);
                self.open().await;
            }
            Change::Move => {
                self.bucket.recover();
                old.close().await.unwrap();
                self.only_the_last();
                self.current = 1 - self.current;
                self.open().await;
            }
            Change::Takeover => {
                self.current = 1 - self.current;
                self.open().await;
                self.bucket.recover();
                drop(old.write("db", points("cpu lost=1i 1"), WriteMode::StoreGoodLines).await);
                let fenced = old.flush().await.unwrap_err();
                assert!(matches!(fenced, StorageError::Poisoned { .. }), "{fenced}");
                self.find_out_what_was_flushed().await;
            }
        }
    }

    async fn open(&mut self) {
        let machine = &self.machines[self.current];
        let opened = match machine.open().await {
            Err(StorageError::Unreachable { .. }) => {
                self.bucket.recover();
                machine.open().await
            }
            opened => opened,
        };
        self.engine = Some(opened.unwrap());
    }

    /// What has not been flushed is gone; it is the last part of the history.
    async fn find_out_what_was_flushed(&mut self) {
        let found = self.read().await;
        let known = self.since_flush.iter().rposition(|model| shown(model) == found);
        let known = known.unwrap_or_else(|| panic!("{found:?} is not in {:?}", self.since_flush));
        self.since_flush.truncate(known + 1);
        self.only_the_last();
    }

    fn only_the_last(&mut self) {
        self.since_flush.drain(..self.since_flush.len() - 1);
    }

    async fn read(&self) -> Vec<String> {
        with_sorted_fields(read(&self.engine.as_ref().unwrap().version(), "cpu").await)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_history_in_a_bucket_reads_like_a_map(
        steps in steps().prop_flat_map(|steps| {
            let troubles = prop::collection::vec(trouble(), steps.len());
            (Just(steps), troubles)
        })
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for (at, (step, trouble)) in steps.0.iter().zip(&steps.1).enumerate() {
                world.step(step, trouble).await;
                let expected = shown(world.since_flush.last().unwrap());
                prop_assert_eq!(world.read().await, expected, "after step {} {:?} {:?}", at, step, trouble);
            }
            Ok(())
        })?;
    }
}
