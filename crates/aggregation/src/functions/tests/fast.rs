//! `sum_fast` and `histogram`.

use super::*;

fn hundreds() -> Vec<Point> {
    let point = |n: i64| Point {
        secs: n % 20,
        host: Some(if n % 2 == 0 { "a" } else { "b" }),
        f: (n % 7 != 0).then_some((n * 37 % 250) as f64 / 8.0 - 10.0),
        i: Some(n * 31 % 25 - 5),
        u: Some(n as u64),
        ..Point::default()
    };
    (0..500).map(point).collect()
}

#[tokio::test]
async fn fast_sums_are_sums() {
    let points = hundreds();
    let one = session(&points, 1);
    let expected = rows(
        &one,
        "SELECT host, sum(f), CAST(sum(i) AS DOUBLE), CAST(sum(u) AS DOUBLE) FROM m GROUP BY host",
    );
    // Eighths add up without rounding.
    let expected = expected.await.unwrap();
    for partitions in [1, 4] {
        let context = session(&points, partitions);
        let raw = "SELECT host, sum_fast(f), sum_fast(i), sum_fast(u) FROM m GROUP BY host";
        assert_eq!(rows(&context, raw).await.unwrap(), expected);
        let merged = "SELECT host, sum_fast_finish(sum_fast_merge(f)), \
                      sum_fast_finish(sum_fast_merge(i)), sum_fast_finish(sum_fast_merge(u)) FROM \
                      (SELECT host, time, sum_fast_partial(f) AS f, sum_fast_partial(i) AS i, \
                       sum_fast_partial(u) AS u FROM m GROUP BY host, time) GROUP BY host";
        assert_eq!(rows(&context, merged).await.unwrap(), expected);
    }
    let context = session(&points, 2);
    assert_eq!(row(&context, "SELECT sum_fast(f), sum_fast(i) FROM m WHERE false").await, "-,-");
    let moving =
        "SELECT sum_fast(u) OVER (ORDER BY u ROWS 1 PRECEDING) AS s FROM m ORDER BY u LIMIT 3";
    assert_eq!(rows(&context, moving).await.unwrap(), ["0.0", "1.0", "3.0"]);
    let large = Point { i: Some(i64::MAX), ..Point::default() };
    let context = session(&[large.clone(), Point { secs: 1, ..large }], 2);
    assert_eq!(row(&context, "SELECT sum_fast(i) FROM m").await, "1.8446744073709552e19");
}

#[tokio::test]
async fn plans_say_what_depends_on_order() {
    let context = session(&hundreds(), 2);
    for (sql, is_noted) in [
        ("SELECT sum_fast(f) FROM m", true),
        (
            "SELECT sum_fast_finish(sum_fast_merge(p)) FROM (SELECT sum_fast_partial(f) AS p FROM m)",
            true,
        ),
        ("SELECT sum(f) FROM m", false),
    ] {
        let plan = context.sql(sql).await.unwrap().into_optimized_plan().unwrap().to_string();
        assert_eq!(plan.contains("(order-dependent)"), is_noted, "{plan}");
        let names = context.sql(sql).await.unwrap().schema().to_string();
        assert!(!names.contains("order-dependent"), "{names}");
    }
    let read = AggregateFunction::SumFast.finish_expr("p", FieldType::Float, Vec::new());
    assert_eq!(read.to_string(), "sum_fast_finish (order-dependent)(p)");
}

#[tokio::test]
async fn histograms_merge() {
    let points = hundreds();
    let one = session(&points, 1);
    let raw = "SELECT host, histogram(f, -5, 0, 7.5), histogram(i, 0), histogram(u, 100, 200) FROM m \
               GROUP BY host";
    let expected = rows(&one, raw).await.unwrap();
    assert_eq!(
        row(&one, "SELECT histogram(u, 100, 200.5), histogram(f, 0) FROM m WHERE u < 210").await,
        r#"{"bounds":[100,200.5],"counts":[100,101,9]},{"bounds":[0],"counts":[56,124]}"#
    );
    for partitions in [1, 4] {
        let context = session(&points, partitions);
        assert_eq!(rows(&context, raw).await.unwrap(), expected);
        let merged = "SELECT host, histogram_finish(histogram_merge(f)), \
                      histogram_finish(histogram_merge(i)), histogram_finish(histogram_merge(u)) \
                      FROM (SELECT host, time, histogram_partial(f, -5, 0, 7.5) AS f, \
                       histogram_partial(i, 0) AS i, histogram_partial(u, 100, 200) AS u FROM m \
                       GROUP BY host, time) GROUP BY host";
        assert_eq!(rows(&context, merged).await.unwrap(), expected);
    }
    assert_eq!(row(&one, "SELECT histogram(f, 1) FROM m WHERE false").await, "-");
    let moving =
        "SELECT histogram(u, 2) OVER (ORDER BY u ROWS 1 PRECEDING) AS h FROM m WHERE u < 3";
    assert_eq!(
        rows(&one, moving).await.unwrap(),
        [[1, 0], [1, 1], [2, 0]]
            .map(|counts| format!(r#"{{"bounds":[2],"counts":[{},{}]}}"#, counts[0], counts[1]))
    );
}

#[tokio::test]
async fn histograms_of_different_bounds_do_not_merge() {
    let context = session(&hundreds(), 2);
    let sql = "SELECT histogram_finish(histogram_merge(p), host) FROM \
               (SELECT host, histogram_partial(f, 1) AS p FROM m GROUP BY host UNION ALL \
                SELECT host, histogram_partial(f, 2) AS p FROM m GROUP BY host) \
               WHERE host = 'a' GROUP BY host";
    assert_eq!(
        of_plan(error(&context, sql).await),
        (
            ErrorKind::Computation,
            "histograms of different bounds mix in one group in host=a; merge those of one \
             definition only"
                .to_owned()
        )
    );
}

#[tokio::test]
async fn histograms_need_bounds() {
    let context = session(&hundreds()[..9], 2);
    let many = (0..21).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let many = format!("SELECT histogram(f, {many}) FROM m");
    for (sql, expected) in [
        ("SELECT histogram(f) FROM m", "histogram(x, 0.1, 0.5, 1)"),
        ("SELECT histogram(f, 2, 1) FROM m", "1 to 20 constants that ascend"),
        ("SELECT histogram(f, i) FROM m", "1 to 20 constants that ascend"),
        ("SELECT histogram(f, 1, NULL) FROM m", "1 to 20 constants that ascend"),
        ("SELECT histogram_partial(f, 2, 1) FROM m", "1 to 20 constants that ascend"),
        (&*many, "1 to 20 constants that ascend"),
        ("SELECT histogram(f, 'x') FROM m", "are numbers, not Utf8"),
        ("SELECT histogram(s, 1) FROM m", "does not take values of type Utf8"),
        ("SELECT histogram_finish(sum_partial(f)) FROM m", "not of histogram"),
    ] {
        let error = error(&context, sql).await.to_string();
        assert!(error.contains(expected), "{sql}: {error}");
    }
}
