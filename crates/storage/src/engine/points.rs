//! Points as text, for tests: `cpu,host=a usage=1.5,count=2i 60`, time in seconds.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::TimestampNanosecondType;
use arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use highwater_core::{MeasurementId, PointBatch, ScanFilter, TagSet, Timestamp};

use crate::{ScanRequest, Version};

/// The lines as batches, one per measurement.
pub(crate) fn points(text: &str) -> Vec<PointBatch> {
    let mut of_measurement: BTreeMap<&str, Vec<Line<'_>>> = BTreeMap::new();
    for (i, text) in text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        let line = Line::read(text, i as u32 + 1);
        of_measurement.entry(line.measurement).or_default().push(line);
    }
    of_measurement.into_values().map(|lines| batch(&lines)).collect()
}

struct Line<'a> {
    number: u32,
    measurement: &'a str,
    tags: TagSet,
    fields: Vec<(&'a str, &'a str)>,
    time: Timestamp,
}

impl<'a> Line<'a> {
    fn read(text: &'a str, number: u32) -> Self {
        let mut parts = text.split_whitespace();
        let mut keys = parts.next().unwrap().split(',');
        let measurement = keys.next().unwrap();
        let tags = TagSet::new(keys.map(|tag| tag.split_once('=').unwrap())).unwrap();
        let fields = parts.next().unwrap().split(',').map(|f| f.split_once('=').unwrap());
        let fields = fields.collect();
        let time = Timestamp::from_secs(parts.next().unwrap().parse().unwrap());
        Line { number, measurement, tags, fields, time }
    }

    fn integer(&self, name: &str) -> Option<i64> {
        let (_, value) = self.fields.iter().find(|(own, _)| *own == name)?;
        Some(value.strip_suffix('i')?.parse().unwrap())
    }

    fn float(&self, name: &str) -> Option<f64> {
        let (_, value) =
            self.fields.iter().find(|(own, value)| *own == name && !value.ends_with('i'))?;
        Some(value.parse().unwrap())
    }
}

fn batch(lines: &[Line<'_>]) -> PointBatch {
    let mut fields: Vec<(Arc<str>, ArrayRef)> = Vec::new();
    let mut names: Vec<(&str, bool)> = lines
        .iter()
        .flat_map(|line| line.fields.iter().map(|(name, value)| (*name, value.ends_with('i'))))
        .collect();
    names.sort_unstable();
    names.dedup();
    for (name, is_integer) in names {
        let values: ArrayRef = match is_integer {
            true => Arc::new(lines.iter().map(|line| line.integer(name)).collect::<Int64Array>()),
            false => Arc::new(lines.iter().map(|line| line.float(name)).collect::<Float64Array>()),
        };
        fields.push((name.into(), values));
    }
    PointBatch {
        measurement: lines[0].measurement.into(),
        tag_sets: lines.iter().map(|line| line.tags.clone()).collect(),
        tag_set_of_row: (0..lines.len() as u32).collect(),
        times: lines.iter().map(|line| line.time.as_nanos()).collect(),
        fields,
        lines: lines.iter().map(|line| line.number).collect(),
    }
}

/// The points of a measurement in the form they were written in, with fields in the order of the
/// schema, sorted.
pub(crate) async fn read(version: &Version, measurement: &str) -> Vec<String> {
    let Some(found) = version.measurement(&MeasurementId::new("db", measurement)) else {
        return Vec::new();
    };
    let columns: Vec<Arc<str>> =
        found.schema().arrow().fields().iter().map(|field| field.name().as_str().into()).collect();
    let filter = ScanFilter::all();
    let scan = found
        .scan(&ScanRequest { partitions: 3, ..ScanRequest::new(columns.clone(), filter) })
        .unwrap();
    let mut lines = Vec::new();
    for partition in 0..scan.partitions() {
        for batch in scan.stream(partition).try_collect::<Vec<_>>().await.unwrap() {
            for row in 0..batch.num_rows() {
                let value = |name: &str| {
                    let column = batch.column_by_name(name).unwrap();
                    column.is_valid(row).then(|| array_value_to_string(column, row).unwrap())
                };
                let pairs = |names: &mut dyn Iterator<Item = &Arc<str>>| {
                    let pairs = names.filter_map(|name| Some(format!("{name}={}", value(name)?)));
                    pairs.collect::<Vec<_>>()
                };
                let tags = pairs(&mut found.schema().tags().iter());
                let fields = pairs(&mut found.schema().fields().iter().map(|(name, _)| name));
                let keys = [vec![measurement.to_owned()], tags].concat().join(",");
                let nanos = batch["time"].as_primitive::<TimestampNanosecondType>().value(row);
                lines.push(format!("{keys} {} {}", fields.join(","), nanos / 1_000_000_000));
            }
        }
    }
    lines.sort_unstable();
    lines
}
