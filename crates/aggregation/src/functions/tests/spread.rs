//! Standard deviation, variance, and the times of the first and the last value.

use super::*;

/// The values of the acceptance test, one point a second.
fn eight() -> Vec<Point> {
    let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
    values
        .iter()
        .zip(0..)
        .map(|(f, secs)| Point { secs, f: Some(*f), ..Point::default() })
        .collect()
}

#[tokio::test]
async fn sample_and_population_have_their_names() {
    for partitions in [1, 3] {
        let context = session(&eight(), partitions);
        let samples = "SELECT stddev(f), stddev_samp(f), variance(f), var(f), var_samp(f), \
                       var_sample(f) FROM m";
        let (stddev, variance) = ("2.138089935299395", "4.571428571428571");
        let expected = [stddev, stddev, variance, variance, variance, variance].join(",");
        assert_eq!(row(&context, samples).await, expected);
        let populations =
            "SELECT stddev_pop(f), var_pop(f), variance_pop(f), var_population(f) FROM m";
        assert_eq!(row(&context, populations).await, "2.0,4.0,4.0,4.0");
    }
}

#[tokio::test]
async fn one_partial_answers_all_of_a_family() {
    let context = session(&eight(), 2);
    let finishes = "stddev_finish(p), stddev_pop_finish(p), var_finish(p), var_pop_finish(p)";
    for f in ["stddev", "stddev_pop", "variance", "var_pop"] {
        let sql = format!(
            "SELECT {finishes} FROM (SELECT {f}_merge(p) AS p FROM \
             (SELECT {f}_partial(f) AS p FROM m GROUP BY time))"
        );
        assert_eq!(row(&context, &sql).await, "2.138089935299395,2.0,4.571428571428571,4.0");
    }
    let both =
        "SELECT last_finish(p), last_time_finish(p) FROM (SELECT last_partial(f) AS p FROM m)";
    assert_eq!(row(&context, both).await, "9.0,1970-01-01T00:00:07");
    let other = error(&context, "SELECT stddev_finish(mean_partial(f)) FROM m").await.to_string();
    assert!(other.contains("holds partials of mean, not of moments"), "{other}");
}

#[tokio::test]
async fn spreads_of_little_and_of_too_much() {
    let point = |secs, host, f| Point { secs, host: Some(host), f, ..Point::default() };
    let points = [
        point(1, "none", None),
        point(1, "one", Some(-0.0)),
        point(1, "inf", Some(f64::INFINITY)),
        point(2, "inf", Some(1.0)),
        point(1, "nan", Some(f64::NAN)),
        point(2, "nan", Some(1.0)),
        point(1, "wide", Some(f64::MAX)),
        point(2, "wide", Some(-f64::MAX)),
        point(1, "near", Some(1e15 + 1.0)),
        point(2, "near", Some(1e15 + 2.0)),
    ];
    let context = session(&points, 3);
    let raw = "SELECT host, stddev(f), var_pop(f), stddev_pop(f) FROM m GROUP BY host";
    let merged = "SELECT host, stddev_finish(stddev_merge(p)), var_pop_finish(var_merge(p)), \
                  stddev_pop_finish(stddev_merge(p)) FROM \
                  (SELECT host, time, stddev_partial(f) AS p FROM m GROUP BY host, time) \
                  GROUP BY host";
    let expected = [
        "inf,NaN,NaN,NaN",
        "nan,NaN,NaN,NaN",
        "near,0.7071067811865476,0.25,0.5",
        "none,-,-,-",
        "one,-,0.0,0.0",
        "wide,inf,inf,1.7976931348623157e308",
    ];
    assert_eq!(rows(&context, raw).await.unwrap(), expected);
    assert_eq!(rows(&context, merged).await.unwrap(), expected);
}

#[tokio::test]
async fn the_time_of_a_value_is_that_of_its_point() {
    let points = [
        Point { secs: 1, i: Some(5), ..Point::default() },
        Point { secs: 2, i: Some(5), f: Some(1.0), ..Point::default() },
        Point { secs: 3, u: Some(1), f: Some(2.0), ..Point::default() },
        Point { secs: 4, u: Some(9), ..Point::default() },
    ];
    let context = session(&points, 2);
    let times = "SELECT first_time(f), last_time(f), last_time(i), last_time(b) FROM m";
    let expected = "1970-01-01T00:00:02,1970-01-01T00:00:03,1970-01-01T00:00:02,-";
    assert_eq!(row(&context, times).await, expected);
    let partials = "SELECT first_time_finish(first_partial(f)), last_time_finish(last_merge(p)) \
                    FROM (SELECT f, last_partial(f) AS p FROM m GROUP BY f, time) GROUP BY true";
    let error = error(&context, partials).await.to_string();
    assert!(error.contains("needs a column time"), "{error}");
}

#[tokio::test]
async fn what_is_no_number_has_no_spread() {
    let context = session(&eight(), 2);
    for (sql, expected) in [
        ("SELECT stddev(s) FROM m", "stddev does not take values of type Utf8"),
        ("SELECT var_pop_partial(b) FROM m", "variance_pop does not take values of type Boolean"),
        ("SELECT variance(f, f) FROM m", "variance takes one argument, not 2"),
        ("SELECT stddev(DISTINCT f), avg(f) FROM m", "stddev takes no DISTINCT"),
        ("SELECT stddev_partial(DISTINCT f) FROM m", "stddev_partial takes no DISTINCT"),
        ("SELECT last_time(f ORDER BY f) FROM m", "last_time goes by time and takes no ORDER BY"),
        ("SELECT first_time(f, f) FROM m", "first_time goes by a timestamp, not by Float64"),
    ] {
        let error = error(&context, sql).await.to_string();
        assert!(error.contains(expected), "{sql}: {error}");
    }
}
