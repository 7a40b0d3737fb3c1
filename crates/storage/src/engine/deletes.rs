//! Deletes that take more along than points, and deletes beside expiry.

use super::rollups::by_host;
use super::*;
use crate::{DerivedRows, TakenAlong};

#[tokio::test]
async fn a_delete_takes_rows_of_materializations_along_or_nothing_happens() {
    let harness = Harness::new().await;
    harness.write("cpu,host=a x=1 60\n cpu,host=b x=1 60").await;
    let replacements = vec![by_host("a@0=1 b@0=2 a@3600=3 a@7200=4")];
    harness.engine.commit(Commit { replacements, ..Commit::default() }).await.unwrap();
    // In the log only, and older than the delete in the manifest.
    harness.write("cpu,host=a x=2 180\n cpu,host=b x=2 180").await;
    let rows = |measurement| DerivedRows {
        id: id(measurement),
        times: secs(0, 7200).into(),
        condition: Condition::And(vec![host_is("a"), Condition::Not(Box::new(rack_is("r")))]),
    };
    let delete = async |engine: &Engine, measurement| {
        let along = TakenAlong {
            rows: vec![rows(measurement)],
            touched: secs(3600, 3660).into(),
            ..TakenAlong::default()
        };
        engine.delete_with(&engine.version(), &id("cpu"), host_is("a"), along).await
    };
    let before = harness.engine.version().seq();
    assert!(delete(&harness.engine, "missing").await.is_err());
    assert_eq!(harness.engine.version().seq(), before);
    // A tag that no row has is NULL, so that nothing is known of it.
    delete(&harness.engine, "by_host").await.unwrap();
    assert_eq!(harness.read("by_host").await.len(), 4);
    let along = TakenAlong {
        rows: vec![DerivedRows { condition: host_is("a"), ..rows("by_host") }],
        touched: secs(3600, 3660).into(),
        ..TakenAlong::default()
    };
    let seen = harness.engine.version();
    let deleted = harness.engine.delete_with(&seen, &id("cpu"), host_is("a"), along).await.unwrap();
    harness.write("cpu,host=a x=3 180").await;

    let expected = ["cpu,host=a x=3.0 180", "cpu,host=b x=1.0 60", "cpu,host=b x=2.0 180"];
    let check = async |harness: &Harness| {
        assert_eq!(harness.read("cpu").await, expected);
        let left = ["by_host,host=a sum=4 7200", "by_host,host=b sum=2 0"];
        assert_eq!(harness.read("by_host").await, left);
        let version = harness.engine.version();
        let changes = version.measurement(&id("cpu")).unwrap().changes();
        let since = SequenceNumber::new(deleted.get() - 1);
        assert!(changes.touched_after(since, TimeRange::ALL).overlaps(secs(3600, 3660)));
        assert!(!version.measurement(&id("cpu")).unwrap().has_only_gained_since(since));
    };
    check(&harness).await;
    let crashed = harness.after_crash().await;
    check(&crashed).await;
    crashed.engine.flush().await.unwrap();
    while crashed.engine.compact().await.unwrap() > 0 {}
    check(&crashed).await;
    check(&crashed.after_crash().await).await;
}

#[tokio::test]
async fn a_delete_that_saw_points_which_expired_since_is_a_conflict() {
    let harness = Harness::new().await;
    harness.write("cpu,host=a x=1 60\n cpu,host=a x=1 200000").await;
    let seen = harness.engine.version();
    let floor = Edit::RaiseFloor { id: id("cpu"), floor: Timestamp::from_secs(86_400) };
    harness.engine.commit(Commit::of([floor])).await.unwrap();
    let refused = harness.engine.delete(&seen, &id("cpu"), before(120)).await;
    assert!(matches!(refused, Err(StorageError::Conflict { .. })), "{refused:?}");
    let above = Condition::Not(Box::new(before(90_000)));
    let condition = Condition::And(vec![above, before(300_000)]);
    let refused = harness.engine.delete(&seen, &id("cpu"), condition).await;
    assert!(matches!(refused, Err(StorageError::Conflict { .. })), "NOT says nothing of times");
    let value = FieldValue::Timestamp(Timestamp::from_secs(200_000));
    let comparison = Comparison::Equal;
    let one = Condition::Compare { column: "time".into(), comparison, value };
    harness.engine.delete(&seen, &id("cpu"), one).await.unwrap();
    assert_eq!(harness.read("cpu").await, [""; 0]);
}

fn rack_is(rack: &str) -> Condition {
    let value = FieldValue::String(rack.to_owned());
    Condition::Compare { column: "rack".into(), comparison: Comparison::Equal, value }
}
