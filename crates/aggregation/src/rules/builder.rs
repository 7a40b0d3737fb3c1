//! Downsampling rules written in Rust.

use super::DownsamplingRule;
use crate::definition::rule::AggregationRule;
use crate::definition::{AggregateFunction, AggregateRule};

/// Builds a downsampling rule field by field.
///
/// A field with one function keeps its name, a field with several gets one output per function.
///
/// ```
/// use highwater_aggregation::definition::{AggregateFunction, Fraction, OutputRule, compile_all};
/// use highwater_aggregation::rules::DownsampleBuilder;
///
/// let rule = DownsampleBuilder::new("host", "host_5m", "5m")
///     .mean("cpu_usage")
///     .min("temperature")
///     .max("temperature")
///     .field("requests", AggregateFunction::Sum, "total_requests")
///     .field("latency", AggregateFunction::ApproxPercentile(Fraction::HALF), "latency_median")
///     .build();
///
/// let definitions = compile_all(&[("t".into(), rule)]).unwrap();
/// let outputs: Vec<_> = definitions[0].outputs.iter().filter_map(OutputRule::name).collect();
/// let expected = "cpu_usage temperature_min temperature_max total_requests latency_median";
/// assert_eq!(outputs.join(" "), expected);
/// ```
#[derive(Clone, Debug)]
pub struct DownsampleBuilder(DownsamplingRule);

impl DownsampleBuilder {
    /// A rule that writes buckets of `interval` (like `5m`) of `source` to `target`.
    pub fn new(
        source: impl Into<String>,
        target: impl Into<String>,
        interval: impl Into<String>,
    ) -> Self {
        DownsampleBuilder(DownsamplingRule {
            source: source.into(),
            target: target.into(),
            interval: Some(interval.into()),
            ..DownsamplingRule::default()
        })
    }

    /// Adds the mean of a field.
    #[must_use]
    pub fn mean(self, field: &str) -> Self {
        self.entry(field, AggregateFunction::Mean, None)
    }

    /// Adds the least value of a field.
    #[must_use]
    pub fn min(self, field: &str) -> Self {
        self.entry(field, AggregateFunction::Min, None)
    }

    /// Adds the greatest value of a field.
    #[must_use]
    pub fn max(self, field: &str) -> Self {
        self.entry(field, AggregateFunction::Max, None)
    }

    /// Adds a function of a field under a name of its own.
    #[must_use]
    pub fn field(self, source: &str, function: AggregateFunction, output: &str) -> Self {
        self.entry(source, function, Some(output))
    }

    /// The rule as an aggregate; compiling it tells what is wrong with it.
    pub fn build(self) -> AggregateRule {
        self.0.into_aggregate()
    }

    fn entry(mut self, field: &str, function: AggregateFunction, output: Option<&str>) -> Self {
        self.0.fields.push(AggregationRule {
            field: Some(field.to_owned()),
            function: vec![function.to_string()],
            alias: output.map(str::to_owned),
        });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Fraction, compile_all};

    #[test]
    fn a_percentile_keeps_its_fraction() {
        let p95 = AggregateFunction::ApproxPercentile(Fraction::new(0.95).unwrap());
        let rule = DownsampleBuilder::new("cpu", "cpu_5m", "5m").field("usage", p95, "high");
        let definitions = compile_all(&[("t".into(), rule.build())]).unwrap();
        assert_eq!(definitions[0].outputs[0].function, p95);
    }
}
