//! Distinct counts and percentiles.

use super::*;

/// 5,000 points of two hosts; f and i run through 2,500 values each, s through 3.
fn thousands() -> Vec<Point> {
    let words = [Some("x"), Some("y"), Some("z"), None];
    let point = |n: i64| Point {
        secs: n % 50,
        host: Some(if n % 2 == 0 { "a" } else { "b" }),
        f: (n % 7 != 0).then_some((n * 37 % 2500) as f64 / 8.0 - 100.0),
        i: Some(n * 31 % 2500),
        u: Some(n as u64),
        b: Some(n % 3 == 0),
        s: words[n as usize % 4],
    };
    (0..5000).map(point).collect()
}

const CALLS: [(&str, &str, &str); 9] = [
    ("\"distinct\"", "distinct", "i"),
    ("\"distinct\"", "distinct", "f"),
    ("\"distinct\"", "distinct", "s"),
    ("\"distinct\"", "distinct", "b"),
    ("\"distinct\"", "distinct", "time"),
    ("\"distinct\"", "distinct", "host"),
    ("approx_distinct", "approx_distinct", "u"),
    ("approx_distinct", "approx_distinct", "s"),
    ("approx_distinct", "approx_distinct", "f"),
];

#[tokio::test]
async fn merged_sets_count_like_one() {
    let points = thousands();
    let one = session(&points, 1);
    for partitions in [1, 4] {
        let context = session(&points, partitions);
        for (f, name, x) in CALLS {
            let raw = format!("SELECT host, {f}({x}) FROM m GROUP BY host");
            let expected = rows(&one, &raw).await.unwrap();
            assert_eq!(rows(&context, &raw).await.unwrap(), expected, "{raw}");
            let merged = format!(
                "SELECT host, {name}_finish({name}_merge(p)) FROM \
                 (SELECT host, time, {name}_partial({x}) AS p FROM m GROUP BY host, time) \
                 GROUP BY host"
            );
            assert_eq!(rows(&context, &merged).await.unwrap(), expected, "{merged}");
        }
        for x in ["i", "f", "s", "b", "time", "host"] {
            let exact = format!("SELECT host, count(DISTINCT {x}) FROM m GROUP BY host");
            let own = format!("SELECT host, \"distinct\"({x}) FROM m GROUP BY host");
            assert_eq!(
                rows(&context, &own).await.unwrap(),
                rows(&context, &exact).await.unwrap(),
                "{own}"
            );
        }
    }
    let estimate: i64 = row(&one, "SELECT approx_distinct(u) FROM m").await.parse().unwrap();
    assert!((4875..=5125).contains(&estimate), "{estimate}");
}

#[tokio::test]
async fn of_nothing_there_are_no_distinct_values() {
    let points = [Point { secs: 1, host: Some("a"), ..Point::default() }];
    let context = session(&points, 2);
    for tail in ["", " GROUP BY host", " WHERE false"] {
        let sql = format!(
            "SELECT approx_distinct(f), \"distinct\"(s), approx_percentile(f, 0.5) FROM m{tail}"
        );
        assert_eq!(row(&context, &sql).await, "0,0,-", "{tail}");
    }
    let partials = "SELECT distinct_finish(distinct_partial(f)), \
                    approx_distinct_finish(approx_distinct_merge(p)), distinct_finish(q), \
                    approx_percentile_finish(approx_percentile_partial(f), 0.5) FROM \
                    (SELECT f, CAST(NULL AS BYTEA) AS p, distinct_merge(CAST(NULL AS BYTEA)) AS q \
                     FROM m GROUP BY f) GROUP BY q";
    assert_eq!(row(&context, partials).await, "0,0,0,-");
    let nothing = "SELECT distinct_partial(f), approx_distinct_partial(f) FROM m GROUP BY host";
    assert_eq!(row(&context, nothing).await, "-,-");
    let correlated = "SELECT (SELECT approx_distinct(b.f) FROM m b WHERE b.i = a.i) FROM m a";
    assert_eq!(row(&context, correlated).await, "0");
}

#[tokio::test]
async fn equal_floats_count_once() {
    let values = [0.0, -0.0, f64::NAN, -f64::NAN, 1.0];
    let points: Vec<Point> =
        values.iter().map(|f| Point { f: Some(*f), ..Point::default() }).collect();
    let context = session(&points, 2);
    assert_eq!(row(&context, "SELECT \"distinct\"(f), approx_distinct(f) FROM m").await, "3,3");
}

#[tokio::test]
async fn too_many_distinct_values_say_where() {
    let context = session(&[], 2);
    let numbers = "(SELECT 'all' AS host, value AS x FROM generate_series(0, 1000000))";
    for sql in [
        format!("SELECT host, \"distinct\"(x) FROM {numbers} GROUP BY host"),
        // What a set of too many integers is written as.
        "SELECT distinct_finish(distinct_merge(p), host) FROM (VALUES ('all', X'2912')) AS v(host, p) \
         GROUP BY host"
            .to_owned(),
    ] {
        assert_eq!(
            of_plan(error(&context, &sql).await),
            (
                ErrorKind::Computation,
                "more than 1000000 distinct values in host=all; use approx_distinct, or smaller \
                 groups"
                    .to_owned()
            )
        );
    }
}

#[tokio::test]
async fn percentiles_of_any_partitioning_have_the_same_bits() {
    let points = thousands();
    let one = session(&points, 1);
    let raw = "SELECT host, approx_percentile(f, 0.5), approx_percentile(i, 0.99), \
               approx_percentile(u, 1), approx_percentile(f, 0.0) FROM m GROUP BY host";
    let merged = "SELECT host, approx_percentile_finish(f, 0.5), \
                  approx_percentile_finish(i, 0.99), approx_percentile_finish(u, 1), \
                  approx_percentile_finish(f, 0) FROM (SELECT host, \
                  approx_percentile_merge(f) AS f, approx_percentile_merge(i) AS i, \
                  approx_percentile_merge(u) AS u FROM (SELECT host, time, \
                  approx_percentile_partial(f) AS f, approx_percentile_partial(i) AS i, \
                  approx_percentile_partial(u) AS u FROM m GROUP BY host, time) GROUP BY host)";
    let expected = rows(&one, raw).await.unwrap();
    for partitions in [1, 4] {
        let context = session(&points, partitions);
        assert_eq!(rows(&context, raw).await.unwrap(), expected);
        assert_eq!(rows(&context, merged).await.unwrap(), expected);
    }
    assert!(expected[0].ends_with(",4998.0,-100.0"), "{expected:?}");
    let moving = "SELECT approx_percentile(u, 0.5) OVER (ORDER BY u ROWS 2 PRECEDING) AS p FROM m \
                  ORDER BY u LIMIT 3";
    assert_eq!(rows(&one, moving).await.unwrap(), ["0.0", "0.5", "1.0078125"]);
}

#[tokio::test]
async fn a_percentile_is_close_to_the_exact_one() {
    let context = session(&[], 2);
    let sql = "SELECT approx_percentile(value, 0.95) BETWEEN 94050 AND 95950, \
               approx_percentile(-value, 0.05) BETWEEN -95950 AND -94050 \
               FROM generate_series(1, 100000)";
    assert_eq!(row(&context, sql).await, "true,true");
}

#[tokio::test]
async fn calls_that_make_no_sense_are_refused() {
    let context = session(&thousands()[..9], 2);
    for (sql, expected) in [
        ("SELECT approx_percentile(f) FROM m", "approx_percentile(x, 0.99)"),
        ("SELECT approx_percentile(f, 1.5) FROM m", "is a number from 0 to 1"),
        ("SELECT approx_percentile(f, i) FROM m", "is a number from 0 to 1"),
        ("SELECT approx_percentile(s, 0.5) FROM m", "does not take values of type Utf8"),
        ("SELECT approx_percentile_partial(f, 0.5) FROM m", "takes one argument, not 2"),
        (
            "SELECT approx_percentile_finish(approx_percentile_partial(f)) FROM m",
            "the second argument of approx_percentile_finish is a number from 0 to 1",
        ),
        (
            "SELECT approx_percentile_finish(approx_percentile_partial(f), i) FROM m GROUP BY i",
            "the second argument of approx_percentile_finish is a number from 0 to 1",
        ),
        ("SELECT distinct_finish(approx_distinct_partial(f)) FROM m", "not of distinct"),
        ("SELECT approx_distinct(f, f) FROM m", "approx_distinct takes one argument, not 2"),
        ("SELECT approx_distinct(DISTINCT f), avg(f) FROM m", "takes no DISTINCT"),
    ] {
        let error = error(&context, sql).await.to_string();
        assert!(error.contains(expected), "{sql}: {error}");
    }
}
