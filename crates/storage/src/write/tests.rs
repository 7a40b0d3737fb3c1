use arrow::array::{Float64Array, Int64Array, StringArray};
use highwater_core::{Column, Schema, TagSet};

use super::*;

/// Points at 1, 2, ... seconds on lines 1, 2, ...; one tag `host` per point.
fn batch(hosts: &[&str], fields: Vec<(&str, ArrayRef)>) -> PointBatch {
    let rows = hosts.len() as u32;
    PointBatch {
        measurement: "cpu".into(),
        tag_sets: hosts.iter().map(|host| TagSet::new([("host", *host)]).unwrap()).collect(),
        tag_set_of_row: (0..rows).collect(),
        times: (1..=rows).map(|at| i64::from(at) * 1_000_000_000).collect(),
        fields: fields.into_iter().map(|(name, values)| (name.into(), values)).collect(),
        lines: (1..=rows).collect(),
    }
}

fn floats(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn integers(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn decide_for(columns: &[Column], batch: PointBatch) -> Decision {
    let columns = Columns::of(&Schema::of(columns.iter().cloned()));
    let target = Target {
        kind: MeasurementKind::Points,
        columns: &columns,
        horizon: None,
        late: LatePoints::Refuse,
    };
    check_shape(&batch).unwrap();
    decide(batch, &target).unwrap()
}

fn reasons(decision: &Decision) -> Vec<(u32, &str)> {
    decision.refused.iter().map(|refused| (refused.line, refused.reason.as_str())).collect()
}

#[test]
fn the_first_type_of_a_field_stands() {
    let stored = [Column::field("usage", FieldType::Float)];
    let fields = vec![
        ("usage", integers(&[Some(1), None, None])),
        ("load", integers(&[None, Some(2), Some(3)])),
    ];
    let decision = decide_for(&stored, batch(&["a", "b", "c"], fields));
    assert_eq!(reasons(&decision), [(1, "field usage of cpu is float, not integer")]);
    assert_eq!(decision.accepted.lines, [2, 3]);
    assert_eq!(decision.accepted.tag_sets.len(), 2);
    assert_eq!(decision.accepted.fields.len(), 1);
}

#[test]
fn within_one_request_the_first_line_wins() {
    let fields = vec![
        ("usage", integers(&[None, Some(2), None])),
        ("usage", floats(&[Some(1.0), None, Some(3.0)])),
    ];
    let decision = decide_for(&[], batch(&["a", "b", "c"], fields));
    assert_eq!(reasons(&decision), [(2, "field usage of cpu is float, not integer")]);
    assert_eq!(
        columns_of(&decision.accepted).last(),
        Some(("usage", ColumnRole::Field(FieldType::Float)))
    );
}

#[test]
fn a_refused_line_leaves_no_column_behind() {
    let stored = [Column::field("usage", FieldType::Float)];
    let fields = vec![
        ("usage", integers(&[Some(1), None])),
        ("new", integers(&[Some(1), None])),
        ("new", floats(&[None, Some(1.0)])),
    ];
    let decision = decide_for(&stored, batch(&["a", "b"], fields));
    assert_eq!(reasons(&decision), [(1, "field usage of cpu is float, not integer")]);
    assert_eq!(decision.accepted.lines, [2]);
}

#[test]
fn a_name_is_either_tag_or_field_and_never_time() {
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None]));
    let fields = vec![("host", text), ("usage", floats(&[None, Some(1.0)]))];
    let decision = decide_for(&[], batch(&["a", "b"], fields));
    assert_eq!(reasons(&decision), [(1, "host of cpu is a tag, so it cannot be a field")]);

    let decision = decide_for(
        &[Column::field("host", FieldType::String)],
        batch(&["a"], vec![("usage", floats(&[Some(1.0)]))]),
    );
    assert_eq!(reasons(&decision), [(1, "host of cpu is a field, so it cannot be a tag")]);

    let decision = decide_for(&[], batch(&["a"], vec![("time", floats(&[Some(1.0)]))]));
    assert!(decision.refused[0].reason.starts_with("time is the time of a point"));
    assert_eq!(decision.accepted.rows(), 0);
}

#[test]
fn expired_points_are_refused_by_line() {
    let columns = Columns::default();
    let horizon = Some((Timestamp::from_secs(2), "7d".parse().unwrap()));
    let target = Target {
        kind: MeasurementKind::Points,
        columns: &columns,
        horizon,
        late: LatePoints::Refuse,
    };
    let fields = vec![("usage", floats(&[Some(1.0), Some(2.0)]))];
    let decision = decide(batch(&["a", "b"], fields), &target).unwrap();
    assert_eq!(decision.accepted.lines, [2]);
    assert_eq!(
        decision.refused[0].reason,
        "older than the retention of 7d: points before 1970-01-01T00:00:02Z are refused"
    );
}

#[test]
fn expired_points_are_left_out_where_that_is_the_rule() {
    let columns = Columns::of(&Schema::of([Column::field("usage", FieldType::Float)]));
    let horizon = Some((Timestamp::from_secs(2), "7d".parse().unwrap()));
    let late = LatePoints::Drop;
    let target = Target { kind: MeasurementKind::Points, columns: &columns, horizon, late };
    let fields = vec![("usage", floats(&[Some(1.0), Some(2.0), Some(3.0)]))];
    let decision = decide(batch(&["a", "b", "b"], fields), &target).unwrap();
    assert_eq!((decision.accepted.lines, decision.dropped), (vec![2, 3], 1));
    assert_eq!(decision.refused, []);
    // One that contradicts the columns is left out too if it is late, else it is refused.
    let fields = vec![("usage", integers(&[Some(1), Some(2), Some(3)]))];
    let decision = decide(batch(&["a", "b", "b"], fields), &target).unwrap();
    let refused: Vec<u32> = decision.refused.iter().map(|line| line.line).collect();
    assert_eq!((decision.accepted.rows(), decision.dropped, refused), (0, 1, vec![2, 3]));
}

#[test]
fn integers_for_a_declared_time_are_nanoseconds() {
    let stored = [Column::field("seen", FieldType::Timestamp)];
    let decision = decide_for(&stored, batch(&["a"], vec![("seen", integers(&[Some(7)]))]));
    assert_eq!(reasons(&decision), []);
    assert_eq!(*decision.accepted.fields[0].1.data_type(), FieldType::Timestamp.arrow());
}

#[test]
fn there_is_a_limit_to_columns() {
    let stored: Vec<Column> =
        (0..crate::columns::MAX_TAGS).map(|i| Column::tag(format!("t{i}"))).collect();
    let fields = vec![("usage", floats(&[Some(1.0)]))];
    let decision = decide_for(&stored, batch(&["a"], fields));
    assert_eq!(reasons(&decision), [(1, "cpu has 250 tags, so host cannot be added")]);
}

#[test]
fn materializations_take_no_points() {
    let columns = Columns::default();
    let target = Target {
        kind: MeasurementKind::Materialization,
        columns: &columns,
        horizon: None,
        late: LatePoints::Refuse,
    };
    let decision = decide(batch(&["a"], vec![("usage", floats(&[Some(1.0)]))]), &target).unwrap();
    assert_eq!(decision.accepted.rows(), 0);
    assert_eq!(decision.refused.len(), 1);
}

#[test]
fn columns_of_different_lengths_are_invalid() {
    let short = batch(&["a", "b"], vec![("usage", floats(&[Some(1.0)]))]);
    assert!(matches!(check_shape(&short), Err(StorageError::Invalid(_))));
}
