//! Counters and time-weighted averages: what goes by the steps between points.

use super::*;

/// Two counters: that of host a is reset once, that of b never. Not in order of time.
fn readings() -> Vec<Point> {
    let of = |host, step: i64, reset: i64| {
        (0..40).map(move |n| Point {
            secs: n * 10,
            host: Some(host),
            f: (n % 9 != 4).then_some(((n * step) % reset) as f64 / 4.0),
            i: Some((n * step) % reset + (1 << 60)),
            u: Some(((n * step) % reset) as u64),
            ..Point::default()
        })
    };
    let mut points: Vec<Point> = of("a", 3, 70).chain(of("b", 5, 1000)).collect();
    let ordered = points.clone();
    points.iter_mut().enumerate().for_each(|(n, point)| *point = ordered[n * 37 % 80].clone());
    points
}

const CALLS: [(&str, &str); 7] = [
    ("increase", "f"),
    ("increase", "u"),
    ("rate", "f"),
    ("rate", "u"),
    ("time_weighted_average", "f"),
    ("time_weighted_avg", "i"),
    ("time_weighted_average", "u"),
];

#[tokio::test]
async fn merged_pieces_of_time_are_the_whole() {
    let points = readings();
    let one = session(&points, 1);
    for (f, x) in CALLS {
        let raw = format!("SELECT host, {f}({x}) FROM m GROUP BY host");
        let expected = rows(&one, &raw).await.unwrap();
        for partitions in [1, 4] {
            let context = session(&points, partitions);
            assert_eq!(rows(&context, &raw).await.unwrap(), expected, "{raw}");
            let minutes = format!(
                "SELECT host, date_trunc('minute', time) AS minute, {f}_partial({x}) AS p FROM m \
                 GROUP BY host, minute"
            );
            let halves = format!(
                "SELECT host, minute >= '1970-01-01T00:03:00' AS late, {f}_merge(p) AS p FROM \
                 ({minutes}) GROUP BY host, late"
            );
            for parts in [&minutes, &halves] {
                let merged =
                    format!("SELECT host, {f}_finish({f}_merge(p)) FROM ({parts}) GROUP BY host");
                assert_eq!(rows(&context, &merged).await.unwrap(), expected, "{merged}");
            }
        }
    }
    let weighted = "SELECT time_weighted_average(u) FROM m WHERE host = 'b'";
    assert_eq!(row(&one, weighted).await, "95.0", "0, 5, .. 190");
    // 39 steps of 5 over 390 seconds.
    let b = "SELECT increase(u), rate(u), rate(u, time) FROM m WHERE host = 'b'";
    assert_eq!(row(&one, b).await, "195.0,0.5,0.5");
    // 0, 3, .. 69, then 72 - 70 = 2, .. 47.
    let a = "SELECT increase(u) FROM m WHERE host = 'a'";
    assert_eq!(row(&one, a).await, "116.0");
}

#[tokio::test]
async fn several_series_in_one_group_are_refused() {
    let context = session(&readings(), 2);
    let both = "SELECT increase(u) FROM m";
    let (kind, message) = of_plan(error(&context, both).await);
    assert_eq!(kind, ErrorKind::Computation);
    assert!(message.starts_with("points of several series mix in one group; "), "{message}");
    let grouped = "SELECT b, rate(u) FROM m GROUP BY b";
    let (_, message) = of_plan(error(&context, grouped).await);
    assert!(message.contains("mix in one group in b=NULL; group by every tag"), "{message}");
    let merged = "SELECT increase_finish(increase_merge(p)) FROM \
                  (SELECT increase_partial(u) AS p FROM m WHERE time <> '1970-01-01' GROUP BY host)";
    let (_, message) = of_plan(error(&context, merged).await);
    assert!(message.contains("several series"), "{message}");
    let text = error(&context, "SELECT rate(s) FROM m").await.to_string();
    assert!(text.contains("rate does not take values of type Utf8"), "{text}");
}

#[tokio::test]
async fn of_little_there_is_no_rate() {
    let point = |secs, f| Point { secs, host: Some("a"), f, ..Point::default() };
    let one = session(&[point(1, Some(5.0)), point(2, None), point(3, Some(f64::NAN))], 2);
    assert_eq!(row(&one, "SELECT increase(f), rate(f), increase(u) FROM m").await, "0.0,-,-");
    let moving = "SELECT increase(u) OVER (ORDER BY time ROWS 1 PRECEDING) FROM m WHERE host = 'b'";
    let steps = rows(&session(&readings(), 2), moving).await.unwrap();
    assert_eq!((steps[0].as_str(), steps[39].as_str(), steps.len()), ("0.0", "5.0", 40));
}
