//! Any bytes as a write request: nothing panics, every line is a point or a refusal, and the
//! lines before and after are stored.
//!
//! The first byte of an input chooses the precision. `docs/line-protocol.md` has the command.
#![no_main]

// The parser alone, not the server around it: what is instrumented is what is fuzzed.
#[allow(dead_code, unreachable_pub, reason = "the server uses what is not used here")]
#[path = "../../../crates/server/src/line_protocol/mod.rs"]
mod line_protocol;

use std::sync::Arc;

use highwater_core::{Column, FieldType, Schema, Timestamp};
use libfuzzer_sys::fuzz_target;
use line_protocol::{Limits, Options, Parsed, Precision, parse_with};

const PRECISIONS: [Precision; 7] = [
    Precision::Nanosecond,
    Precision::Microsecond,
    Precision::Millisecond,
    Precision::Second,
    Precision::Minute,
    Precision::Hour,
    Precision::Auto,
];

/// Limits that short inputs can reach.
const TIGHT: Limits = Limits {
    name_bytes: 20,
    tag_value_bytes: 20,
    string_bytes: 40,
    tags: 4,
    fields: 6,
    measurements: 8,
    missing_fields: 16,
    reported: 10,
};

fuzz_target!(|input: &[u8]| {
    let (first, body) = input.split_first().unwrap_or((&0, &[]));
    let precision = PRECISIONS[usize::from(*first) % PRECISIONS.len()];
    for limits in [&TIGHT, &Limits::default()] {
        let parsed = read(body, precision, limits);
        assert_eq!(parsed.lines, points(&parsed) + parsed.refused_count, "a line is lost");
        assert!(parsed.refused.len() <= parsed.refused_count.min(limits.reported));
    }
    // A line of the same measurement may rightly decide the type of its field.
    if memchr::memmem::find(body, b"after").is_none() {
        let between = [b"before f=1 1\n", body, b"\nafter f=2 2\nafter f=3 3"].concat();
        let parsed = read(&between, precision, &Limits::default());
        assert!(rows_of(&parsed, "before") >= 1, "the line before is lost");
        assert_eq!(rows_of(&parsed, "after"), 2, "a line after is lost");
    }
});

/// Reads beside a measurement that is stored already.
fn read(body: &[u8], precision: Precision, limits: &Limits) -> Parsed {
    let stored = Arc::new(Schema::of([
        Column::tag("t"),
        Column::field("i", FieldType::Integer),
        Column::field("at", FieldType::Timestamp),
    ]));
    let schema_of = |name: &str| (name == "m").then(|| Arc::clone(&stored));
    let default_time = Timestamp::from_nanos(7);
    parse_with(body, &Options { precision, default_time, limits, schema_of: &schema_of })
}

fn points(parsed: &Parsed) -> usize {
    parsed.batches.iter().map(|batch| batch.rows()).sum()
}

fn rows_of(parsed: &Parsed, measurement: &str) -> usize {
    let own = parsed.batches.iter().filter(|batch| *batch.measurement == *measurement);
    own.map(|batch| batch.rows()).sum()
}
