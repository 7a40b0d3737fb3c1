//! Aggregate functions through the real binary.

use serde_json::json;

use crate::with_rules;

#[test]
fn s002_02_histogram_and_sum_fast() {
    let server = with_rules(
        "
databases:
  t:
    aggregates:
      - {name: took_1h, source: took, interval: 1h, aggregations: [{field: s, function: ['histogram(0.1, 0.5, 1)', sum_fast]}]}
      - {name: took_1d, source: took_1h, interval: 1d}
",
    );
    let values = [0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 8.0];
    let lines =
        values.iter().zip(0..).map(|(s, i)| format!("took s={s} {}\n", 1704067200 + i * 1800));
    server.w("s", &lines.collect::<String>());
    let points = "SELECT histogram(s, 0.1, 0.5, 1) AS h FROM took";
    let days = "SELECT s_histogram AS h FROM took_1d";
    let expected = r#"{"bounds":[0.1,0.5,1],"counts":[1,2,2,2]}"#;
    let answer = |sql: &str, freshness: &str| {
        let more = json!({"freshness": freshness, "format": "json"});
        let rows = server.query(sql, more).expect(200).json();
        rows[0]["h"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(answer(points, "exact"), expected);
    assert_eq!(answer(days, "exact"), expected);
    server.clock("2024-01-03T00:00:00Z");
    server.drain();
    assert_eq!(answer(days, "materialized"), expected);
    let sum: f64 = server.qm("SELECT s_sum_fast FROM took_1d").parse().unwrap();
    assert!((sum - 10.65).abs() < 1e-9, "{sum}");
    for sql in ["SELECT sum_fast(s) FROM took", "SELECT s_sum_fast FROM took_1d"] {
        let plan = server.q(&format!("EXPLAIN {sql}"));
        assert!(plan.contains("(order-dependent)"), "{plan}");
    }
}
