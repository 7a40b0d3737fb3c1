//! The functions as queries see them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{Field, Int32Type, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::DataFusionError;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{SessionConfig, SessionContext, ident};
use highwater_core::schema::{tag_data_type, time_data_type};
use highwater_core::{ErrorKind, FieldType};
use highwater_query::QueryError;

use super::*;
use crate::partial::Spread;

mod counters;
mod fast;
mod sets;
mod spread;

const SECOND: i64 = 1_000_000_000;

/// A point of the table `m`: tags host, fields f (float), i (integer), u (unsigned), b, s.
#[derive(Clone, Default)]
struct Point {
    secs: i64,
    host: Option<&'static str>,
    f: Option<f64>,
    i: Option<i64>,
    u: Option<u64>,
    b: Option<bool>,
    s: Option<&'static str>,
}

fn batch(points: &[Point]) -> RecordBatch {
    let field = |name: &str, field_type: FieldType| Field::new(name, field_type.arrow(), true);
    let schema = Schema::new(vec![
        Field::new("time", time_data_type(), false),
        Field::new("host", tag_data_type(), true),
        field("f", FieldType::Float),
        field("i", FieldType::Integer),
        field("u", FieldType::Unsigned),
        field("b", FieldType::Boolean),
        field("s", FieldType::String),
    ]);
    let times = points.iter().map(|p| p.secs * SECOND);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from_iter_values(times)),
        Arc::new(points.iter().map(|p| p.host).collect::<DictionaryArray<Int32Type>>()),
        Arc::new(points.iter().map(|p| p.f).collect::<Float64Array>()),
        Arc::new(points.iter().map(|p| p.i).collect::<Int64Array>()),
        Arc::new(points.iter().map(|p| p.u).collect::<UInt64Array>()),
        Arc::new(points.iter().map(|p| p.b).collect::<BooleanArray>()),
        Arc::new(points.iter().map(|p| p.s).collect::<StringArray>()),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

/// A session over `m`, its points dealt out to this many partitions.
fn session(points: &[Point], partitions: usize) -> SessionContext {
    session_with(SessionConfig::new(), points, partitions)
}

fn session_with(config: SessionConfig, points: &[Point], partitions: usize) -> SessionContext {
    let context = SessionContext::new_with_config(
        config.with_target_partitions(partitions).with_batch_size(3),
    );
    register(&context).unwrap();
    let dealt = (0..partitions).map(|partition| {
        let own: Vec<Point> = points.iter().skip(partition).step_by(partitions).cloned().collect();
        own.chunks(3).map(batch).collect::<Vec<_>>()
    });
    let table = MemTable::try_new(batch(&[]).schema(), dealt.collect()).unwrap();
    context.register_table("m", Arc::new(table)).unwrap();
    context
}

/// Rows as `a,b,c`, sorted.
async fn rows(context: &SessionContext, sql: &str) -> Result<Vec<String>> {
    written(context.sql(sql).await?.collect().await?)
}

fn written(batches: Vec<RecordBatch>) -> Result<Vec<String>> {
    let options = FormatOptions::new().with_null("-");
    let mut rows = Vec::new();
    for batch in &batches {
        let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|column| column.value(row).to_string());
            rows.push(cells.collect::<Vec<_>>().join(","));
        }
    }
    rows.sort();
    Ok(rows)
}

async fn row(context: &SessionContext, sql: &str) -> String {
    rows(context, sql).await.unwrap().join(" / ")
}

async fn error(context: &SessionContext, sql: &str) -> DataFusionError {
    rows(context, sql).await.unwrap_err()
}

/// What the server makes of an error of a plan.
fn of_plan(error: DataFusionError) -> (ErrorKind, String) {
    let error = QueryError::from(error);
    (error.kind(), error.to_string())
}

/// 60 points of 4 hosts over 10 minutes, with NULLs and values of many magnitudes.
fn many_points() -> Vec<Point> {
    let hosts = [Some("a"), Some("b"), Some("c"), None];
    let words = [Some("x"), Some("ä"), None, Some("")];
    (0..60i64)
        .map(|n| Point {
            secs: n * 7 % 23 * 30,
            host: hosts[n as usize * 5 % 4],
            f: (n % 5 != 0).then(|| (n * n % 17 - 8) as f64 * 10f64.powi((n % 7) as i32 * 3 - 9)),
            i: (n % 4 != 1).then(|| (n - 30) * 1_000_003 + (1 << 55)),
            u: (n % 3 != 0).then_some(n as u64 * n as u64),
            b: (n % 6 != 2).then_some(n % 7 == 0),
            s: words[n as usize % 4],
        })
        .collect()
}

const CALLS: [(&str, &str); 36] = [
    ("sum", "f"),
    ("sum", "i"),
    ("sum", "u"),
    ("mean", "f"),
    ("mean", "i"),
    ("mean", "u"),
    ("count", "f"),
    ("count", "s"),
    ("count", "host"),
    ("min", "f"),
    ("min", "i"),
    ("min", "b"),
    ("min", "s"),
    ("min", "host"),
    ("min", "time"),
    ("max", "f"),
    ("max", "u"),
    ("max", "b"),
    ("max", "s"),
    ("max", "time"),
    ("first", "f"),
    ("first", "i"),
    ("first", "host"),
    ("last", "u"),
    ("last", "b"),
    ("last", "s"),
    ("first_time", "f"),
    ("last_time", "host"),
    ("last_time", "i"),
    ("stddev", "f"),
    ("stddev_pop", "i"),
    ("stddev_samp", "u"),
    ("variance", "f"),
    ("var", "i"),
    ("var_samp", "u"),
    ("var_pop", "f"),
];

/// One of each, for queries that take their time.
const FEW: [(&str, &str); 12] = [
    ("sum", "f"),
    ("sum", "i"),
    ("mean", "u"),
    ("count", "s"),
    ("min", "s"),
    ("max", "f"),
    ("first", "host"),
    ("last", "b"),
    ("first_time", "s"),
    ("stddev", "f"),
    ("variance_pop", "i"),
    ("approx_distinct", "f"),
];

#[tokio::test]
async fn merged_partials_equal_the_function_over_points() {
    let points = many_points();
    for partitions in [1, 4] {
        let context = session(&points, partitions);
        for (f, x) in CALLS {
            let raw = format!("SELECT host, {f}({x}) FROM m GROUP BY host");
            let expected = rows(&context, &raw).await.unwrap();
            assert!(expected.len() == 4 && expected.iter().any(|row| !row.ends_with('-')), "{raw}");
            let merged = format!(
                "SELECT host, {f}_finish({f}_merge(p)) FROM \
                 (SELECT host, time, {f}_partial({x}) AS p FROM m GROUP BY host, time) \
                 GROUP BY host"
            );
            assert_eq!(rows(&context, &merged).await.unwrap(), expected, "{merged}");
            let whole = row(&context, &format!("SELECT {f}({x}) FROM m")).await;
            let merged = format!(
                "SELECT {f}_finish({f}_merge(p)) FROM \
                 (SELECT {f}_partial({x}) AS p FROM m GROUP BY host)"
            );
            assert_eq!(row(&context, &merged).await, whole, "{merged}");
        }
    }
}

#[tokio::test]
async fn partial_aggregation_may_be_skipped() {
    let config = SessionConfig::new()
        .set_usize("datafusion.execution.skip_partial_aggregation_probe_rows_threshold", 1)
        .set_str("datafusion.execution.skip_partial_aggregation_probe_ratio_threshold", "0.0");
    let points = many_points();
    let (skipping, plain) = (session_with(config, &points, 4), session(&points, 1));
    for (f, x) in FEW {
        for sql in [
            format!("SELECT host, time, {f}({x}) FILTER (WHERE f > 0) FROM m GROUP BY host, time"),
            format!("SELECT host, {f}_partial({x}) FROM m GROUP BY host"),
            format!(
                "SELECT h, {f}_finish({f}_merge(p) FILTER (WHERE h <> 'b')) FROM \
                 (SELECT host AS h, time, {f}_partial({x}) AS p FROM m GROUP BY host, time) \
                 GROUP BY h"
            ),
        ] {
            let expected = rows(&plain, &sql).await.unwrap();
            assert_eq!(rows(&skipping, &sql).await.unwrap(), expected, "{sql}");
        }
    }
}

/// Groups that come in order are given out as soon as they are complete.
#[tokio::test]
async fn ordered_groups_are_given_out_early() {
    let mut points = many_points();
    points.sort_by_key(|point| point.secs);
    let (ordered, plain) = (session(&[], 1), session(&points, 1));
    let batches = points.chunks(3).map(batch).collect();
    let table = MemTable::try_new(batch(&[]).schema(), vec![batches]).unwrap();
    let table = table.with_sort_order(vec![vec![ident("time").sort(true, false)]]);
    ordered.register_table("sorted", Arc::new(table)).unwrap();
    for (f, x) in FEW {
        let raw = format!("SELECT time, host, {f}({x}) FROM m GROUP BY time, host");
        let partials = format!("SELECT time, b, {f}_partial({x}) AS p FROM m GROUP BY time, b");
        let merged =
            format!("SELECT time, {f}_finish({f}_merge(p)) FROM ({partials}) GROUP BY time");
        for sql in [raw, merged] {
            let sorted = sql.replace("FROM m ", "FROM sorted ");
            let plan = written(
                ordered.sql(&format!("EXPLAIN {sorted}")).await.unwrap().collect().await.unwrap(),
            );
            assert!(plan.unwrap().concat().contains("ordering_mode="), "{sorted}");
            assert_eq!(
                rows(&ordered, &sorted).await.unwrap(),
                rows(&plain, &sql).await.unwrap(),
                "{sql}"
            );
        }
    }
}

#[tokio::test]
async fn functions_are_listed_and_work_in_subqueries() {
    let config = SessionConfig::new().with_information_schema(true);
    let context = session_with(config, &many_points(), 2);
    let listed = "SELECT DISTINCT routine_name FROM information_schema.routines \
                  WHERE routine_name IN ('last', 'mean', 'sum_merge', 'max_finish')";
    assert_eq!(rows(&context, listed).await.unwrap().len(), 4);
    let correlated = |sum: &str| {
        format!("SELECT DISTINCT a.host, (SELECT {sum} FROM m b WHERE b.host = a.host) FROM m a")
    };
    let (integers, floats) = (correlated("sum(u)"), correlated("sum(CAST(u AS DOUBLE))::BIGINT"));
    assert_eq!(rows(&context, &integers).await.unwrap(), rows(&context, &floats).await.unwrap());
}

#[tokio::test]
async fn filters_hide_points() {
    let context = session(&many_points(), 3);
    for (f, x) in CALLS {
        let filtered = format!("SELECT {f}({x}) FILTER (WHERE u > 100) FROM m");
        let where_ = format!("SELECT {f}({x}) FROM m WHERE u > 100");
        assert_eq!(row(&context, &filtered).await, row(&context, &where_).await, "{filtered}");
        let filtered = format!(
            "SELECT {f}_finish({f}_partial({x}) FILTER (WHERE u > 100)) FROM m GROUP BY true"
        );
        assert_eq!(row(&context, &filtered).await, row(&context, &where_).await, "{filtered}");
    }
}

#[tokio::test]
async fn of_nothing_counts_are_zero_and_the_rest_null() {
    let points = [Point { secs: 1, host: Some("a"), ..Point::default() }];
    let context = session(&points, 2);
    let raw = "sum(f), sum(i), avg(f), min(f), max(s), first(f), last(b), count(f), count(*)";
    for tail in ["", " GROUP BY host", " WHERE false"] {
        let rows = row(&context, &format!("SELECT {raw} FROM m{tail}")).await;
        let points = if tail == " WHERE false" { 0 } else { 1 };
        assert_eq!(rows, format!("-,-,-,-,-,-,-,0,{points}"), "{tail}");
    }
    let partials = "sum_partial(f), mean_partial(i), last_partial(f), max_partial(s)";
    assert_eq!(row(&context, &format!("SELECT {partials} FROM m GROUP BY host")).await, "-,-,-,-");
    let finished = "SELECT count_finish(count_merge(p)), count_finish(min(p)) FROM \
                    (SELECT CAST(NULL AS BYTEA) AS p)";
    assert_eq!(row(&context, finished).await, "0,0");
    let counts = "SELECT count_finish(count_partial(f)), count_finish(count_partial(1)) FROM m";
    assert_eq!(row(&context, counts).await, "0,1");
}

#[tokio::test]
async fn float_sums_are_exact_in_any_partitioning() {
    let values = [1e16, 1.0, -1e16];
    let points: Vec<Point> =
        values.iter().map(|v| Point { f: Some(*v), ..Point::default() }).collect();
    for partitions in 1..4 {
        let context = session(&points, partitions);
        assert_eq!(row(&context, "SELECT sum(f), avg(f) FROM m").await, "1.0,0.3333333333333333");
        let sliding = "SELECT sum(f) OVER (ORDER BY f ROWS 2 PRECEDING) FROM m";
        assert_eq!(rows(&context, sliding).await.unwrap(), ["-1e16", "-1e16", "1.0"]);
    }
}

#[tokio::test]
async fn at_equal_times_the_greater_value_wins() {
    let point = |host, f| Point { host: Some(host), f: Some(f), ..Point::default() };
    let context = session(&[point("a", 1.0), point("b", 2.0), point("c", 1.5)], 3);
    assert_eq!(row(&context, "SELECT first(f), last(f) FROM m").await, "2.0,2.0");
    assert_eq!(row(&context, "SELECT first(host, time), last(host) FROM m").await, "c,c");
}

#[tokio::test]
async fn an_overflowing_sum_says_where() {
    let point = |secs, host, i| Point { secs, host, i: Some(i), ..Point::default() };
    let mut points = vec![
        point(1_704_067_200, Some("a"), i64::MAX),
        point(1_704_067_200, Some("a"), 1),
        point(1_704_067_200, None, 5),
    ];
    let labelled = [
        "SELECT time, host, sum(i) FROM m GROUP BY time, host",
        "SELECT host, time, sum(i) + 1 AS more FROM m GROUP BY time, host HAVING sum(i) > 0",
        "SELECT sum_finish(sum_merge(p), time, host) FROM (SELECT time, host, f, \
         sum_partial(i) AS p FROM m GROUP BY time, host, f) GROUP BY time, host",
    ];
    let context = session(&points, 2);
    for sql in labelled {
        let error = error(&context, sql).await;
        let (kind, message) = of_plan(error);
        assert_eq!(kind, ErrorKind::Computation, "{sql}: {message}");
        assert_eq!(
            message,
            "sum of integers overflows in time=2024-01-01T00:00:00Z, host=a; read fewer points \
             or cast to DOUBLE"
        );
    }
    let error = error(&context, "SELECT sum(i) FROM m").await;
    assert_eq!(
        of_plan(error),
        (
            ErrorKind::Computation,
            "sum of integers overflows; read fewer points or cast to DOUBLE".to_owned()
        )
    );
    let others = "SELECT host, sum(i) FROM m WHERE host IS NULL GROUP BY host";
    assert_eq!(row(&context, others).await, "-,5");
    let float = "SELECT sum(CAST(i AS DOUBLE)), avg(i) FROM m WHERE host = 'a'";
    assert_eq!(row(&context, float).await, "9.223372036854776e18,4.611686018427388e18");
    points.push(point(1_704_067_200, Some("a"), -5));
    for sql in labelled {
        assert!(rows(&session(&points, 2), sql).await.is_ok());
    }
    let back = "SELECT sum(i) FROM m WHERE host = 'a'";
    assert_eq!(row(&session(&points, 2), back).await, "9223372036854775803");
}

#[tokio::test]
async fn labels_do_not_change_the_shape_of_a_query() {
    let context = session(&many_points(), 2);
    let rollup =
        "SELECT host, b, sum(u), count(*), grouping(host) FROM m GROUP BY ROLLUP (host, b)";
    let floats = "SELECT host, b, sum(u)::DOUBLE::BIGINT, count(*), grouping(host) FROM m GROUP BY ROLLUP (host, b)";
    let cast = "SELECT host, b, sum(CAST(u AS DOUBLE))::BIGINT, count(*), grouping(host) FROM m \
                GROUP BY ROLLUP (host, b)";
    assert_eq!(rows(&context, rollup).await.unwrap(), rows(&context, cast).await.unwrap());
    assert_eq!(rows(&context, floats).await.unwrap(), rows(&context, cast).await.unwrap());
    let twice = "SELECT host, sum(i), sum(i) AS again, sum(i) FILTER (WHERE i > 0) FROM m \
                 GROUP BY host ORDER BY sum(i) DESC LIMIT 1";
    let frame = context.sql(twice).await.unwrap();
    let names: Vec<_> = frame.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["host", "sum(m.i)", "again", "sum(m.i) FILTER (WHERE m.i > Int64(0))"]);
    assert_eq!(frame.collect().await.unwrap()[0].num_rows(), 1);
}

#[tokio::test]
async fn windows_slide_and_grow() {
    let context = session(&many_points(), 2);
    for (f, x) in FEW {
        let over =
            "OVER (PARTITION BY host ORDER BY time, f ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING)";
        // The same window as a join of numbered rows with themselves.
        let numbered = "WITH n AS (SELECT *, row_number() OVER (PARTITION BY host \
                        ORDER BY time, f) AS row FROM m WHERE host = 'a')";
        let arguments = if ["first", "last", "first_time"].contains(&f) {
            format!("w.{x}, w.time")
        } else {
            format!("w.{x}")
        };
        let joined = format!(
            "{numbered} SELECT n.row, {f}({arguments}) FROM n JOIN n AS w ON w.row >= n.row - 2 \
             AND w.row <= n.row + 1 GROUP BY n.row"
        );
        let window = format!("{numbered} SELECT row, {f}({x}) {over} FROM n");
        assert_eq!(
            rows(&context, &window).await.unwrap(),
            rows(&context, &joined).await.unwrap(),
            "{window}"
        );
        let growing = format!(
            "{numbered} SELECT {f}({x}) OVER (ORDER BY row) FROM n ORDER BY row DESC LIMIT 1"
        );
        let whole = format!("SELECT {f}({x}) FROM m WHERE host = 'a'");
        assert_eq!(row(&context, &growing).await, row(&context, &whole).await, "{growing}");
    }
}

#[tokio::test]
async fn partials_merge_over_windows() {
    let context = session(&many_points(), 1);
    for (f, x) in FEW {
        let partials = format!(
            "WITH p AS (SELECT time, {f}_partial({x}) AS p FROM m GROUP BY time), \
             untyped AS (SELECT time, nullif(p, '') AS p FROM p)"
        );
        let frame = "ROWS BETWEEN 3 PRECEDING AND CURRENT ROW";
        let merged = format!("SELECT time, {f}_merge(p) OVER (ORDER BY time {frame})");
        let expected = format!("{partials} {merged} FROM p");
        let untyped = format!("{partials} {merged} FROM untyped");
        let expected = rows(&context, &expected).await.unwrap();
        assert_eq!(expected.len(), 23);
        assert_eq!(rows(&context, &untyped).await.unwrap(), expected, "{untyped}");
    }
}

#[tokio::test]
async fn distinct_numbers_count_once() {
    let values = [1e16, 1.0, 1.0, -1e16, 1e16, 3.0];
    let points: Vec<Point> = values
        .iter()
        .zip(0..)
        .map(|(v, n)| Point { f: Some(*v), i: Some(n % 3), u: Some(7), ..Point::default() })
        .collect();
    for partitions in [1, 3] {
        let context = session(&points, partitions);
        assert_eq!(row(&context, "SELECT sum(DISTINCT f) FROM m").await, "4.0");
        assert_eq!(
            row(&context, "SELECT avg(f), sum(DISTINCT i) FROM m").await,
            "1666666666666667.5,3"
        );
        assert_eq!(
            row(&context, "SELECT avg(DISTINCT u), sum(DISTINCT u), sum(f) FROM m").await,
            "7.0,7,1.0000000000000004e16"
        );
        let grouped =
            "SELECT b, sum(DISTINCT f), avg(DISTINCT i), count(DISTINCT i) FROM m GROUP BY b";
        assert_eq!(row(&context, grouped).await, "-,4.0,1.0,3");
        // DataFusion would sum per distinct value and round twice.
        assert_eq!(
            row(&context, "SELECT sum(DISTINCT u), sum(f), max(f) FROM m").await,
            "7,1.0000000000000004e16,1e16"
        );
        let partial = error(&context, "SELECT sum_partial(DISTINCT f) FROM m").await.to_string();
        assert!(partial.contains("sum_partial takes no DISTINCT"), "{partial}");
    }
}

#[tokio::test]
async fn extrema_of_floats_follow_the_total_order() {
    let values = [f64::NAN, 1.0, -f64::NAN, f64::INFINITY, -0.0, 0.0];
    let orders: [[usize; 6]; 3] = [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 4, 2]];
    for order in orders {
        let points = order.map(|n| Point { f: Some(values[n]), i: Some(1), ..Point::default() });
        let context = session(&points, 2);
        for tail in ["", " GROUP BY i", " GROUP BY i ORDER BY max(f) LIMIT 1"] {
            let max = context.sql(&format!("SELECT max(f), min(f) FROM m{tail}")).await.unwrap();
            let batch = &max.collect().await.unwrap()[0];
            let bits = |column: usize| {
                batch.column(column).as_any().downcast_ref::<Float64Array>().unwrap().value(0)
            };
            assert_eq!(bits(0).to_bits(), f64::NAN.to_bits(), "{tail}");
            assert_eq!(bits(1).to_bits(), (-f64::NAN).to_bits(), "{tail}");
        }
        let zeros = "SELECT i, min(f), max(f) FROM m WHERE f = 0 GROUP BY i";
        assert_eq!(row(&context, zeros).await, "1,-0.0,0.0");
    }
}

#[tokio::test]
async fn top_groups_by_extremum_are_right() {
    let context = session(&many_points(), 2);
    let top = "SELECT host, max(f) AS best FROM m GROUP BY host ORDER BY best DESC LIMIT 2";
    let ranked = "SELECT host, best FROM (SELECT *, row_number() OVER (ORDER BY best DESC) AS rank \
                  FROM (SELECT host, max(f) AS best FROM m GROUP BY host)) WHERE rank <= 2";
    assert_eq!(rows(&context, top).await.unwrap(), rows(&context, ranked).await.unwrap());
}

#[tokio::test]
async fn the_time_of_first_and_last_is_the_one_beside_the_value() {
    let points = [
        Point { secs: 1, f: Some(1.0), u: Some(2), ..Point::default() },
        Point { secs: 2, f: Some(2.0), u: Some(1), ..Point::default() },
    ];
    let context = session(&points, 2);
    assert_eq!(row(&context, "SELECT first(f), last(f) AS l FROM m").await, "1.0,2.0");
    let by_other = "SELECT first(f, to_timestamp(CAST(u AS BIGINT))) FROM m";
    assert_eq!(row(&context, by_other).await, "2.0");
    let join = "SELECT first(a.f + 0), last(b.f) FROM m a JOIN m b ON a.u = b.u WHERE b.f < 2";
    assert_eq!(row(&context, join).await, "1.0,1.0");
    let partial = "SELECT last_finish(last_partial(f)) FROM m";
    assert_eq!(row(&context, partial).await, "2.0");
    let nested = "SELECT u, first(f) FROM m GROUP BY u HAVING last(f) > 1";
    assert_eq!(row(&context, nested).await, "1,2.0");
    for (sql, expected) in [
        ("SELECT first(f) FROM (SELECT f FROM m)", "needs a column time"),
        ("SELECT first(1) FROM m a JOIN m b ON a.u = b.u", "several columns time"),
        ("SELECT first(f ORDER BY u) FROM m", "takes no ORDER BY"),
        ("SELECT last(DISTINCT f) FROM m", "takes no DISTINCT"),
        ("SELECT last(f, f) FROM m", "last goes by a timestamp, not by Float64"),
        ("SELECT first(CAST(time AS DATE)) FROM m", "first does not take values of type Date32"),
        ("SELECT sum(s) FROM m", "sum does not take values of type Utf8"),
        ("SELECT sum_partial(b) FROM m", "sum does not take values of type Boolean"),
        ("SELECT sum_merge(f) FROM m", "sum_merge takes partials, not values of type Float64"),
        ("SELECT sum_finish(f) FROM m", "sum_finish takes a partial, not Float64"),
        ("SELECT sum_finish(max_partial(f)) FROM m", "holds partials of max, not of sum"),
        ("SELECT sum_finish(CAST('x' AS BYTEA)) FROM m", "cannot know the type"),
        ("SELECT sum_merge(CAST('xy' AS BYTEA)) FROM m", "partial has version 3"),
        ("SELECT mean_finish(CAST('x' AS BYTEA)) FROM m", "partial ends too early"),
    ] {
        let error = error(&context, sql).await.to_string();
        assert!(error.contains(expected), "{sql}: {error}");
    }
}

#[tokio::test]
async fn narrow_numbers_and_decimals_are_served() {
    let context = session(&[], 2);
    let values = "(VALUES (1, 1.5, 'a'), (2, 2.25, 'b')) AS v(i, d, s)";
    for (call, expected) in [
        ("sum(CAST(i AS SMALLINT))", "3"),
        ("avg(CAST(i AS INT))", "1.5"),
        ("sum(CAST(d AS REAL))", "3.75"),
        ("min(CAST(d AS REAL))", "1.5"),
        ("sum(CAST(d AS DECIMAL(10, 2)))", "3.75"),
        ("avg(CAST(d AS DECIMAL(10, 2)))", "1.875000"),
        ("max(CAST(d AS DECIMAL(10, 2)))", "2.25"),
        ("sum(arrow_cast(i, 'UInt8'))", "3"),
        ("min(arrow_cast(s, 'Utf8View'))", "a"),
        ("mean(d)", "1.875"),
        ("sum(NULL)", "-"),
        ("min(NULL)", "-"),
        ("sum(arrow_cast(i, 'Duration(Second)'))", "PT3S"),
    ] {
        for tail in ["", " GROUP BY true"] {
            let sql = format!("SELECT {call} FROM {values}{tail}");
            assert_eq!(row(&context, &sql).await, expected, "{sql}");
        }
    }
    let partials = format!(
        "SELECT sum_finish(sum_partial(CAST(i AS SMALLINT))), max_finish(max_partial(CAST(d AS REAL))), \
         min_finish(min_partial(arrow_cast(s, 'Dictionary(Int32, Utf8)'))) FROM {values}"
    );
    assert_eq!(row(&context, &partials).await, "3,2.25,a");
}

/// As a refresh and a read do it: plans in code over stored partials whose column says nothing.
#[tokio::test]
async fn plans_in_code_need_no_metadata() {
    let context = session(&many_points(), 3);
    let calls = [
        (AggregateFunction::Count, None, None),
        (AggregateFunction::CountField, Some("f"), Some(FieldType::Float)),
        (AggregateFunction::Sum, Some("i"), Some(FieldType::Integer)),
        (AggregateFunction::Sum, Some("f"), Some(FieldType::Float)),
        (AggregateFunction::Mean, Some("u"), Some(FieldType::Unsigned)),
        (AggregateFunction::Min, Some("s"), Some(FieldType::String)),
        (AggregateFunction::Max, Some("b"), Some(FieldType::Boolean)),
        (AggregateFunction::First, Some("f"), Some(FieldType::Float)),
        (AggregateFunction::Last, Some("host"), Some(FieldType::String)),
        (AggregateFunction::FirstTime, Some("s"), Some(FieldType::String)),
        (AggregateFunction::LastTime, Some("f"), Some(FieldType::Float)),
        (AggregateFunction::Stddev(Spread::Sample), Some("f"), Some(FieldType::Float)),
        (AggregateFunction::Variance(Spread::Population), Some("i"), Some(FieldType::Integer)),
        (AggregateFunction::Distinct, Some("s"), Some(FieldType::String)),
        (AggregateFunction::Distinct, Some("i"), Some(FieldType::Integer)),
        (AggregateFunction::ApproxDistinct, Some("host"), Some(FieldType::String)),
        (AggregateFunction::ApproxPercentile(Fraction::HALF), Some("u"), Some(FieldType::Unsigned)),
    ];
    let named = |make: &dyn Fn(usize, AggregateFunction, Option<&'static str>) -> Expr| {
        let exprs = calls.iter().enumerate().map(|(n, (f, x, _))| make(n, *f, *x));
        exprs.enumerate().map(|(n, expr)| expr.alias(format!("p{n}"))).collect::<Vec<_>>()
    };
    let table = || async { context.table("m").await.unwrap() };
    let groups = vec![ident("host"), ident("time")];
    let partials = named(&|_, f, x| f.partial_expr(x));
    let stored = table().await.aggregate(groups, partials).unwrap().collect().await.unwrap();
    let bare = stored[0]
        .schema()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .map(|f| f.with_metadata(Default::default()))
        .collect::<Vec<_>>();
    let bare = Arc::new(Schema::new(bare));
    let stored: Vec<RecordBatch> = stored
        .into_iter()
        .map(|batch| RecordBatch::try_new(Arc::clone(&bare), batch.columns().to_vec()).unwrap())
        .collect();
    context
        .register_table("stored", Arc::new(MemTable::try_new(bare, vec![stored]).unwrap()))
        .unwrap();
    let merged = named(&|n, f, _| f.merge_expr(&format!("p{n}")));
    let mut finished = vec![ident("host")];
    finished.extend(calls.iter().enumerate().map(|(n, (f, _, input))| {
        f.finish_expr(&format!("p{n}"), f.output_type(*input), vec![ident("host")])
    }));
    let read = context.table("stored").await.unwrap();
    let read = read.aggregate(vec![ident("host")], merged).unwrap().select(finished).unwrap();
    let raw = named(&|_, f, x| f.value_expr(x));
    let raw = table().await.aggregate(vec![ident("host")], raw).unwrap();
    let (read, raw) = (read.collect().await.unwrap(), raw.collect().await.unwrap());
    assert_eq!(written(read).unwrap(), written(raw).unwrap());
}

#[tokio::test]
async fn damaged_partials_are_errors_of_their_own() {
    let context = session(&[], 1);
    let field = partial_field("p", Function::Sum, Some(FieldType::Float));
    let column: ArrayRef =
        Arc::new(BinaryArray::from_vec(vec![b"\x22\x01\xff\xff\xff\xff\xff\x7f"]));
    let schema = Arc::new(Schema::new(vec![field]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
    let table = MemTable::try_new(schema, vec![vec![batch]]).unwrap();
    context.register_table("damaged", Arc::new(table)).unwrap();
    let error = error(&context, "SELECT sum_finish(p) FROM damaged").await;
    assert!(error.to_string().contains("number out of range"), "{error}");
}
