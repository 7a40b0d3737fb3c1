//! One question asked of raw points and of an aggregate: how long it takes, and whether the
//! answers are the same, byte for byte.

use anyhow::ensure;
use highwater_core::Stopwatch;

use super::database::Database;
use super::grouped;
use super::report::Report;

/// How often a question is asked; the median counts.
const RUNS: usize = 5;

/// A question in two wordings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The question for people.
    pub(super) label: String,
    /// Asked of the points.
    pub(super) raw: String,
    /// Asked of an aggregate.
    pub(super) aggregate: String,
}

/// The same question, answered twice.
#[derive(Clone, Debug, PartialEq)]
struct Answered {
    label: String,
    raw_ms: f64,
    aggregate_ms: f64,
    rows: usize,
    is_identical: bool,
}

/// How all comparisons so far came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparisons {
    identical: usize,
    different: usize,
}

impl Comparisons {
    /// Asks the questions and prints a row for each.
    pub(super) fn show(
        &mut self,
        report: &Report,
        database: &Database,
        title: &str,
        questions: &[Question],
    ) -> anyhow::Result<()> {
        report.heading(title)?;
        let head = ["", "points", "aggregate", "ratio", "rows", "answers"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for question in questions {
            let answered = ask(database, question)?;
            self.count(answered.is_identical);
            rows.push(row(&answered));
        }
        report.rows(&rows)
    }

    /// Compares two answers without measuring; the word for how it came out.
    pub(super) fn compare(&mut self, one: &str, other: &str) -> &'static str {
        self.count(one == other);
        word(one == other)
    }

    fn count(&mut self, is_identical: bool) {
        let counter = if is_identical { &mut self.identical } else { &mut self.different };
        *counter += 1;
    }

    /// Says how it went.
    ///
    /// # Errors
    /// If anything was different.
    pub(super) fn conclude(self, report: &Report) -> anyhow::Result<()> {
        let Comparisons { identical, different } = self;
        ensure!(
            different == 0,
            "{different} of {} comparisons differ between an aggregate and its points: a defect \
             of Highwater, please report it with the output above",
            identical + different
        );
        report.line(&format!("\nall {identical} comparisons: identical"))
    }
}

fn ask(database: &Database, question: &Question) -> anyhow::Result<Answered> {
    let (raw, raw_ms) = timed(database, &question.raw)?;
    let (aggregate, aggregate_ms) = timed(database, &question.aggregate)?;
    Ok(Answered {
        label: question.label.clone(),
        raw_ms,
        aggregate_ms,
        rows: raw.lines().count().saturating_sub(1),
        is_identical: raw == aggregate,
    })
}

/// The last answer, and the median of the times of all.
fn timed(database: &Database, sql: &str) -> anyhow::Result<(String, f64)> {
    let mut answer = String::new();
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let stopwatch = Stopwatch::start();
        answer = database.csv(sql)?;
        times.push(stopwatch.elapsed_ms());
    }
    Ok((answer, median(times)))
}

/// The middle one; of an even number, the later of the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn row(answered: &Answered) -> Vec<String> {
    vec![
        answered.label.clone(),
        format!("{:.1} ms", answered.raw_ms),
        format!("{:.1} ms", answered.aggregate_ms),
        ratio(answered.raw_ms, answered.aggregate_ms),
        grouped(answered.rows as u64),
        word(answered.is_identical).to_owned(),
    ]
}

fn ratio(raw_ms: f64, aggregate_ms: f64) -> String {
    let ratio = raw_ms / aggregate_ms.max(0.001);
    if ratio < 10.0 { format!("{ratio:.1}x") } else { format!("{ratio:.0}x") }
}

fn word(is_identical: bool) -> &'static str {
    if is_identical { "identical" } else { "DIFFERENT" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_an_error_in_the_end() {
        let report = Report::to_stdout();
        let mut comparisons = Comparisons::default();
        assert_eq!(comparisons.compare("n\n1\n", "n\n1\n"), "identical");
        assert!(comparisons.conclude(&report).is_ok());
        assert_eq!(comparisons.compare("n\n1\n", "n\n1.0\n"), "DIFFERENT");
        let error = comparisons.conclude(&report).unwrap_err().to_string();
        assert!(error.starts_with("1 of 2 comparisons differ"), "{error}");
    }

    #[test]
    fn times_are_medians_and_ratios_are_short() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(Vec::new()), 0.0);
        assert_eq!(ratio(100.0, 8.0), "12x");
        assert_eq!(ratio(10.0, 8.0), "1.2x");
        let answered = Answered {
            label: "q".to_owned(),
            raw_ms: 1234.56,
            aggregate_ms: 2.0,
            rows: 1000,
            is_identical: true,
        };
        assert_eq!(row(&answered), ["q", "1234.6 ms", "2.0 ms", "617x", "1,000", "identical"]);
    }
}
