//! The few filters a scan understands: ranges of time, and conditions over columns.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::point_set::PointSet;
use crate::schema::TIME_COLUMN;
use crate::series_ranges::SeriesRanges;
use crate::time::{TimeRange, TimeRanges, Timestamp};
use crate::value::FieldValue;

/// What a scan may leave out. Time and series are filtered exactly; tags only prune, so whoever asks
/// filters rows by tag again.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanFilter {
    /// Only points with a time in here are returned.
    pub times: TimeRanges,
    /// Only points whose tag has one of these values are needed: `(tag, values)`, all must hold.
    pub tags: Vec<(Arc<str>, BTreeSet<String>)>,
    /// Only points of these series at these times are returned; `None` for all.
    pub series: Option<Arc<SeriesRanges>>,
}

impl Default for ScanFilter {
    fn default() -> Self {
        ScanFilter::all()
    }
}

impl ScanFilter {
    /// Every point.
    pub fn all() -> Self {
        ScanFilter::at(TimeRanges::all())
    }

    /// Every point with a time in `times`.
    pub fn at(times: TimeRanges) -> Self {
        ScanFilter { times, tags: Vec::new(), series: None }
    }
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// Which points a delete removes. SQL's three-valued logic: a comparison with NULL is not true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Every point.
    All,
    /// A column (`time`, tag or field) compared with a value of its type.
    Compare {
        /// Name of the column.
        column: Arc<str>,
        /// The comparison, column on the left.
        comparison: Comparison,
        /// The right-hand side.
        value: FieldValue,
    },
    /// The column is NULL.
    IsNull(Arc<str>),
    /// The condition is false (not: unknown).
    Not(Box<Condition>),
    /// All hold.
    And(Vec<Condition>),
    /// At least one holds.
    Or(Vec<Condition>),
    /// It is one of these points.
    Points(Arc<PointSet>),
}

impl Condition {
    /// Times outside of which the condition never holds.
    pub fn times(&self) -> TimeRanges {
        match self {
            Condition::Compare { column, comparison, value: FieldValue::Timestamp(at) }
                if **column == *TIME_COLUMN =>
            {
                times_compared(*comparison, *at)
            }
            Condition::And(parts) => {
                parts.iter().fold(TimeRanges::all(), |times, part| times.intersect(&part.times()))
            }
            Condition::Or(parts) => {
                parts.iter().fold(TimeRanges::none(), |times, part| times.union(&part.times()))
            }
            Condition::Points(points) => points.minutes(),
            _ => TimeRanges::all(),
        }
    }

    /// The same condition with chains of `And`, and of `Or`, as one each, so that a long list of
    /// alternatives is wide and not deep.
    #[must_use]
    pub fn flattened(self) -> Condition {
        match self {
            Condition::Not(inner) => Condition::Not(Box::new(inner.flattened())),
            Condition::And(parts) => Condition::And(flat_parts(parts, |part| match part {
                Condition::And(inner) => Ok(inner),
                other => Err(other),
            })),
            Condition::Or(parts) => Condition::Or(flat_parts(parts, |part| match part {
                Condition::Or(inner) => Ok(inner),
                other => Err(other),
            })),
            leaf => leaf,
        }
    }
}

fn times_compared(comparison: Comparison, at: Timestamp) -> TimeRanges {
    let after = at.saturating_add(1);
    let range = match comparison {
        Comparison::Equal => TimeRange::new(at, after),
        Comparison::NotEqual => {
            return TimeRanges::all().subtract(&TimeRange::new(at, after).into());
        }
        Comparison::Less => TimeRange::before(at),
        Comparison::LessOrEqual => TimeRange::before(after),
        Comparison::Greater => TimeRange::since(after),
        Comparison::GreaterOrEqual => TimeRange::since(at),
    };
    range.into()
}

/// Flattened parts, where those that `open` takes apart are replaced by what is in them.
fn flat_parts(
    parts: Vec<Condition>,
    open: impl Fn(Condition) -> Result<Vec<Condition>, Condition>,
) -> Vec<Condition> {
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        match open(part.flattened()) {
            Ok(inner) => flat.extend(inner),
            Err(other) => flat.push(other),
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_become_wide() {
        let is_null = |tag: &str| Condition::IsNull(tag.into());
        let chain = ["b", "c"]
            .into_iter()
            .fold(is_null("a"), |chain, tag| Condition::Or(vec![chain, is_null(tag)]));
        let both = Condition::And(vec![Condition::Not(Box::new(chain)), Condition::And(vec![])]);
        let wide = Condition::Or(vec![is_null("a"), is_null("b"), is_null("c")]);
        assert_eq!(both.flattened(), Condition::And(vec![Condition::Not(Box::new(wide))]));
    }
}
