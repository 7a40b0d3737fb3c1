//! Points that come long after their hour was stored.

use highwater_core::Stopwatch;

use super::compare::Comparisons;
use super::database::Database;
use super::history::History;
use super::report::Report;

/// Writes a late point and a correction, and shows their hour before and after.
pub(super) fn show(
    report: &Report,
    database: &Database,
    history: &History,
    comparisons: &mut Comparisons,
) -> anyhow::Result<()> {
    let late = history.late();
    report.heading(&format!("A late point, then a correction, in the hour of {}", late.hour))?;
    let aggregate = format!(
        "SELECT points, usage_user_mean AS mean, usage_user_min AS lowest, usage_user_max AS \
         highest FROM cpu_1h WHERE hostname = 'host_0' AND time = '{}'",
        late.hour
    );
    let raw = format!(
        "SELECT count(*) AS points, avg(usage_user) AS mean, min(usage_user) AS lowest, \
         max(usage_user) AS highest FROM cpu WHERE hostname = 'host_0' AND time >= '{0}' AND time \
         < TIMESTAMP '{0}' + INTERVAL '1 hour'",
        late.hour
    );
    let head = ["", "points", "mean", "lowest", "highest", ""].map(str::to_owned).to_vec();
    let mut rows = vec![head, row("cpu_1h before", &database.csv(&aggregate)?, "")];
    for (label, line) in
        [("after the late point", &late.new), ("after the correction", &late.correction)]
    {
        let stopwatch = Stopwatch::start();
        database.write(line)?;
        let seen = database.csv(&aggregate)?;
        let note = format!("{:.0} ms for write and read", stopwatch.elapsed_ms());
        rows.push(row(label, &seen, &note));
        let points = database.csv(&raw)?;
        rows.push(row("the points say", &points, comparisons.compare(&points, &seen)));
    }
    report.rows(&rows)
}

/// A row of the report: a label, the cells of the only row of an answer, a note.
fn row(label: &str, csv: &str, note: &str) -> Vec<String> {
    let cells = csv.lines().nth(1).unwrap_or_default().split(',');
    let cells = cells.map(str::to_owned);
    std::iter::once(label.to_owned()).chain(cells).chain([note.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_between_label_and_note() {
        assert_eq!(row("before", "points,mean\n360,50.5\n", "ok"), ["before", "360", "50.5", "ok"]);
    }
}
