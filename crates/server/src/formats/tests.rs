use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Date32Array, DictionaryArray, Float64Array, Int64Array, ListArray,
    StringArray, StructArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{Format, is_marked_tag};

fn written(format: Format, columns: Vec<(&str, ArrayRef)>) -> String {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    String::from_utf8(bytes(format, &batch)).unwrap()
}

fn bytes(format: Format, batch: &RecordBatch) -> Vec<u8> {
    let mut writer = format.writer(batch.schema()).unwrap();
    let mut out = Vec::new();
    writer.write(batch, &mut out).unwrap();
    writer.finish(&mut out).unwrap();
    out
}

fn mixed() -> Vec<(&'static str, ArrayRef)> {
    let time = TimestampNanosecondArray::from(vec![1_704_067_200_000_000_000, 1_500_000_000]);
    let host: DictionaryArray<Int32Type> = [Some("a,b"), None].into_iter().collect();
    vec![
        ("time", Arc::new(time)),
        ("host", Arc::new(host)),
        ("usage", Arc::new(Float64Array::from(vec![Some(30.0), None]))),
        ("n", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
        ("note", Arc::new(StringArray::from(vec!["say \"hi\"\n", ""]))),
    ]
}

#[test]
fn csv_quotes_what_it_must_and_leaves_null_empty() {
    let expected = "time,host,usage,n,note\n\
        2024-01-01T00:00:00Z,\"a,b\",30.0,18446744073709551615,\"say \"\"hi\"\"\n\"\n\
        1970-01-01T00:00:01.5Z,,,0,\"\"\n";
    assert_eq!(written(Format::Csv, mixed()), expected);
}

#[test]
fn json_rows_have_every_column() {
    let expected = r#"[{"time":"2024-01-01T00:00:00Z","host":"a,b","usage":30.0,"n":18446744073709551615,"note":"say \"hi\"\n"},{"time":"1970-01-01T00:00:01.5Z","host":null,"usage":null,"n":0,"note":""}]"#;
    assert_eq!(written(Format::Json, mixed()), expected);
    let lines = written(Format::JsonLines, mixed());
    assert_eq!(lines.lines().count(), 2);
    for line in lines.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn floats_are_the_shortest_that_read_back() {
    let values = vec![0.1 + 0.2, -0.0, 1e300, 5e-324, 1e16, f64::NAN, f64::INFINITY];
    let column = || vec![("x", Arc::new(Float64Array::from(values.clone())) as ArrayRef)];
    let csv = written(Format::Csv, column());
    assert_eq!(csv, "x\n0.30000000000000004\n-0.0\n1e300\n5e-324\n1e16\nNaN\ninf\n");
    let json = written(Format::Json, column());
    assert!(json.ends_with(r#"{"x":1e16},{"x":null},{"x":null}]"#), "{json}");
}

#[test]
fn nested_values_are_compact_json() {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
        Some(vec![Some(1), None, Some(3)]),
        None,
    ]);
    let name: ArrayRef = Arc::new(StringArray::from(vec!["x\ty", "z"]));
    let pair = StructArray::try_from(vec![("name", name), ("list", Arc::new(list) as ArrayRef)]);
    let columns = || vec![("s", Arc::new(pair.as_ref().unwrap().clone()) as ArrayRef)];
    let csv = written(Format::Csv, columns());
    let first = "\"{\"\"name\"\":\"\"x\\ty\"\",\"\"list\"\":[1,null,3]}\"\n";
    assert_eq!(csv, format!("s\n{first}\"{{\"\"name\"\":\"\"z\"\",\"\"list\"\":null}}\"\n"));
    let json = written(Format::Json, columns());
    assert_eq!(json, r#"[{"s":{"name":"x\ty","list":[1,null,3]}},{"s":{"name":"z","list":null}}]"#);
}

#[test]
fn dates_bytes_and_far_times() {
    let columns = vec![
        ("day", Arc::new(Date32Array::from(vec![19_723])) as ArrayRef),
        ("bytes", Arc::new(BinaryArray::from(vec![b"\x00\xff".as_slice()])) as ArrayRef),
        ("far", Arc::new(TimestampSecondArray::from(vec![253_402_300_799])) as ArrayRef),
    ];
    assert_eq!(
        written(Format::Csv, columns),
        "day,bytes,far\n2024-01-01,00ff,9999-12-31T23:59:59Z\n"
    );
}

#[test]
fn answers_without_rows_keep_their_frame() {
    let none = || vec![("n", Arc::new(Int64Array::from(Vec::<i64>::new())) as ArrayRef)];
    assert_eq!(written(Format::Csv, none()), "n\n");
    assert_eq!(written(Format::Json, none()), "[]");
    assert_eq!(written(Format::JsonLines, none()), "");
    assert_eq!(written(Format::Pretty, none()), "+---+\n| n |\n+---+\n");
}

#[test]
fn the_only_column_quotes_null() {
    let one = vec![("n", Arc::new(Int64Array::from(vec![None, Some(1)])) as ArrayRef)];
    assert_eq!(written(Format::Csv, one), "n\n\"\"\n1\n");
}

#[test]
fn a_pretty_table_lines_up() {
    let columns = vec![
        ("host", Arc::new(StringArray::from(vec!["é", "long"])) as ArrayRef),
        ("n", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef),
    ];
    let expected =
        "+------+---+\n| host | n |\n+------+---+\n| é    | 1 |\n| long |   |\n+------+---+\n";
    assert_eq!(written(Format::Pretty, columns), expected);
}

#[test]
fn parquet_keeps_types_and_names_the_tags() {
    let batch = RecordBatch::try_from_iter_with_nullable(
        mixed().into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    let file = bytes::Bytes::from(bytes(Format::Parquet, &batch));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = SchemaRef::clone(reader.schema());
    for (read, written) in schema.fields().iter().zip(batch.schema().fields()) {
        assert_eq!(read.data_type(), written.data_type());
        assert_eq!(is_marked_tag(read), read.name() == "host");
    }
    let read: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].columns(), batch.columns());
}

#[test]
fn parquet_without_its_end_is_no_file() {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..600_000));
    let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let mut writer = Format::Parquet.writer(batch.schema()).unwrap();
    let mut out = Vec::new();
    writer.write(&batch, &mut out).unwrap();
    assert!(out.len() > 100_000, "row groups leave as soon as they are whole");
    let cut = bytes::Bytes::from(out.clone());
    assert!(ParquetRecordBatchReaderBuilder::try_new(cut).is_err());
    writer.finish(&mut out).unwrap();
    let whole = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(out)).unwrap();
    assert_eq!(whole.metadata().num_row_groups(), 3);
}
