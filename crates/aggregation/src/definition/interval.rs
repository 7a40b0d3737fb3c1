//! The buckets that a rule asks for: `interval`, `timezone`, `offset` and `week_start`.

use highwater_core::Bucket;
use highwater_core::bucket::{BucketError, BucketWords};

use super::DefinitionError;
use super::rule::AggregateRule;

/// The buckets of a rule; none without an interval.
///
/// # Errors
/// What is wrong with one of the four keys.
pub(super) fn interval(rule: &AggregateRule) -> Result<Option<Bucket>, DefinitionError> {
    let Some(width) = &rule.interval else { return no_interval(rule).map(|()| None) };
    let trimmed = |text: &Option<String>| text.as_deref().map(|text| text.trim().to_owned());
    let words = BucketWords {
        width: width.trim().to_owned(),
        from_sunday: from_sunday(rule.week_start.as_deref())?,
        offset: trimmed(&rule.offset),
        zone: trimmed(&rule.timezone),
    };
    let bucket = words.bucket();
    bucket.map(Some).map_err(|error| DefinitionError::at(key_of(&error, &words), error.to_string()))
}

/// Checks that nothing is said about buckets that there are not.
fn no_interval(rule: &AggregateRule) -> Result<(), DefinitionError> {
    let keys =
        [("timezone", &rule.timezone), ("offset", &rule.offset), ("week_start", &rule.week_start)];
    match keys.into_iter().find(|(_, value)| value.is_some()) {
        Some((key, _)) => {
            Err(DefinitionError::at(key, "is about buckets, but there is no interval"))
        }
        None => Ok(()),
    }
}

fn from_sunday(week_start: Option<&str>) -> Result<bool, DefinitionError> {
    match week_start.map(str::trim) {
        None | Some("monday") => Ok(false),
        Some("sunday") => Ok(true),
        Some(other) => {
            let reason = format!("{other:?} is neither monday nor sunday");
            Err(DefinitionError::at("week_start", reason))
        }
    }
}

/// The key whose value is wrong.
fn key_of(error: &BucketError, words: &BucketWords) -> &'static str {
    match error {
        BucketError::NoSuchZone(_) | BucketError::NotInAZone(_) => "timezone",
        BucketError::NotOfWeeks(_) => "week_start",
        BucketError::OffsetTooLong(..) => "offset",
        BucketError::Unreadable(text) | BucketError::OutOfRange(text) => {
            if *text == words.width {
                "interval"
            } else {
                "offset"
            }
        }
    }
}
