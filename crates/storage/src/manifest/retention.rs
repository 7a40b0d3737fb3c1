//! Which retention rule applies to a measurement.

use highwater_core::MeasurementId;
use highwater_core::bucket::Span;

use super::{ManifestState, RetentionRule};

impl ManifestState {
    /// How long points of a measurement are kept; `None` means for ever.
    pub fn retention(&self, id: &MeasurementId) -> Option<Span> {
        Some(retention_of(self.databases.get(&id.database)?, &id.measurement)?.keep)
    }
}

impl RetentionRule {
    /// How closely the rule fits the name of a measurement; `None` if it does not.
    fn closeness(&self, measurement: &str) -> Option<usize> {
        if self.measurement == measurement {
            return Some(usize::MAX);
        }
        let prefix = self.measurement.strip_suffix('*')?;
        measurement.starts_with(prefix).then_some(prefix.len())
    }
}

/// The rule of those of its database that a measurement has: an exact name beats the longest
/// prefix, which beats `*`. `None` means that points are kept for ever.
pub(crate) fn retention_of<'a>(
    rules: &'a [RetentionRule],
    measurement: &str,
) -> Option<&'a RetentionRule> {
    let fitting = rules.iter().filter_map(|rule| Some((rule.closeness(measurement)?, rule)));
    fitting.max_by_key(|(closeness, _)| *closeness).map(|(_, rule)| rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_rule_counts() {
        let rules: Vec<RetentionRule> =
            [("*", "1d"), ("cpu*", "2d"), ("cpu_*", "3d"), ("cpu_a", "4d")]
                .map(|(name, keep)| RetentionRule {
                    measurement: name.to_owned(),
                    keep: keep.parse().unwrap(),
                    max_hold: None,
                })
                .into();
        let keep = |name| retention_of(&rules, name).map(|rule| rule.keep.to_string());
        assert_eq!(keep("cpu_a").as_deref(), Some("4d"));
        assert_eq!(keep("cpu_b").as_deref(), Some("3d"));
        assert_eq!(keep("cpu").as_deref(), Some("2d"));
        assert_eq!(keep("mem").as_deref(), Some("1d"));
        assert_eq!(retention_of(&rules[1..], "mem"), None);
    }
}
