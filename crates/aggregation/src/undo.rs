//! Taking back the last change or drop: what it replaced is kept for a while.

use std::sync::Arc;

use highwater_core::{TimeRange, TimeRanges, Timestamp};
use highwater_storage::{Commit, Edit};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::catalog::{
    Aggregate, DefinitionDocument, Progress, definition_key, of_rules, previous_key, progress_key,
    put,
};
use crate::definition::{AggregateId, Definition, Meaning, compile_all};
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::feed::{self, Restated};
use crate::runtime::Aggregates;
use crate::staleness;
use crate::versions::{drop_stored, refuse_taken_name};

/// What the last change or drop of an aggregate replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Previous {
    /// When it can no longer be brought back.
    pub(crate) until: Timestamp,
    /// The measurement at the root of its hierarchy.
    pub(crate) root: Arc<str>,
    /// Names of the aggregates that were replaced in the same commit, its own included.
    pub(crate) together: Vec<Arc<str>>,
    /// Its definition.
    pub(crate) document: DefinitionDocument,
    /// What of it is stored.
    pub(crate) progress: Progress,
}

/// The edits that keep aggregates that the same commit replaces or drops, so that they can be
/// brought back until `until`; without it their stored partials go. What was kept before goes too.
pub(crate) fn remembered(
    reader: &Reader,
    replaced: &[&Arc<Aggregate>],
    until: Option<Timestamp>,
) -> Result<Vec<Edit>, AggregationError> {
    let mut edits: Vec<Edit> =
        replaced.iter().flat_map(|one| forgotten(reader, one.id())).collect();
    edits.extend(kept(reader, replaced, until)?);
    Ok(edits)
}

fn kept(
    reader: &Reader,
    replaced: &[&Arc<Aggregate>],
    until: Option<Timestamp>,
) -> Result<Vec<Edit>, AggregationError> {
    let Some(until) = until else {
        return Ok(replaced.iter().filter_map(|one| drop_stored(reader, &one.stored())).collect());
    };
    let together: Vec<Arc<str>> = replaced.iter().map(|one| Arc::clone(one.name())).collect();
    let previous = |one: &&Arc<Aggregate>| {
        let previous = Previous {
            until,
            root: Arc::clone(&one.definition.root.measurement),
            together: together.clone(),
            document: (*one.document).clone(),
            progress: (*one.progress).clone(),
        };
        put(previous_key(one.id()), &previous)
    };
    replaced.iter().map(previous).collect()
}

/// The edits that drop what is kept of an aggregate.
pub(crate) fn forgotten(reader: &Reader, id: &AggregateId) -> Vec<Edit> {
    let Some(previous) = reader.catalog().previous().get(&id.name) else { return Vec::new() };
    let document = Edit::PutDocument { key: previous_key(id), text: None };
    let stored = drop_stored(reader, &previous.document.stored(id));
    std::iter::once(document).chain(stored).collect()
}

impl Aggregates {
    /// Until when what is replaced now can be brought back; `None` if it cannot.
    pub(crate) fn undo_until(&self) -> Option<Timestamp> {
        let window = self.settings().undo_window;
        Some(window.after(self.now())).filter(|until| *until > self.now())
    }

    /// Takes back the last change of an aggregate: one that is still being built is given up, else
    /// definition, progress and stored partials are those from before again, as they are after a
    /// drop. Aggregates that were changed together come back together. Undone twice, nothing changed.
    ///
    /// # Errors
    /// If there is nothing to take back, or what it would bring back is not right any more.
    pub async fn undo(&self, database: &str, name: &str) -> Result<(), AggregationError> {
        let _running = self.lock_refreshes().await;
        let reader = self.reader(&database.into())?;
        if reader.catalog().shadow(name).is_some() {
            return self.give_up(&reader, name).await;
        }
        let now = self.now();
        let Some(previous) =
            reader.catalog().previous().get(name).filter(|previous| previous.until > now)
        else {
            let database = database.to_owned();
            return Err(match reader.catalog().get(name) {
                None => AggregationError::NoSuchAggregate { database, name: name.to_owned() },
                Some(_) => AggregationError::Conflict(format!(
                    "there is no change of {name} to undo, or it is longer ago than \
                     aggregation.undo_window"
                )),
            });
        };
        let commit = plan_undo(&reader, previous, self.undo_until())?;
        let names = previous.together.clone();
        self.engine().commit(commit).await?;
        for name in names {
            let id = AggregateId::new(database, name);
            self.schedules().lock().wake(&id);
            info!(aggregate = %id, "change undone");
        }
        Ok(())
    }

    /// Drops what can no longer be brought back. Returns how many aggregates that were.
    pub(crate) async fn forget_previous(&self) -> Result<usize, AggregationError> {
        let mut count = 0;
        for database in self.databases() {
            let has_lapsed = |reader: &Reader, now| {
                let lapsed = reader.catalog().previous().iter().filter(|(_, one)| one.until <= now);
                lapsed.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>()
            };
            if has_lapsed(&self.reader(&database)?, self.now()).is_empty() {
                continue;
            }
            let _running = self.lock_refreshes().await;
            let reader = self.reader(&database)?;
            let lapsed = has_lapsed(&reader, self.now());
            count += lapsed.len();
            let ids = lapsed.into_iter().map(|name| AggregateId::new(Arc::clone(&database), name));
            let edits = ids.flat_map(|id| forgotten(&reader, &id));
            self.engine().commit(Commit::of(edits)).await?;
        }
        Ok(count)
    }
}

/// The commit that brings back what was replaced together with `previous`, and keeps what it replaces.
fn plan_undo(
    reader: &Reader,
    previous: &Previous,
    until: Option<Timestamp>,
) -> Result<Commit, AggregationError> {
    let database = reader.session().database();
    let back: Vec<(AggregateId, &Arc<Previous>)> = previous
        .together
        .iter()
        .filter_map(|name| Some((name, reader.catalog().previous().get(name)?)))
        .filter(|(_, one)| one.until == previous.until)
        .map(|(name, one)| (AggregateId::new(Arc::clone(database), Arc::clone(name)), one))
        .collect();
    let definitions = definitions_after(reader, &back)?;
    for (id, one) in &back {
        refuse_taken_name(reader, id)?;
        check_still_right(reader, id, one, &definitions)?;
    }
    let replaced: Vec<&Arc<Aggregate>> =
        back.iter().filter_map(|(id, _)| reader.catalog().get(&id.name)).collect();
    let mut commit = Commit::default();
    for (id, one) in &back {
        for key in [definition_key(id), progress_key(id), previous_key(id)] {
            let text = reader.session().version().document(&key).cloned();
            commit.expect_documents.push((key, text));
        }
        commit.edits.push(one.document.put(id)?);
        commit.edits.push(put(progress_key(id), &one.progress)?);
        commit.edits.push(Edit::PutDocument { key: previous_key(id), text: None });
        feed::append(&mut commit, reader, id, &Restated::redefined())?;
    }
    commit.edits.extend(kept(reader, &replaced, until)?);
    Ok(commit)
}

/// The definitions in force once `back` is, checked to leave all others what they are.
fn definitions_after(
    reader: &Reader,
    back: &[(AggregateId, &Arc<Previous>)],
) -> Result<Vec<Definition>, AggregationError> {
    let database = reader.session().database();
    let is_back = |name: &str| back.iter().any(|(id, _)| *id.name == *name);
    let mut after = Vec::new();
    for reader in [reader.clone(), reader.next()] {
        let others = reader.catalog().iter().filter(|one| !is_back(one.name()));
        let others: Vec<&Arc<Aggregate>> = others.collect();
        let rules = back.iter().map(|(_, one)| &one.document.rule);
        let rules = rules.chain(others.iter().map(|one| &one.document.rule));
        let rules: Vec<_> = rules.map(|rule| (Arc::clone(database), rule.clone())).collect();
        let definitions = compile_all(&rules).map_err(of_rules)?;
        let find = |name: &str| definitions.iter().find(|one| *one.id.name == *name);
        for other in others {
            let own = find(other.name()).map(|one| Meaning::of(one, &find));
            if own.as_ref() != Some(&reader.meaning(other)) {
                let reason = format!(
                    "{} was made or changed since and would not mean the same any more; change or \
                     drop that first",
                    other.name()
                );
                return Err(AggregationError::Conflict(reason));
            }
        }
        if after.is_empty() {
            after = definitions;
        }
    }
    Ok(after)
}

/// What comes back has to be as right as it was: its source is the same, and nothing has expired
/// that it had not applied.
fn check_still_right(
    reader: &Reader,
    id: &AggregateId,
    previous: &Previous,
    definitions: &[Definition],
) -> Result<(), AggregationError> {
    let name = &id.name;
    let Some(definition) = definitions.iter().find(|one| one.id == *id) else {
        return Err(AggregationError::Conflict(format!("{name} cannot be brought back")));
    };
    if definition.root.measurement != previous.root {
        let reason =
            format!("{} that {name} read is gone; bring that back first", definition.rule.source);
        return Err(AggregationError::Conflict(reason));
    }
    let version = reader.session().version();
    let stored = previous.document.stored(id);
    if version.quarantine().iter().any(|given_up| given_up.id == stored) {
        let reason = format!("a part of what {name} had stored was damaged and given up since");
        return Err(AggregationError::Conflict(reason));
    }
    let Some(root) = version.measurement(&definition.root) else { return Ok(()) };
    let expired = TimeRange::before(root.floor());
    let mut progress = previous.progress.clone();
    if previous.document.is_in_memory() {
        // Nobody kept what has expired since.
        progress.forget(&progress.in_memory());
    }
    let (applied, pieces) = (&progress.applied, definition.pieces);
    let overtaken =
        staleness::stale(root.changes(), applied, pieces, TimeRange::ALL, TimeRange::ALL.start);
    let kept = definition
        .retention
        .map_or(TimeRange::ALL.start, |keep| keep.before(reader.session().now()));
    let lost = overtaken.intersect(&TimeRanges::from(expired.intersect(TimeRange::since(kept))));
    match lost.hull() {
        None => Ok(()),
        Some(lost) => Err(AggregationError::Conflict(format!(
            "points that {name} had not applied before the change have expired in {lost}, so it \
             would be wrong there"
        ))),
    }
}
