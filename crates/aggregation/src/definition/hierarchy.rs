//! Rules checked against each other: sources, cycles, and what an aggregate takes over from the
//! aggregate it reads.

use std::collections::HashMap;
use std::sync::Arc;

use highwater_core::Bucket;

use super::compile::compile;
use super::{
    AggregateId, AggregateRule, Definition, DefinitionError, FieldChoice, GroupBy, Naming,
    OutputRule,
};
use crate::pieces::Pieces;

/// Compiles rules that stand together, each with its database. A source is the aggregate of that
/// name, or else a measurement. The definitions come sources first.
///
/// # Errors
/// Everything that is wrong, each with the position of its rule. Rules that read a wrong one are
/// not looked at.
pub fn compile_all(
    rules: &[(Arc<str>, AggregateRule)],
) -> Result<Vec<Definition>, Vec<(usize, DefinitionError)>> {
    let mut rulebook = Rulebook::of(rules);
    for position in 0..rules.len() {
        match rulebook.chain_of(position) {
            Ok(chain) => chain.into_iter().for_each(|position| rulebook.compile(position)),
            Err(cycle) => rulebook.note_cycle(position, &cycle),
        }
    }
    rulebook.finish()
}

/// Rules, and what has been compiled of them so far.
struct Rulebook<'a> {
    rules: &'a [(Arc<str>, AggregateRule)],
    positions: HashMap<AggregateId, usize>,
    /// Position and definition in the order of compiling; `None` for a wrong one.
    compiled: Vec<(usize, Option<Definition>)>,
    problems: Vec<(usize, DefinitionError)>,
}

impl<'a> Rulebook<'a> {
    fn of(rules: &'a [(Arc<str>, AggregateRule)]) -> Self {
        Rulebook {
            rules,
            positions: rules.iter().map(id_of).zip(0..).collect(),
            compiled: Vec::with_capacity(rules.len()),
            problems: duplicates(rules),
        }
    }

    /// Position of the aggregate that a rule reads; `None` if it reads a measurement (or itself,
    /// which compiling it will say).
    fn source_of(&self, position: usize) -> Option<usize> {
        let (database, rule) = &self.rules[position];
        let id = AggregateId::new(Arc::clone(database), rule.source.as_str());
        self.positions.get(&id).copied().filter(|_| rule.source != rule.name)
    }

    /// A rule after all it reads, deepest first.
    ///
    /// # Errors
    /// The cycle it is in or leads to, starting with its lowest position.
    fn chain_of(&self, position: usize) -> Result<Vec<usize>, Vec<usize>> {
        let mut chain = vec![position];
        let mut at = position;
        while let Some(source) = self.source_of(at) {
            if let Some(start) = chain.iter().position(|earlier| *earlier == source) {
                let mut cycle = chain.split_off(start);
                let lowest = (0..cycle.len()).min_by_key(|i| cycle[*i]).unwrap_or(0);
                cycle.rotate_left(lowest);
                return Err(cycle);
            }
            chain.push(source);
            at = source;
        }
        chain.reverse();
        Ok(chain)
    }

    /// Notes a cycle once, at its first rule.
    fn note_cycle(&mut self, position: usize, cycle: &[usize]) {
        if cycle.first() == Some(&position) {
            let around = cycle.iter().chain(cycle.first());
            let names: Vec<_> = around.map(|at| self.rules[*at].1.name.as_str()).collect();
            let reason = format!("these aggregates read each other: {}", names.join(" -> "));
            self.problems.push((position, DefinitionError::at("source", reason)));
        }
    }

    /// Compiles a rule whose source is compiled, unless that one is wrong.
    fn compile(&mut self, position: usize) {
        let found = |at: usize| self.compiled.iter().find(|(other, _)| *other == at);
        if found(position).is_some() {
            return;
        }
        let (database, rule) = &self.rules[position];
        let result = match self.source_of(position).and_then(found) {
            None => compile(database, rule, None),
            Some((_, Some(parent))) => compile(database, rule, Some(parent)),
            Some((_, None)) => Err(vec![]),
        };
        let definition = result.map_err(|problems| {
            self.problems.extend(problems.into_iter().map(|problem| (position, problem)));
        });
        self.compiled.push((position, definition.ok()));
    }

    fn finish(mut self) -> Result<Vec<Definition>, Vec<(usize, DefinitionError)>> {
        if self.problems.is_empty() {
            return Ok(self
                .compiled
                .into_iter()
                .filter_map(|(_, definition)| definition)
                .collect());
        }
        self.problems.sort_by_key(|(position, _)| *position);
        Err(self.problems)
    }
}

fn id_of((database, rule): &(Arc<str>, AggregateRule)) -> AggregateId {
    AggregateId::new(Arc::clone(database), rule.name.as_str())
}

fn duplicates(rules: &[(Arc<str>, AggregateRule)]) -> Vec<(usize, DefinitionError)> {
    let mut seen = HashMap::new();
    let mut problems = Vec::new();
    for (position, rule) in rules.iter().enumerate() {
        let name = &rule.1.name;
        if !name.is_empty() && seen.insert(id_of(rule), position).is_some() {
            let reason = format!("there is another aggregate named {name}");
            problems.push((position, DefinitionError::at("name", reason)));
        }
    }
    problems
}

/// Checks that a child's group columns are among its parent's, as far as those are known yet.
pub(super) fn check_groups(
    columns: &[Arc<str>],
    parent: &Definition,
) -> Result<(), DefinitionError> {
    let GroupBy::Columns(kept) = &parent.group_by else { return Ok(()) };
    let missing = columns.iter().position(|column| !kept.contains(column));
    missing.map_or(Ok(()), |i| {
        let name = &parent.id.name;
        let reason = match kept.as_slice() {
            [] => format!("{name} has no groups, so {} is lost there", columns[i]),
            kept => format!("{name} keeps only {}, not {}", kept.join(", "), columns[i]),
        };
        Err(DefinitionError::new(reason).inside(i))
    })
}

/// The pieces of a child, once its boundaries are known to be boundaries of its parent.
pub(super) fn pieces_over(
    bucket: Option<Bucket>,
    parent: &Definition,
) -> Result<Pieces, DefinitionError> {
    let name = &parent.id.name;
    let refused = |reason: String| Err(DefinitionError::at("interval", reason));
    match (bucket, parent.bucket) {
        (Some(bucket), None) => {
            return refused(format!("{name} has no interval, so it cannot be cut into {bucket}"));
        }
        (Some(bucket), Some(finer)) if !finer.refines(bucket) => {
            return refused(format!(
                "boundaries of {bucket} are not all boundaries of {name}, which has {finer}"
            ));
        }
        _ => {}
    }
    // On another time column both are kept by UTC days of `time`.
    let own = bucket.filter(|_| parent.time_column.is_none());
    match Pieces::over(own, parent.pieces) {
        Some(pieces) => Ok(pieces),
        None => {
            let finer = parent.bucket.map(|finer| finer.to_string()).unwrap_or_default();
            refused(format!(
                "missing; all time is kept by UTC days, and {finer} of {name} does not divide a day"
            ))
        }
    }
}

/// The output as its parent's partials give it: a function with the same partial, of the same field
/// or of what the parent calls by that name.
pub(super) fn derived(
    own: OutputRule,
    parent: Option<&Definition>,
) -> Result<OutputRule, DefinitionError> {
    let Some(parent) = parent else { return Ok(own) };
    let answering =
        || parent.outputs.iter().filter(|kept| own.function.reads_partials_of(kept.function));
    let keeps_field = |kept: &OutputRule| match (&own.field, &kept.field) {
        (FieldChoice::Named(_), FieldChoice::Every) => true,
        (FieldChoice::Every, kept) => *kept != FieldChoice::Points,
        (own, kept) => own == kept,
    };
    if answering().any(keeps_field) {
        return Ok(own);
    }
    let FieldChoice::Named(name) = &own.field else { return Err(not_kept(&own, parent)) };
    match answering().find(|kept| kept.name().as_ref() == Some(name)) {
        Some(kept) => Ok(OutputRule {
            field: kept.field.clone(),
            function: own.function,
            naming: Naming::As(own.name_for(Some(name))),
        }),
        None => Err(not_kept(&own, parent)),
    }
}

fn not_kept(own: &OutputRule, parent: &Definition) -> DefinitionError {
    let describe = |output: &OutputRule| match &output.field {
        FieldChoice::Points => output.function.to_string(),
        FieldChoice::Named(field) => format!("{} of {field}", output.function),
        FieldChoice::Every => format!("{} of every field", output.function),
    };
    let kept: Vec<String> = parent.outputs.iter().map(describe).collect();
    DefinitionError::new(format!(
        "{} cannot be derived from {}, which keeps {}; add it there",
        describe(own),
        parent.id.name,
        kept.join(", ")
    ))
}
