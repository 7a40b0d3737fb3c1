//! The grammar, row by row, and what holds for every body.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType, UInt64Type};
use highwater_core::{Column, FieldType, TagSet};
use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_nanos(7);

fn read(body: impl AsRef<[u8]>) -> Parsed {
    parse(body.as_ref(), Precision::Nanosecond, NOW, &Limits::default())
}

fn read_limited(body: &str, limits: Limits) -> Parsed {
    parse(body.as_bytes(), Precision::Nanosecond, NOW, &limits)
}

fn read_stored(body: &str, schema: &Arc<Schema>) -> Parsed {
    let schema_of = |name: &str| (name == "m").then(|| Arc::clone(schema));
    let limits = Limits::default();
    parse_with(
        body.as_bytes(),
        &Options {
            precision: Precision::Second,
            default_time: NOW,
            limits: &limits,
            schema_of: &schema_of,
        },
    )
}

/// One text per point: `measurement {"tag": "value"} field=value … @time`, missing fields left out.
fn points(parsed: &Parsed) -> Vec<String> {
    parsed.batches.iter().flat_map(|b| (0..b.rows()).map(move |row| point(b, row))).collect()
}

fn point(batch: &PointBatch, row: usize) -> String {
    let tags = &batch.tag_sets[batch.tag_set_of_row[row] as usize];
    let mut text = format!("{} {tags:?}", batch.measurement);
    for (name, values) in &batch.fields {
        if values.is_valid(row) {
            text += &format!(" {name}={}", value(values, row));
        }
    }
    text + &format!(" @{}", batch.times[row])
}

fn value(values: &dyn Array, row: usize) -> String {
    match values.data_type() {
        DataType::Float64 => format!("{:?}", values.as_primitive::<Float64Type>().value(row)),
        DataType::Int64 => format!("{}i", values.as_primitive::<Int64Type>().value(row)),
        DataType::UInt64 => format!("{}u", values.as_primitive::<UInt64Type>().value(row)),
        DataType::Boolean => values.as_boolean().value(row).to_string(),
        DataType::Utf8 => format!("{:?}", values.as_string::<i32>().value(row)),
        DataType::Timestamp(..) => {
            format!("T{}", values.as_primitive::<TimestampNanosecondType>().value(row))
        }
        other => panic!("no field has the type {other}"),
    }
}

fn reasons(parsed: &Parsed) -> Vec<String> {
    parsed.refused.iter().map(|line| format!("{}: {}", line.line, line.reason)).collect()
}

/// Each body is one point with this text.
#[test]
fn lines_that_are_read() {
    for (body, expected) in [
        ("m f=1 5", r#"m {} f=1.0 @5"#),
        ("m f=1", r#"m {} f=1.0 @7"#),
        ("m f=1 -5\n", r#"m {} f=1.0 @-5"#),
        ("m,b=2,a=1 f=1 5", r#"m {"a": "1", "b": "2"} f=1.0 @5"#),
        ("m f=1.5,g=2i,h=3u,i=t,j=\"s\" 5", r#"m {} f=1.5 g=2i h=3u i=true j="s" @5"#),
        // CRLF line ends, with and without a time, also at the very end.
        ("m f=1 5\r\n", r#"m {} f=1.0 @5"#),
        ("m f=1\r\n", r#"m {} f=1.0 @7"#),
        ("m f=\"a\"\r\n", r#"m {} f="a" @7"#),
        ("m f=t\r", r#"m {} f=true @7"#),
        ("m f=3i\r\n", r#"m {} f=3i @7"#),
        // Blanks before the line, between its parts, and after it.
        (" \tm f=1 5", r#"m {} f=1.0 @5"#),
        ("m   f=1   5   ", r#"m {} f=1.0 @5"#),
        ("m f=1 ", r#"m {} f=1.0 @7"#),
        ("m f=1  \r\n", r#"m {} f=1.0 @7"#),
        // Floats.
        ("m f=.1", r#"m {} f=0.1 @7"#),
        ("m f=1.", r#"m {} f=1.0 @7"#),
        ("m f=1.e4", r#"m {} f=10000.0 @7"#),
        ("m f=-1.25E-2", r#"m {} f=-0.0125 @7"#),
        ("m f=1e+3", r#"m {} f=1000.0 @7"#),
        ("m f=-0", r#"m {} f=-0.0 @7"#),
        ("m f=0.1,g=123456789.123456789", r#"m {} f=0.1 g=123456789.12345679 @7"#),
        ("m f=1e-400", r#"m {} f=0.0 @7"#),
        // Integers, to the ends of their ranges.
        ("m f=-9223372036854775808i", r#"m {} f=-9223372036854775808i @7"#),
        ("m f=9223372036854775807i", r#"m {} f=9223372036854775807i @7"#),
        ("m f=007i,g=-0i", r#"m {} f=7i g=0i @7"#),
        ("m f=18446744073709551615u", r#"m {} f=18446744073709551615u @7"#),
        // Booleans.
        ("m a=t,b=T,c=true,d=True,e=TRUE", "m {} a=true b=true c=true d=true e=true @7"),
        ("m a=f,b=F,c=false,d=False,e=FALSE", "m {} a=false b=false c=false d=false e=false @7"),
        // Strings: only `\"` and `\\` are escapes; commas, equals, spaces and newlines are data.
        (r#"m f="a\"b,c d=e""#, r#"m {} f="a\"b,c d=e" @7"#),
        (r#"m f="a\\",g="\n\x""#, r#"m {} f="a\\" g="\\n\\x" @7"#),
        ("m f=\"\"", r#"m {} f="" @7"#),
        ("m f=\"a\nb\r\nc\",g=1 5", r#"m {} f="a\nb\r\nc" g=1.0 @5"#),
        ("m f=\"# no comment\"", r##"m {} f="# no comment" @7"##),
        ("m f=\"caf\u{e9} \u{1F980}\"", "m {} f=\"caf\u{e9} \u{1F980}\" @7"),
        // Escapes in every name and in tag values; other backslashes stay.
        (
            r#"m\ x,t\,a=v\=1 f="a\"b,c d",i=1i,u=2u,b=t 1"#,
            r#"m x {"t,a": "v=1"} f="a\"b,c d" i=1i u=2u b=true @1"#,
        ),
        (
            r"m\,x\=y,t\ a=v\ 1,u\=b=v\,2 f\,g\=h\ i=1",
            r#"m,x=y {"t a": "v 1", "u=b": "v,2"} f,g=h i=1.0 @7"#,
        ),
        (r"m=x,t=a\b f\g=1", r#"m=x {"t": "a\\b"} f\g=1.0 @7"#),
        (r"m,t=a\\b f=1", r#"m {"t": "a\\\\b"} f=1.0 @7"#),
        (r"m,t=a\\,b f=1", r#"m {"t": "a\\,b"} f=1.0 @7"#),
        // Quotes are nothing special outside of values; neither is a tab or a hash.
        ("\"m\",\"t\"=\"v\" \"f\"=1", r#""m" {"\"t\"": "\"v\""} "f"=1.0 @7"#),
        ("m#,t=#\tx f=1", r##"m# {"t": "#\tx"} f=1.0 @7"##),
        (
            "caf\u{e9},t\u{e9}=v\u{e9} f\u{e9}=1",
            "caf\u{e9} {\"t\u{e9}\": \"v\u{e9}\"} f\u{e9}=1.0 @7",
        ),
        // The ends of accepted time.
        ("m f=1 -9214560000000000000", "m {} f=1.0 @-9214560000000000000"),
        ("m f=1 9214646399999999999", "m {} f=1.0 @9214646399999999999"),
    ] {
        let parsed = read(body);
        assert_eq!(points(&parsed), [expected], "{body:?}: {:?}", reasons(&parsed));
        assert_eq!((parsed.lines, parsed.refused_count), (1, 0), "{body:?}");
    }
}

/// Each body is refused for this reason, alone and between neighbours, which are kept.
#[test]
fn lines_that_are_refused() {
    let bad_value = |value: &str| {
        format!("the value {value:?} of field f is no number, boolean or quoted string")
    };
    let cases: Vec<(String, String)> = [
        ("m", "the line has no fields; it needs at least one, like m value=1"),
        ("m,t=v", "the line has no fields; it needs at least one, like m,t=v value=1"),
        (r"m\ f=1", r"the line has no fields; it needs at least one, like m\ f=1 value=1"),
        ("m ", "a field has no key"),
        (",t=v f=1", "the measurement is missing"),
        ("m, f=1", "a tag has no key"),
        ("m,,t=v f=1", "a tag has no key"),
        ("m,=v f=1", "a tag has no key"),
        ("m,t= f=1", "tag t has no value"),
        ("m,t f=1", "tag t has no value"),
        ("m,t=v, f=1", "a tag has no key"),
        ("m,t=a=b f=1", r"the value of tag t has an equals sign in it; write it as \="),
        ("m,t=1,t=2 f=1", "tag t is there twice"),
        ("m,t=1,a=1,t=1 f=1", "tag t is there twice"),
        ("m,time=1 f=1", "time is the name of the time column and cannot be a tag"),
        ("m time=1", "time is the name of the time column and cannot be a field"),
        ("m,f=1 f=1", "f of m is a tag, so it cannot be a field"),
        ("m f=1,f=2", "field f is there twice"),
        ("m f=1,g=2,f=1", "field f is there twice"),
        ("m =1", "a field has no key"),
        ("m f", "field f has no value"),
        ("m f\r", "field f has no value"),
        ("m f=", "field f has no value"),
        ("m f=,g=1", "field f has no value"),
        ("m f= 5", "field f has no value"),
        ("m f=1,", "a field has no key"),
        ("m f=1, g=2", "a field has no key"),
        ("m f=1,,g=2", "a field has no key"),
        ("m ,f=1", "a field has no key"),
        ("m g,f=1", "field g has no value"),
        ("m f=1e400", "the value 1e400 of field f does not fit into float"),
        ("m f=-1e999", "the value -1e999 of field f does not fit into float"),
        (
            "m f=9223372036854775808i",
            "the value 9223372036854775808i of field f does not fit into integer",
        ),
        (
            "m f=18446744073709551616u",
            "the value 18446744073709551616u of field f does not fit into unsigned",
        ),
        ("m f=\"a\"b", "there is text after the closing quote of field f"),
        ("m f=\"a\"\"b\"", "there is text after the closing quote of field f"),
        ("m f=\"a\\\\\"b\"", "there is text after the closing quote of field f"),
        ("m f=1 x", "the time \"x\" is not an integer"),
        ("m f=1 -", "the time \"-\" is not an integer"),
        ("m f=1 1.5", "the time \"1.5\" is not an integer"),
        ("m f=1 1i", "the time \"1i\" is not an integer"),
        ("m f=1 +1", "the time \"+1\" is not an integer"),
        ("m f=1 1 2", "there is text after the time: \"2\""),
        (
            "m f=1 -9214560000000000001",
            "the time -9214560000000000001 is outside 1678-01-01 to 2262-01-01",
        ),
        (
            "m f=1 9214646400000000000",
            "the time 9214646400000000000 is outside 1678-01-01 to 2262-01-01",
        ),
        (
            "m f=1 9223372036854775808",
            "the time 9223372036854775808 is outside 1678-01-01 to 2262-01-01",
        ),
        (
            "m f=1 99999999999999999999",
            "the time 99999999999999999999 is outside 1678-01-01 to 2262-01-01",
        ),
        ("m\0 f=1", "the name of a measurement has a NUL in it"),
        ("m,t\0=1 f=1", "the name of a tag has a NUL in it"),
        ("m f\0=1", "the name of a field has a NUL in it"),
    ]
    .map(|(body, reason)| (body.to_owned(), reason.to_owned()))
    .into_iter()
    .chain(
        [
            "NaN", "nan", "Inf", "-inf", "+1", "+1i", "1x", "tr", "tRUE", "'a'", "0x1", "1.2.3",
            "-", "i", "u", "-1u", "1.0i", "1e3i", "a=b", "1_0",
        ]
        .map(|value| (format!("m f={value}"), bad_value(value))),
    )
    .collect();
    for (body, reason) in cases {
        let alone = read(&body);
        assert_eq!(reasons(&alone), [format!("1: {reason}")], "{body:?}");
        assert_eq!((points(&alone).len(), alone.lines, alone.refused_count), (0, 1, 1), "{body:?}");
        let between = read(format!("a x=1\n{body}\nb,f=2 y=2\nm z=3"));
        assert_eq!(reasons(&between), [format!("2: {reason}")], "{body:?}");
        let kept = [r#"a {} x=1.0 @7"#, r#"b {"f": "2"} y=2.0 @7"#, "m {} z=3.0 @7"];
        let mut found = points(&between);
        found.sort();
        assert_eq!(found, kept, "{body:?}");
        let m = between.batches.iter().find(|batch| &*batch.measurement == "m").unwrap();
        assert_eq!((m.fields.len(), m.tag_sets.len()), (1, 1), "{body:?}");
        assert_eq!(between.refused[0].original, body.trim_end_matches('\r'), "{body:?}");
    }
}

#[test]
fn four_hundred_digits_are_refused_where_they_overflow() {
    let parsed = read(format!("m f={}\nm f=0.{}1\n", "9".repeat(400), "0".repeat(398)));
    assert_eq!(points(&parsed), ["m {} f=0.0 @7"]);
    assert_eq!(parsed.refused[0].line, 1);
}

#[test]
fn comments_and_empty_lines_are_nothing() {
    let parsed = read("# a \"quote\nm f=1\n#\\\nm f=2\n\n \r\n  # c\r\nm f=3 # d\n#");
    assert_eq!(points(&parsed), ["m {} f=1.0 @7", "m {} f=2.0 @7"]);
    assert_eq!(reasons(&parsed), ["8: the time \"# d\" is not an integer"]);
    assert_eq!(parsed.lines, 3);
    assert_eq!(read("").lines + read("\n\n").lines + read("#").lines, 0);
}

#[test]
fn lines_are_numbered_as_the_body_has_them() {
    let parsed = read("# one\nm s=\"2\n3\n4\"\n\nm f=6\r\nbad\nm s=\"8\n9\",x\nm f=\"10\"");
    assert_eq!(parsed.batches[0].lines, [2, 6]);
    assert_eq!(
        reasons(&parsed),
        [
            "7: the line has no fields; it needs at least one, like bad value=1",
            "8: field x has no value",
            "10: field f of m is float, not string",
        ]
    );
    assert_eq!(parsed.refused[1].original, "m s=\"8\n9\",x");
}

#[test]
fn a_broken_string_swallows_no_neighbour() {
    let parsed = read("m f=1 1\nm s=\"open 2\nm f=3 3\nm s=\"x\" 4\nm s=\"x\"y 5\nm f=6 6\nm s=\"");
    assert_eq!(
        points(&parsed),
        ["m {} f=1.0 @1", "m {} f=3.0 @3", "m {} s=\"x\" @4", "m {} f=6.0 @6"]
    );
    assert_eq!(
        reasons(&parsed),
        [
            "2: there is text after the closing quote of field s",
            "5: there is text after the closing quote of field s",
            "7: the quoted string of field s is not closed",
        ]
    );
}

#[test]
fn a_newline_in_a_string_of_a_refused_line_starts_no_line() {
    let parsed = read("m f=bad,s=\"a\nm f=1 1\n\" 2\nm f=3 3");
    assert_eq!(points(&parsed), ["m {} f=3.0 @3"]);
    assert_eq!(parsed.refused.len(), 1);
    assert_eq!(parsed.batches[0].lines, [4]);
}

#[test]
fn broken_strings_without_end_take_linear_time() {
    let mut body = "\" x=bad,s=\"\n".repeat(20_000);
    body.push_str("\" y");
    let parsed = read(&body);
    assert!(points(&parsed).is_empty());
    assert!(parsed.refused_count > 0);
}

#[test]
fn invalid_utf8_refuses_its_line_only() {
    let parsed = read(b"m\xff f=1\nm,t=\xc3 f=1\nm f\xe2=1\nm f=\"\x80\"\nm f=\"ok\" 1\n#\xff\n");
    assert_eq!(points(&parsed), ["m {} f=\"ok\" @1"]);
    let expected: Vec<String> =
        (1..=4).map(|n| format!("{n}: the line is not valid UTF-8")).collect();
    assert_eq!(reasons(&parsed), expected);
    assert_eq!(parsed.refused[3].original, "m f=\"\u{fffd}\"");
}

#[test]
fn the_first_type_of_a_field_stands() {
    let parsed = read("m f=1,g=1i\nm f=1i\nm g=1\nm g=2i,f=2\nm f=\"a\"\nm g=t\nm f=3u");
    assert_eq!(points(&parsed), ["m {} f=1.0 g=1i @7", "m {} f=2.0 g=2i @7"]);
    assert_eq!(
        reasons(&parsed),
        [
            "2: field f of m is float, not integer",
            "3: field g of m is integer, not float",
            "5: field f of m is float, not string",
            "6: field g of m is integer, not boolean",
            "7: field f of m is float, not unsigned",
        ]
    );
}

#[test]
fn a_refused_line_decides_nothing() {
    let parsed = read("m,t=1 f=1,g=bad\nm,f=1 t=1i\nn f=1i x\nn f=\"a\"");
    assert_eq!(points(&parsed), [r#"m {"f": "1"} t=1i @7"#, r#"n {} f="a" @7"#]);
    assert_eq!(parsed.batches[0].tag_sets.len(), 1);
    assert_eq!(parsed.refused_count, 2);
}

#[test]
fn tags_and_fields_of_a_measurement_have_different_names() {
    let parsed = read("m,a=1 b=1\nm a=1\nm,b=1 c=1\nm,c=1 d=1\nm c=1");
    assert_eq!(points(&parsed), [r#"m {"a": "1"} b=1.0 @7"#, r#"m {"c": "1"} d=1.0 @7"#]);
    assert_eq!(
        reasons(&parsed),
        [
            "2: a of m is a tag, so it cannot be a field",
            "3: b of m is a field, so it cannot be a tag",
            "5: c of m is a tag, so it cannot be a field",
        ]
    );
}

#[test]
fn the_stored_schema_wins_over_the_first_line() {
    let schema = Arc::new(Schema::of([
        Column::tag("host"),
        Column::field("f", FieldType::Integer),
        Column::field("at", FieldType::Timestamp),
    ]));
    let parsed = read_stored(
        "m f=1\nm f=1i,at=2i 3\nm host=1\nm,f=1 x=1\nm at=1\nm at=9223372037i\nm,host=a new=1",
        &schema,
    );
    assert_eq!(
        points(&parsed),
        ["m {} f=1i at=T2000000000 @3000000000", r#"m {"host": "a"} new=1.0 @7"#]
    );
    assert_eq!(
        reasons(&parsed),
        [
            "1: field f of m is integer, not float",
            "3: host of m is a tag, so it cannot be a field",
            "4: f of m is a field, so it cannot be a tag",
            "5: field at of m is timestamp, not float",
            "6: the value 9223372037 of field at does not fit into timestamp",
        ]
    );
}

#[test]
fn times_are_scaled() {
    let read = |body: &str, precision| parse(body.as_bytes(), precision, NOW, &Limits::default());
    let parsed = read("m f=1 2\nm f=1 -3\nm f=1", Precision::Millisecond);
    assert_eq!(parsed.batches[0].times, [2_000_000, -3_000_000, 7]);
    let parsed = read("m f=1 9223372037\nm f=1 1", Precision::Second);
    assert_eq!(reasons(&parsed), ["1: the time 9223372037 is outside 1678-01-01 to 2262-01-01"]);
    let parsed = read("m f=1 1704067200\nm f=1 1704067200000000000", Precision::Auto);
    assert_eq!(parsed.batches[0].times, [1_704_067_200_000_000_000; 2]);
    assert_eq!(read("m f=1 2", Precision::Hour).batches[0].times, [7_200_000_000_000]);
}

#[test]
fn batches_are_columns_in_order_of_arrival() {
    let parsed = read(
        "m,h=a x=1i 1\nn v=t 1\nm,h=b y=2.5 2\nm,h=a x=3i,y=4 3\nm,h=b,r=1 z=\"s\" 4\nm,r=1,h=b z=\"t\" 4",
    );
    assert_eq!(
        points(&parsed),
        [
            r#"m {"h": "a"} x=1i @1"#,
            r#"m {"h": "b"} y=2.5 @2"#,
            r#"m {"h": "a"} x=3i y=4.0 @3"#,
            r#"m {"h": "b", "r": "1"} z="s" @4"#,
            r#"m {"h": "b", "r": "1"} z="t" @4"#,
            "n {} v=true @1",
        ]
    );
    let m = &parsed.batches[0];
    assert_eq!(m.tag_set_of_row, [0, 1, 0, 2, 2]);
    assert_eq!(m.lines, [1, 3, 4, 5, 6]);
    assert!(m.fields.iter().all(|(_, values)| values.len() == m.rows()));
    assert_eq!(m.fields[0].1.data_type(), &FieldType::Integer.arrow());
    assert_eq!(m.fields[0].1.null_count(), 3);
}

#[test]
fn limits_refuse_lines() {
    let limits = || Limits {
        name_bytes: 4,
        tag_value_bytes: 4,
        string_bytes: 4,
        tags: 2,
        fields: 3,
        ..Limits::default()
    };
    for (body, reason) in [
        ("meter f=1", "the name of a measurement is longer than 4 bytes"),
        ("m,title=1 f=1", "the name of a tag is longer than 4 bytes"),
        ("m field=1", "the name of a field is longer than 4 bytes"),
        ("m,t=12345 f=1", "the value of tag t is longer than 4 bytes"),
        ("m f=\"12345\"", "the string of field f is longer than 4 bytes"),
        ("m,a=1,b=1,c=1 f=1", "m would have more than 2 tags"),
        ("m f=1,g=1,h=1,i=1", "m would have more than 3 fields"),
    ] {
        let parsed = read_limited(&format!("{body}\nm,c=1,d=1 f=1,x=1,y=\"1\\\"23\""), limits());
        assert_eq!(reasons(&parsed), [format!("1: {reason}")], "{body}");
        assert_eq!(points(&parsed).len(), 1, "{body}");
    }
    let parsed = read_limited("m,a=1 f=1,g=1\nm,b=1 h=1\nm,c=1 f=1\nm,a=1 i=1", limits());
    assert_eq!(
        reasons(&parsed),
        ["3: m would have more than 2 tags", "4: m would have more than 3 fields"]
    );
}

#[test]
fn a_small_body_cannot_ask_for_much_memory() {
    let parsed =
        read_limited("a f=1\nb f=1\nc f=1\na f=2", Limits { measurements: 2, ..Limits::default() });
    assert_eq!(reasons(&parsed), ["3: the request has more than 2 measurements; split it"]);
    let parsed = read_limited(
        "m a=1\nm b=1\nm a=2\nm a=1,b=2",
        Limits { missing_fields: 2, ..Limits::default() },
    );
    assert_eq!(
        reasons(&parsed),
        ["3: the lines of the request have too few fields in common; split it"]
    );
    assert_eq!(points(&parsed).len(), 3);
    let parsed = read_limited("x\ny\nz\nm f=1", Limits { reported: 1, ..Limits::default() });
    assert_eq!((parsed.refused.len(), parsed.refused_count, parsed.lines), (1, 3, 4));
}

#[test]
fn long_lines_are_reported_in_part() {
    let line = format!("m,t={} f=x", "\u{e9}".repeat(2000));
    let original = &read(&line).refused[0].original;
    assert!(original.len() > 1000 && original.len() <= 1024);
    assert!(line.starts_with(original.as_str()) || original.ends_with('\u{fffd}'));
}

#[test]
fn a_tag_set_has_one_number_however_it_is_written() {
    let parsed = read(
        "m=x,a=1,b=2 f=1\nm=x,a=1,b=3 f=2\nm=x,b=2,a=1 f=3\nm\\=x,a=1,b=3 f=4\nm=x f=5\nm=x,a=2,b=2 f=6\nm=x,b=2,a=2 f=7\nm\\=x f=8",
    );
    assert_eq!(parsed.batches.len(), 1);
    assert_eq!(parsed.batches[0].tag_set_of_row, [0, 1, 0, 1, 2, 3, 3, 2]);
    assert_eq!(parsed.batches[0].tag_sets.len(), 4);
}

#[test]
fn tags_like_those_of_the_line_before_are_still_checked() {
    let parsed = read(
        "m,a=1,b=2 f=1\nm,a=1=2,b=2 f=2\nm,a=,b=2 f=3\nm,a=1,b=2, f=4\nm,a=\\,,b=\\= f=5\nm,a=1,b=3,c=1 f=6\nm,a=1 f=7\nm,a=1,bb=3 f=8",
    );
    assert_eq!(
        reasons(&parsed),
        [
            "2: the value of tag a has an equals sign in it; write it as \\=",
            "3: tag a has no value",
            "4: a tag has no key",
        ]
    );
    assert_eq!(
        points(&parsed),
        [
            r#"m {"a": "1", "b": "2"} f=1.0 @7"#,
            r#"m {"a": ",", "b": "="} f=5.0 @7"#,
            r#"m {"a": "1", "b": "3", "c": "1"} f=6.0 @7"#,
            r#"m {"a": "1"} f=7.0 @7"#,
            r#"m {"a": "1", "bb": "3"} f=8.0 @7"#,
        ]
    );
}

#[test]
fn the_examples_of_the_documentation_are_true() {
    let page = include_str!("../../../../docs/line-protocol.md");
    let blocks: Vec<&str> =
        page.split("```").filter_map(|b| b.strip_prefix("lineprotocol\n")).collect();
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let parsed = read(block);
        assert_eq!(reasons(&parsed), Vec::<String>::new(), "{block}");
        assert!(parsed.lines > 0);
    }
    let section = page.split("\n## ").find(|part| part.starts_with("Refused lines")).unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(rows.len() > 20);
    for row in rows {
        let (line, reason) = row[3..].split_once("` | ").unwrap();
        let parsed = read(line);
        assert_eq!(reasons(&parsed), [format!("1: {}", reason.trim_end_matches(" |"))], "{line}");
    }
}

/// A point as a client has it.
#[derive(Clone, Debug)]
struct Given {
    measurement: String,
    tags: Vec<(String, String)>,
    fields: Vec<(String, GivenValue)>,
    time: i64,
}

#[derive(Clone, Debug)]
enum GivenValue {
    Float(f64),
    Integer(i64),
    Unsigned(u64),
    Boolean(bool),
    String(String),
}

impl Given {
    fn line(&self) -> String {
        let mut line = escape(&self.measurement);
        for (key, value) in &self.tags {
            line += &format!(",{}={}", escape(key), escape(value));
        }
        for (i, (key, value)) in self.fields.iter().enumerate() {
            let value = match value {
                GivenValue::Float(value) => format!("{value:?}"),
                GivenValue::Integer(value) => format!("{value}i"),
                GivenValue::Unsigned(value) => format!("{value}u"),
                GivenValue::Boolean(value) => value.to_string(),
                GivenValue::String(value) => {
                    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
                }
            };
            line += &format!("{}{}={value}", if i == 0 { " " } else { "," }, escape(key));
        }
        line + &format!(" {}", self.time)
    }

    /// As [`point`] prints it, except that the fields come in their own order.
    fn expected(&self) -> (String, Vec<String>, String) {
        let pairs = self.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let tags = TagSet::new(pairs).unwrap();
        let mut fields: Vec<String> = self
            .fields
            .iter()
            .map(|(key, value)| match value {
                GivenValue::Float(value) => format!("{key}={value:?}"),
                GivenValue::Integer(value) => format!("{key}={value}i"),
                GivenValue::Unsigned(value) => format!("{key}={value}u"),
                GivenValue::Boolean(value) => format!("{key}={value}"),
                GivenValue::String(value) => format!("{key}={value:?}"),
            })
            .collect();
        fields.sort();
        (format!("{} {tags:?}", self.measurement), fields, format!("@{}", self.time))
    }
}

fn found(batch: &PointBatch, row: usize) -> (String, Vec<String>, String) {
    let tags = &batch.tag_sets[batch.tag_set_of_row[row] as usize];
    let present = batch.fields.iter().filter(|(_, values)| values.is_valid(row));
    let mut fields: Vec<String> =
        present.map(|(name, values)| format!("{name}={}", value(values, row))).collect();
    fields.sort();
    (format!("{} {tags:?}", batch.measurement), fields, format!("@{}", batch.times[row]))
}

fn escape(name: &str) -> String {
    name.replace(',', "\\,").replace('=', "\\=").replace(' ', "\\ ")
}

fn any_value() -> impl Strategy<Value = GivenValue> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(GivenValue::Float),
        (-1000i32..1000).prop_map(|n| GivenValue::Float(f64::from(n) / 8.0)),
        (any::<i64>(), 0u32..63).prop_map(|(n, shift)| GivenValue::Integer(n >> shift)),
        (any::<u64>(), 0u32..64).prop_map(|(n, shift)| GivenValue::Unsigned(n >> shift)),
        any::<bool>().prop_map(GivenValue::Boolean),
        "[a-c\"\\\\,= \n\r\u{e9}]{0,12}".prop_map(GivenValue::String),
    ]
}

/// Names of few letters, so that they meet; the kind keeps tags, and fields of each type, apart.
fn any_point() -> impl Strategy<Value = Given> {
    let tag = ("[ab ,=]{1,2}", "[a-c ,=\\\\\"\u{e9}]{0,5}[a-c]");
    let field = ("[ab ,=]{1,2}", any_value());
    (
        "[mn ,=][mn ,=\u{e9}]?",
        prop::collection::btree_map(tag.0, tag.1, 0..4),
        prop::collection::btree_map(field.0, field.1, 1..5),
        -9_214_560_000_000_000_000..9_214_646_400_000_000_000i64,
        any::<bool>(),
    )
        .prop_map(|(measurement, tags, fields, time, reversed)| {
            let tags = tags.into_iter().map(|(key, value)| (format!("t{key}"), value));
            let mut fields: Vec<_> = fields
                .into_iter()
                .map(|(key, value)| {
                    let kind = match value {
                        GivenValue::Float(_) => 'f',
                        GivenValue::Integer(_) => 'i',
                        GivenValue::Unsigned(_) => 'u',
                        GivenValue::Boolean(_) => 'b',
                        GivenValue::String(_) => 's',
                    };
                    (format!("{kind}{key}"), value)
                })
                .collect();
            if reversed {
                fields.reverse();
            }
            Given { measurement, tags: tags.collect(), fields, time }
        })
}

/// However many refused lines lead to one broken string, the lines behind it are read, and the
/// body is gone through once.
#[test]
fn a_broken_string_swallows_nothing_behind_it() {
    for refused in [1, 6, 300_000] {
        let body = " =\"\n\"".repeat(refused) + " =\"\nafter f=2 2\nafter f=3 3";
        let parsed = read(&body);
        assert_eq!(points(&parsed), ["after {} f=2.0 @2", "after {} f=3.0 @3"], "{refused}");
        assert_eq!(parsed.refused_count, refused + 1);
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(given in prop::collection::vec(any_point(), 1..30), crlf: bool) {
        let end = if crlf { "\r\n" } else { "\n" };
        let body: String = given.iter().map(|point| point.line() + end).collect();
        let parsed = read(&body);
        prop_assert_eq!(reasons(&parsed), Vec::<String>::new(), "{}", body);
        for batch in &parsed.batches {
            let rows = (0..batch.rows()).map(|row| found(batch, row));
            let own = given.iter().filter(|point| *point.measurement == *batch.measurement);
            prop_assert_eq!(rows.collect::<Vec<_>>(), own.map(Given::expected).collect::<Vec<_>>());
        }
        prop_assert_eq!(points(&parsed).len(), given.len());
    }

    /// Whatever a line holds, the points before and after it are there. (Quotes are left out of
    /// the good lines, as a broken string may reach up to the next quote of the body.) The fuzz
    /// target in `tests/fuzz` looks for such bytes with more patience.
    #[test]
    fn neighbours_survive_any_bytes(bad in any::<Vec<u8>>(), spiced in "[mf=,\" \\\\i1.#te\r\n-]{0,40}") {
        for bad in [&bad[..], spiced.as_bytes()] {
            let body = [b"first f=1 1\n", bad, b"\nlast f=2 2\nlast f=3 3"].concat();
            let parsed = read(&body);
            let points = points(&parsed);
            prop_assert_eq!(&points[0], "first {} f=1.0 @1");
            for last in ["last {} f=2.0 @2", "last {} f=3.0 @3"] {
                prop_assert!(points.iter().any(|point| point == last), "{:?}", reasons(&parsed));
            }
            prop_assert_eq!(parsed.lines, points.len() + parsed.refused_count);
        }
    }

    /// A refused line leaves no trace: the others are read as if it were not there.
    #[test]
    fn refused_lines_leave_no_trace(
        given in prop::collection::vec((any_point(), any::<bool>()), 1..20),
    ) {
        let (mut all, mut good) = (String::new(), String::new());
        for (point, is_broken) in &given {
            let line = point.line();
            if *is_broken {
                all += &format!("{line}x\n");
            } else {
                all += &format!("{line}\n");
                good += &format!("{line}\n");
            }
        }
        let (all, good) = (read(&all), read(&good));
        let sorted = |parsed: &Parsed| {
            let mut rows: Vec<_> = parsed.batches.iter().map(|b| {
                let rows: Vec<_> = (0..b.rows()).map(|row| found(b, row)).collect();
                (b.measurement.to_string(), b.tag_sets.len(), b.fields.len(), rows)
            }).collect();
            rows.sort();
            rows
        };
        prop_assert_eq!(sorted(&all), sorted(&good));
        prop_assert_eq!(all.refused_count, given.iter().filter(|(_, broken)| *broken).count());
    }
}
