//! Names, spellings and types of functions.

use super::*;

#[test]
fn names_are_those_of_rule_files() {
    assert_eq!(AggregateFunction::named("count", false), Ok(AggregateFunction::Count));
    assert_eq!(AggregateFunction::named("count", true), Ok(AggregateFunction::CountField));
    assert_eq!(AggregateFunction::named("avg", true), Ok(AggregateFunction::Mean));
    for (name, function) in names() {
        if !["approx_percentile", "histogram"].contains(&name) {
            assert_eq!(AggregateFunction::named(name, true), Ok(function));
        }
        assert_eq!(by_name(function.name()), Some(function), "{name}");
    }
    let error =
        |name, has_field| AggregateFunction::named(name, has_field).unwrap_err().to_string();
    assert_eq!(error("sum", false), "function sum needs a field");
    assert!(
        error("total", true).starts_with("unknown function \"total\"; known are approx_distinct, ")
    );
    let bounds = Bounds::new(&[0.1, 0.5, 1.0]).unwrap();
    let histogram = AggregateFunction::Histogram(bounds);
    for spelling in ["histogram(0.1, 0.5, 1)", "histogram ( .1,0.5 ,1.0)"] {
        assert_eq!(AggregateFunction::named(spelling, true), Ok(histogram), "{spelling}");
    }
    assert_eq!(histogram.to_string(), "histogram(0.1, 0.5, 1)");
    assert_eq!(histogram.suffix(), "histogram");
    for spelling in ["histogram", "histogram()", "histogram(2, 1)", "histogram(x)"] {
        assert!(error(spelling, true).contains("bounds that ascend"), "{spelling}");
    }
    let p99 = AggregateFunction::ApproxPercentile(Fraction::new(0.99).unwrap());
    for spelling in ["p99", "approx_percentile(0.99)", "approx_percentile ( .99 )"] {
        assert_eq!(AggregateFunction::named(spelling, true), Ok(p99), "{spelling}");
    }
    assert_eq!((p99.to_string(), p99.suffix()), ("approx_percentile(0.99)".into(), "p99".into()));
    for spelling in ["approx_percentile", "approx_percentile(2)", "approx_percentile(x)"] {
        assert!(error(spelling, true).contains("needs a number from 0 to 1"), "{spelling}");
    }
    assert!(error("percentile_cont", true).contains("queries only"));
}

#[test]
fn types_are_checked() {
    assert!(AggregateFunction::Sum.accepts(FieldType::Unsigned).is_ok());
    let error = AggregateFunction::Mean.accepts(FieldType::String).unwrap_err();
    assert_eq!(error.to_string(), "function mean does not take a field of type string");
    assert!(AggregateFunction::Last.accepts(FieldType::Boolean).is_ok());
    assert_eq!(AggregateFunction::Max.output_type(Some(FieldType::String)), FieldType::String);
    assert_eq!(AggregateFunction::Mean.output_type(Some(FieldType::Integer)), FieldType::Float);
    let last_time = AggregateFunction::LastTime;
    assert_eq!(last_time.output_type(Some(FieldType::String)), FieldType::Timestamp);
    let error = AggregateFunction::Stddev(Spread::Population).accepts(FieldType::Boolean);
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "function stddev_pop does not take a field of type boolean");
}
