//! Groups beside a plain computation, however the rows are spread and the groups handed on.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int64Array, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use arrow::datatypes::{TimeUnit, TimestampNanosecondType};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::functions_aggregate::{average::avg_udaf, sum::sum_udaf};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{cast, col, is_not_null};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;

use super::exec::GroupRunsExec;
use super::keys::Keys;
use super::worker::{Aggregate, Grouping};

type Row = (Option<String>, Option<i64>, Option<i64>);

fn input_schema() -> SchemaRef {
    let tag = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    Arc::new(Schema::new(vec![
        Field::new("host", tag, true),
        Field::new("time", time, true),
        Field::new("value", DataType::Int64, true),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let hosts: DictionaryArray<Int32Type> = rows.iter().map(|row| row.0.as_deref()).collect();
    let times: TimestampNanosecondArray = rows.iter().map(|row| row.1).collect();
    let values: Int64Array = rows.iter().map(|row| row.2).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(hosts), Arc::new(times), Arc::new(values)];
    RecordBatch::try_new(input_schema(), columns).unwrap()
}

/// Rows in runs, with NULLs everywhere.
fn rows(seed: u64, count: usize) -> Vec<Row> {
    let mut state = seed;
    let mut below = move |end: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    let mut made: Vec<Row> = Vec::new();
    while made.len() < count {
        let host = below(6);
        let host = (host > 0).then(|| format!("host {host}"));
        let time = (below(5) > 0).then(|| below(3).cast_signed() - 1);
        for _ in 0..=below(4) {
            let value = (below(4) > 0).then(|| below(100).cast_signed());
            made.push((host.clone(), time, value));
        }
    }
    made
}

fn plan(partitions: &[Vec<RecordBatch>], groups_at_once: usize) -> Arc<dyn ExecutionPlan> {
    let schema = input_schema();
    let input = MemorySourceConfig::try_new_exec(partitions, Arc::clone(&schema), None).unwrap();
    let value = col("value", &schema).unwrap();
    let float = cast(Arc::clone(&value), &schema, DataType::Float64).unwrap();
    let aggregate = |udaf, value: &Arc<dyn PhysicalExpr>, name: &str, filter| {
        let builder = AggregateExprBuilder::new(udaf, vec![Arc::clone(value)]);
        let function = builder.schema(Arc::clone(&schema)).alias(name).build().unwrap();
        Aggregate { function: Arc::new(function), filter, is_partial: false }
    };
    let has_host = is_not_null(col("host", &schema).unwrap()).unwrap();
    let aggregates = vec![
        aggregate(sum_udaf(), &value, "sum", None),
        aggregate(avg_udaf(), &float, "mean", None),
        aggregate(sum_udaf(), &value, "sum with host", Some(has_host)),
    ];
    let fields = [
        schema.field(0).clone(),
        schema.field(1).clone(),
        Field::new("sum", DataType::Int64, true),
        Field::new("mean", DataType::Float64, true),
        Field::new("sum with host", DataType::Int64, true),
    ];
    let keys = ["host", "time"].map(|name| col(name, &schema).unwrap());
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let grouping = Grouping { keys: keys.to_vec(), aggregates, schema, groups_at_once };
    Arc::new(GroupRunsExec::new(input, Arc::new(grouping)))
}

type Answer = BTreeMap<(Option<String>, Option<i64>), (Option<i64>, Option<f64>, Option<i64>)>;

async fn found(plan: Arc<dyn ExecutionPlan>) -> Answer {
    let batches = collect(plan, SessionContext::new().task_ctx()).await.unwrap();
    let mut answer = Answer::new();
    for batch in batches {
        let hosts = batch.column(0).as_dictionary::<Int32Type>();
        let hosts = hosts.downcast_dict::<StringArray>().unwrap();
        let times = batch.column(1).as_primitive::<TimestampNanosecondType>();
        let integers = |at: usize| batch.column(at).as_primitive::<Int64Type>();
        let means = batch.column(3).as_primitive::<arrow::datatypes::Float64Type>();
        for (row, host) in hosts.into_iter().enumerate() {
            let time = times.is_valid(row).then(|| times.value(row));
            let integer = |at: usize| integers(at).is_valid(row).then(|| integers(at).value(row));
            let mean = means.is_valid(row).then(|| means.value(row));
            let group = (host.map(str::to_owned), time);
            let before = answer.insert(group.clone(), (integer(2), mean, integer(4)));
            assert_eq!(before, None, "{group:?} is there twice");
        }
    }
    answer
}

fn expected(rows: &[Row]) -> Answer {
    let mut groups: BTreeMap<_, Vec<i64>> = BTreeMap::new();
    for (host, time, value) in rows {
        groups.entry((host.clone(), *time)).or_default().extend(value);
    }
    let answer = groups.into_iter().map(|(group, values)| {
        let sum = (!values.is_empty()).then(|| values.iter().sum::<i64>());
        let mean = sum.map(|sum| sum as f64 / values.len() as f64);
        let with_host = sum.filter(|_| group.0.is_some());
        (group, (sum, mean, with_host))
    });
    answer.collect()
}

#[tokio::test]
async fn groups_are_whole_however_rows_are_spread() {
    for (seed, partitions, groups_at_once) in [(1, 1, 1000), (2, 1, 3), (3, 3, 1000), (4, 3, 2)] {
        let rows = rows(seed, 500);
        let mut spread: Vec<Vec<RecordBatch>> = vec![Vec::new(); partitions];
        for (at, part) in rows.chunks(37).enumerate() {
            spread[at % partitions].push(batch(part));
        }
        let answer = found(plan(&spread, groups_at_once)).await;
        assert_eq!(answer, expected(&rows), "seed {seed}");
    }
    assert_eq!(found(plan(&[vec![], vec![]], 10)).await, Answer::new());
}

#[test]
fn texts_keep_their_numbers_across_dictionaries() {
    let types = [DataType::Utf8, input_schema().field(0).data_type().clone()];
    let mut keys = Keys::of(types.iter()).unwrap();
    let texts = |texts: [Option<&str>; 3]| -> Vec<ArrayRef> {
        let tags: DictionaryArray<Int32Type> = texts.into_iter().collect();
        vec![Arc::new(StringArray::from(texts.to_vec())), Arc::new(tags)]
    };
    let mut numbers = Vec::new();
    keys.number(&texts([Some("b"), None, Some("a")]), &mut numbers).unwrap();
    assert_eq!(numbers, [0, 1, 2]);
    keys.number(&texts([Some("a"), Some(""), Some("b")]), &mut numbers).unwrap();
    assert_eq!(numbers, [2, 3, 0], "an empty text is not NULL");
    let arrays = keys.arrays(1..4).unwrap();
    let expected = [None, Some("a"), Some("")];
    assert_eq!(arrays[0].as_string::<i32>().iter().collect::<Vec<_>>(), expected);
    let tags = arrays[1].as_dictionary::<Int32Type>().downcast_dict::<StringArray>().unwrap();
    assert_eq!(tags.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn floats_are_no_keys() {
    assert!(!Keys::support([DataType::Float64].iter()));
    assert!(Keys::of([DataType::Float64].iter()).is_err());
}

#[test]
fn a_chunk_has_its_own_texts_only() {
    let tag = input_schema().field(0).data_type().clone();
    let mut keys = Keys::of([&tag].into_iter()).unwrap();
    let mut numbers = Vec::new();
    for part in 0..3 {
        let hosts: DictionaryArray<Int32Type> = (0..100)
            .map(|i| Some(format!("host {}", 100 * part + i)))
            .collect::<Vec<_>>()
            .iter()
            .map(|host| host.as_deref())
            .collect();
        keys.clear();
        keys.number(&[Arc::new(hosts)], &mut numbers).unwrap();
        let arrays = keys.arrays(10..20).unwrap();
        let tags = arrays[0].as_dictionary::<Int32Type>();
        assert_eq!(tags.values().len(), 10);
        let tags = tags.downcast_dict::<StringArray>().unwrap();
        assert_eq!(tags.into_iter().next(), Some(Some(&*format!("host {}", 100 * part + 10))));
    }
}
