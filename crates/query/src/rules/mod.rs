//! Rules of the planner, one file each.

pub(crate) mod correlation;
pub(crate) mod gapfill;
pub(crate) mod in_subquery;
pub(crate) mod last_points;
