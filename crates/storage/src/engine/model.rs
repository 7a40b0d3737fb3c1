//! Any order of writes, deletes, flushes, compactions and crashes reads like a map does.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::points::read;
use super::*;

/// One step of a random history.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Host, second, field, value.
    Write(Vec<(u8, i64, u8, i64)>),
    DeleteHost(u8),
    DeleteBefore(i64),
    /// Host, second.
    DeletePoint(u8, i64),
    Flush,
    Compact,
    Crash,
}

/// (host, second) to fields.
pub(super) type Model = BTreeMap<(u8, i64), BTreeMap<u8, i64>>;

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Three UTC days, few enough identities that they collide.
    let time = (0i64..3, 0i64..4).prop_map(|(day, at)| day * 86_400 + at * 50);
    let point = (0u8..3, time.clone(), 0u8..3, any::<i8>().prop_map(i64::from));
    let step = prop_oneof![
        6 => prop::collection::vec(point, 1..6).prop_map(Step::Write),
        1 => (0u8..3).prop_map(Step::DeleteHost),
        1 => time.clone().prop_map(Step::DeleteBefore),
        1 => (0u8..3, time).prop_map(|(host, time)| Step::DeletePoint(host, time)),
        3 => Just(Step::Flush),
        1 => Just(Step::Compact),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..25)
}

/// Host 0 has no tag at all.
fn keys(host: u8) -> String {
    if host == 0 { "cpu".to_owned() } else { format!("cpu,host={host}") }
}

pub(super) fn lines(points: &[(u8, i64, u8, i64)]) -> String {
    let line = |(host, time, field, value): &(u8, i64, u8, i64)| {
        format!("{} f{field}={value}i {time}\n", keys(*host))
    };
    points.iter().map(line).collect()
}

pub(super) fn apply(model: &mut Model, step: &Step) {
    match step {
        Step::Write(points) => {
            for (host, time, field, value) in points {
                model.entry((*host, *time)).or_default().insert(*field, *value);
            }
        }
        Step::DeleteHost(host) => model.retain(|(own, _), _| own != host || *host == 0),
        Step::DeleteBefore(secs) => model.retain(|(_, time), _| time >= secs),
        Step::DeletePoint(host, time) => drop(model.remove(&(*host, *time))),
        Step::Flush | Step::Compact | Step::Crash => {}
    }
}

/// Carries a step out that is no crash.
pub(super) async fn carry_out(engine: &Engine, step: &Step) {
    match step {
        Step::Write(rows) => {
            let rows = points::points(&lines(rows));
            drop(engine.write("db", rows, WriteMode::StoreGoodLines).await.unwrap());
        }
        Step::DeleteHost(host) => delete(engine, host_is(&host.to_string())).await,
        Step::DeleteBefore(secs) => delete(engine, before(*secs)).await,
        Step::DeletePoint(host, time) => delete_point(engine, *host, *time).await.unwrap(),
        Step::Flush => engine.flush().await.unwrap(),
        Step::Compact => drop(engine.compact().await.unwrap()),
        Step::Crash => unreachable!("a crash ends the engine"),
    }
}

/// A measurement without points, or without the tag, has nothing to delete.
async fn delete(engine: &Engine, condition: Condition) {
    match engine.delete(&engine.version(), &id("cpu"), condition).await {
        Ok(_) | Err(StorageError::NoSuchMeasurement(_) | StorageError::Invalid(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

/// As one who has looked for the point in the newest version.
pub(super) async fn delete_point(engine: &Engine, host: u8, secs: i64) -> Result<(), StorageError> {
    let version = engine.version();
    let Some(measurement) = version.measurement(&id("cpu")) else { return Ok(()) };
    let tags = measurement.schema().tags().to_vec();
    let values = tags.iter().map(|_| (host > 0).then(|| host.to_string())).collect();
    if tags.is_empty() && host > 0 {
        return Ok(());
    }
    let points = PointSet::new(tags, [(values, Timestamp::from_secs(secs))]);
    engine.delete_points(&version, &id("cpu"), points).await.map(drop)
}

/// The model in the form of [`read`]; fields in order of the schema there, so sorted here too.
pub(super) fn shown(model: &Model) -> Vec<String> {
    let row = |((host, time), fields): (&(u8, i64), &BTreeMap<u8, i64>)| {
        let fields: Vec<String> = fields.iter().map(|(f, value)| format!("f{f}={value}")).collect();
        format!("{} {} {time}", keys(*host), fields.join(","))
    };
    let mut rows: Vec<String> = model.iter().map(row).collect();
    rows.sort_unstable();
    rows
}

/// Fields come in the order of the schema, which depends on what was written first.
pub(super) fn with_sorted_fields(rows: Vec<String>) -> Vec<String> {
    let sort = |row: String| {
        let [keys, fields, time] = row.split(' ').collect::<Vec<_>>()[..] else { unreachable!() };
        let mut fields: Vec<&str> = fields.split(',').collect();
        fields.sort_unstable();
        format!("{keys} {} {time}", fields.join(","))
    };
    let mut rows: Vec<String> = rows.into_iter().map(sort).collect();
    rows.sort_unstable();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_history_reads_like_a_map(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let settings =
                Settings { compact_segments: 2, window_points: 5, ..Settings::default() };
            let mut harness = Harness::with(settings).await;
            let mut model = Model::new();
            for (at, step) in steps.iter().enumerate() {
                apply(&mut model, step);
                let pinned = harness.engine.version();
                let before = read(&pinned, "cpu").await;
                match step {
                    Step::Crash => harness = harness.after_crash().await,
                    step => carry_out(&harness.engine, step).await,
                }
                let rows = with_sorted_fields(harness.read("cpu").await);
                prop_assert_eq!(rows, shown(&model), "after step {} {:?}", at, step);
                // The folder of before a crash is gone.
                if !matches!(step, Step::Crash) {
                    let now = read(&pinned, "cpu").await;
                    prop_assert_eq!(now, before, "a version changed in step {} {:?}", at, step);
                }
            }
            Ok(())
        })?;
    }
}
