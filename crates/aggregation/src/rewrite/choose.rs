//! Which aggregate answers a question at one version, and why the others do not. Nothing is read
//! but the manifest.

use std::cmp::Reverse;
use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use highwater_core::{SequenceNumber, TimeRange, TimeRanges, Timestamp};
use highwater_storage::Measurement;

use super::decide::{Answering, Candidate, decide};
use super::question::Question;
use super::reason::Reason;
use crate::catalog::Aggregate;
use crate::definition::Resolved;
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::partial::MOST_DISTINCT;

/// An aggregate that answers a question, and from what.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) aggregate: Arc<Aggregate>,
    pub(super) resolved: Resolved,
    pub(super) answering: Answering,
    /// Whole pieces, of which partials are read.
    pub(super) whole: TimeRanges,
    /// What else is asked for and has points.
    pub(super) ragged: TimeRanges,
    /// About how many rows and points there are to read.
    rows: u64,
}

/// The aggregate that answers a question, if one does, and why others do not.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) answer: Option<Answer>,
    /// By name.
    pub(super) others: Vec<(Arc<str>, Reason)>,
}

/// Chooses the aggregate over `points` with the fewest rows to read. `is_failing` says which had a
/// refresh that failed.
pub(super) fn choose(
    reader: &Reader,
    points: &Measurement,
    question: &Question,
    is_failing: impl Fn(&Aggregate) -> bool,
) -> Choice {
    let (mut answers, mut others) = (Vec::new(), Vec::new());
    for aggregate in over(reader, points) {
        let usable = match is_failing(aggregate) {
            true => Err(Reason::Failing),
            false => answer_of(reader, points, aggregate, question),
        };
        match usable {
            Ok(answer) => answers.push(answer),
            Err(reason) => others.push((Arc::clone(aggregate.name()), reason)),
        }
    }
    answers.sort_by_cached_key(Answer::cost);
    let mut answers = answers.into_iter();
    let answer = answers.next();
    if let Some(chosen) = &answer {
        let chosen = chosen.aggregate.name();
        let costlier = |one: Answer| {
            (Arc::clone(one.aggregate.name()), Reason::Costlier { chosen: Arc::clone(chosen) })
        };
        others.extend(answers.map(costlier));
        others.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    Choice { answer, others }
}

/// The aggregates that are made of the points of a measurement, by name.
pub(super) fn over<'a>(
    reader: &'a Reader,
    points: &'a Measurement,
) -> impl Iterator<Item = &'a Arc<Aggregate>> {
    reader.catalog().iter().filter(|one| one.definition.root == *points.id())
}

impl Answer {
    /// Fewest rows first, then longest pieces.
    fn cost(&self) -> (u64, Reverse<i64>, Arc<str>) {
        let first = self.whole.iter().next().map_or(TimeRange::ALL.start, |range| range.start);
        let piece = self.aggregate.definition.pieces.piece_of(first);
        let length = piece.end.as_nanos().saturating_sub(piece.start.as_nanos());
        (self.rows, Reverse(length), Arc::clone(self.aggregate.name()))
    }
}

fn answer_of(
    reader: &Reader,
    points: &Measurement,
    aggregate: &Arc<Aggregate>,
    question: &Question,
) -> Result<Answer, Reason> {
    check_standing(aggregate)?;
    let resolved = reader.resolve(aggregate).map_err(misfit)?;
    let conditions = conditions(reader, points, aggregate)?;
    let definition = &aggregate.definition;
    let candidate = Candidate { definition, resolved: &resolved, conditions: &conditions };
    let answering = decide(question, &candidate)?;
    let outputs = answering.outputs().into_iter().map(|at| &resolved.outputs[at]);
    let valid_from = outputs.filter_map(|output| reader.valid_from(aggregate, output)).max();
    let asked = question.times.within(TimeRange::since(points.floor()));
    let whole = whole_pieces(reader, aggregate, &asked, valid_from)?;
    let stale = reader.stale(aggregate, &whole);
    let fresh = aggregate.progress.applied.covered().intersect(&whole).subtract(&stale);
    if fresh.is_empty() {
        return Err(Reason::NothingStored);
    }
    let limited = question.calls.iter().find(|call| call.has_no_limit);
    let is_below_limit = || points_at_most(points, &asked) <= MOST_DISTINCT as u64;
    if let Some(call) = limited.filter(|_| !is_below_limit()) {
        return Err(Reason::TooManyValues { call: call.text.clone() });
    }
    let stored = reader.session().version().measurement(&aggregate.stored());
    // There are no more rows than points, but some that are stored may be hidden.
    let stored = stored.map_or(0, |stored| rows_in(stored, &fresh)).min(rows_in(points, &fresh));
    let rows = stored + rows_in(points, &asked.subtract(&fresh));
    let ragged = with_points(points, &asked.subtract(&whole));
    Ok(Answer { aggregate: Arc::clone(aggregate), resolved, answering, whole, ragged, rows })
}

/// Whether an aggregate follows its points at all.
fn check_standing(aggregate: &Aggregate) -> Result<(), Reason> {
    let document = &aggregate.document;
    match (document.detached, document.enabled, &document.root_columns) {
        (true, ..) => Err(Reason::Detached),
        (_, false, _) => Err(Reason::Disabled),
        (.., Some(_)) => Err(Reason::Dropped),
        _ => Ok(()),
    }
}

/// The whole pieces within `asked` that say what the points say: of live points, kept, and with all
/// outputs that are read, which may be so from some time on only.
fn whole_pieces(
    reader: &Reader,
    aggregate: &Aggregate,
    asked: &TimeRanges,
    valid_from: Option<Timestamp>,
) -> Result<TimeRanges, Reason> {
    let pieces = aggregate.definition.pieces;
    let live = TimeRange::since(reader.sealed_before(aggregate));
    let within = |range: TimeRange| -> TimeRanges {
        let usable = asked.intersect(&reader.kept(aggregate).within(range));
        usable.iter().map(|range| pieces.round_in(range)).collect()
    };
    let valid = valid_from.map_or(live, |from| live.intersect(TimeRange::since(from)));
    let whole = within(valid);
    match valid_from {
        _ if !whole.is_empty() => Ok(whole),
        Some(from) if !within(live).is_empty() => Err(Reason::ValidFrom(from)),
        _ => Err(Reason::NoWholePiece),
    }
}

fn misfit(error: AggregationError) -> Reason {
    Reason::Misfit(error.to_string())
}

/// The parts of `times` that ever had points.
fn with_points(points: &Measurement, times: &TimeRanges) -> TimeRanges {
    let touched = |range| points.changes().touched_after(SequenceNumber::ZERO, range).within(range);
    times.iter().map(touched).fold(TimeRanges::none(), |all, more| all.union(&more))
}

/// No fewer points than a measurement has in these times.
fn points_at_most(measurement: &Measurement, times: &TimeRanges) -> u64 {
    let segments = measurement.segments().filter(|segment| times.overlaps(segment.times));
    segments.map(|segment| segment.rows).sum::<u64>() + measurement.memtable_rows() as u64
}

/// About how many rows a measurement has in these times: of a segment that sticks out, its share.
fn rows_in(measurement: &Measurement, times: &TimeRanges) -> u64 {
    let length =
        |range: TimeRange| range.end.as_nanos().saturating_sub(range.start.as_nanos()) as f64;
    let in_segments = measurement.segments().map(|segment| {
        let inside: f64 = times.within(segment.times).iter().map(length).sum();
        let share = inside / length(segment.times).max(1.0);
        (segment.rows as f64 * share).ceil() as u64
    });
    let in_memory = if times.is_empty() { 0 } else { measurement.memtable_rows() as u64 };
    in_segments.sum::<u64>() + in_memory
}

/// What all points of an aggregate meet, in the form that the optimizer gives to filters.
fn conditions(
    reader: &Reader,
    points: &Measurement,
    aggregate: &Aggregate,
) -> Result<Vec<Expr>, Reason> {
    let texts: Vec<&str> =
        reader.chain(aggregate).filter_map(|one| one.definition.filter.as_deref()).collect();
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let state = reader.session().state();
    let schema = Arc::new(DFSchema::try_from(points.schema().arrow().as_ref().clone())?);
    let mut conditions = Vec::new();
    for text in texts {
        let condition = simplified(&state, &schema, text)?;
        conditions.extend(split_conjunction(&condition).into_iter().cloned());
    }
    Ok(conditions)
}

fn simplified(state: &SessionState, schema: &Arc<DFSchema>, text: &str) -> Result<Expr, Reason> {
    let condition = state.create_logical_expr(text, schema)?;
    let context = SimplifyContext::builder()
        .with_schema(Arc::clone(schema))
        .with_config_options(Arc::clone(state.config_options()))
        .build();
    let simplifier = ExprSimplifier::new(context);
    let condition = simplifier.coerce(condition, schema)?;
    Ok(simplifier.simplify(condition)?)
}
