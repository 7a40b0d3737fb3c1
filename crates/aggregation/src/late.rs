//! Points older than the retention of their measurement: what the aggregates over it make of them.

use std::sync::Arc;

use highwater_core::MeasurementId;
use highwater_storage::{LatePoints, LateRules};

use crate::catalog::Catalog;
use crate::definition::LateAfterRetention;
use crate::error::AggregationError;
use crate::runtime::Aggregates;

/// Nothing is left out silently as long as one of those who read points wants to hear of it.
fn decide(dependants: impl IntoIterator<Item = LateAfterRetention>) -> LatePoints {
    let mut dependants = dependants.into_iter().peekable();
    let is_read = dependants.peek().is_some();
    match is_read && dependants.all(|one| one == LateAfterRetention::Drop) {
        true => LatePoints::Drop,
        false => LatePoints::Refuse,
    }
}

/// What becomes of late points of a measurement. Detached aggregates have no say.
pub(crate) fn late_points_of(catalog: &Catalog, measurement: &str) -> LatePoints {
    let attached = catalog.dependants(measurement).filter(|one| !one.document.detached);
    decide(attached.map(|one| one.definition.late_after_retention))
}

impl Aggregates {
    /// What becomes of late points of these measurements, as far as any of them expires.
    ///
    /// # Errors
    /// If a stored definition cannot be read.
    pub fn late_rules<'a>(
        &self,
        database: &Arc<str>,
        measurements: impl IntoIterator<Item = &'a Arc<str>>,
    ) -> Result<LateRules, AggregationError> {
        let version = self.engine().version();
        let expires = |name: &Arc<str>| {
            version.retention(&MeasurementId::new(Arc::clone(database), Arc::clone(name))).is_some()
        };
        let expiring: Vec<&Arc<str>> =
            measurements.into_iter().filter(|name| expires(name)).collect();
        if expiring.is_empty() {
            return Ok(LateRules::new());
        }
        let catalog = self.catalog(&version, database)?;
        let rule = |name: &Arc<str>| (Arc::clone(name), late_points_of(&catalog, name));
        Ok(expiring.into_iter().map(rule).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_decides() {
        use LateAfterRetention::{Drop, Reject};
        assert_eq!(decide([]), LatePoints::Refuse);
        assert_eq!(decide([Drop, Drop]), LatePoints::Drop);
        assert_eq!(decide([Drop, Reject]), LatePoints::Refuse);
        assert_eq!(decide([Reject]), LatePoints::Refuse);
    }
}
