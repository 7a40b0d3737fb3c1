//! The aggregates of one version: their definitions and their progress, read from the manifest's
//! documents.
//!
//! Two documents per aggregate, so that a refresh rewrites only the small one that changes:
//! `aggregate/<database>/<name>/definition` and `aggregate/<database>/<name>/progress`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use highwater_core::{MeasurementId, TimeRange, Timestamp};
use highwater_storage::{Edit, Version};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::applied::Applied;
use crate::definition::{
    AggregateId, AggregateRule, Definition, DefinitionError, Source, compile_all,
};
use crate::error::AggregationError;

/// Where a definition came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A rule file: removing it there detaches the aggregate.
    Rules,
    /// A request: it stays until a request removes it.
    Api,
}

/// The definition document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DefinitionDocument {
    /// Where it came from.
    pub(crate) origin: Origin,
    /// Whether it is refreshed on schedule.
    pub(crate) enabled: bool,
    /// Whether it stands still since its rule was removed.
    pub(crate) detached: bool,
    /// Counts changes of the definition; each has stored partials of its own.
    pub(crate) version: u32,
    /// The rule as written, in canonical form.
    pub(crate) rule: AggregateRule,
}

/// The progress document: what is stored, up to which commit, and what it took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Progress {
    /// Which ranges are stored, and the commit their partials reflect.
    pub(crate) applied: Applied,
    /// Event time up to which buckets are closed and materialized; on a bucket boundary.
    pub(crate) last_processed: Option<Timestamp>,
    /// Refreshes that succeeded.
    pub(crate) refresh_count: u64,
    /// When the last one did.
    pub(crate) last_refresh: Option<Timestamp>,
    /// Closed buckets whose stored answer changed afterwards.
    pub(crate) revisions: u64,
    /// Buckets computed, again or for the first time.
    pub(crate) buckets_recomputed: u64,
    /// Rows of partials written.
    pub(crate) rows_recomputed: u64,
    /// Time spent in refreshes, in milliseconds.
    pub(crate) refresh_ms: u64,
}

/// One aggregate at one version.
#[derive(Debug)]
pub(crate) struct Aggregate {
    /// The definition document.
    pub(crate) document: Arc<DefinitionDocument>,
    /// The compiled definition.
    pub(crate) definition: Arc<Definition>,
    /// The progress document.
    pub(crate) progress: Arc<Progress>,
}

impl Aggregate {
    /// Database and name.
    pub(crate) fn id(&self) -> &AggregateId {
        &self.definition.id
    }

    /// Name in its database: the table that SQL sees.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.definition.id.name
    }

    /// The measurement that holds its stored partials.
    pub(crate) fn stored(&self) -> MeasurementId {
        stored_id(self.id(), self.document.version)
    }

    /// What was closed and materialized at some time, so that another answer is a revision.
    pub(crate) fn done(&self) -> TimeRange {
        match (self.definition.is_kept_by_days(), self.progress.last_processed) {
            (true, _) => TimeRange::ALL,
            (false, closed) => TimeRange::before(closed.unwrap_or(TimeRange::ALL.start)),
        }
    }

    /// Whether the scheduler looks after it.
    pub(crate) fn is_scheduled(&self) -> bool {
        self.document.enabled && !self.document.detached
    }
}

/// The measurement that holds the stored partials of a version of a definition.
pub(crate) fn stored_id(id: &AggregateId, version: u32) -> MeasurementId {
    MeasurementId::new(Arc::clone(&id.database), format!("{}@{version}", id.name))
}

/// Key prefix of all documents of a database's aggregates.
fn prefix(database: &str) -> String {
    format!("aggregate/{}/", database.replace('%', "%25").replace('/', "%2F"))
}

/// Key of the definition document.
pub(crate) fn definition_key(id: &AggregateId) -> String {
    format!("{}{}/definition", prefix(&id.database), id.name)
}

/// Key of the progress document.
pub(crate) fn progress_key(id: &AggregateId) -> String {
    format!("{}{}/progress", prefix(&id.database), id.name)
}

impl Progress {
    /// The edit that stores it.
    pub(crate) fn put(&self, id: &AggregateId) -> Result<Edit, AggregationError> {
        put(progress_key(id), self)
    }
}

impl DefinitionDocument {
    /// The edit that stores it.
    pub(crate) fn put(&self, id: &AggregateId) -> Result<Edit, AggregationError> {
        put(definition_key(id), self)
    }
}

fn put(key: String, document: &impl Serialize) -> Result<Edit, AggregationError> {
    match serde_json::to_string(document) {
        Ok(text) => Ok(Edit::PutDocument { key, text: Some(text.into()) }),
        Err(source) => Err(AggregationError::Document { key, source }),
    }
}

/// All aggregates of one database at one version.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    aggregates: Vec<Arc<Aggregate>>,
}

impl Catalog {
    /// By name, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Aggregate>> {
        self.aggregates.iter()
    }

    /// The aggregate of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Aggregate>> {
        let at = self.aggregates.binary_search_by(|one| (**one.name()).cmp(name));
        at.ok().map(|at| &self.aggregates[at])
    }

    /// The aggregate that `aggregate` reads; `None` if it reads points.
    pub(crate) fn parent(&self, aggregate: &Aggregate) -> Option<&Arc<Aggregate>> {
        self.get(&aggregate.definition.parent()?.name)
    }

    /// The aggregates that read the measurement or aggregate of that name directly.
    pub(crate) fn dependants<'a>(
        &'a self,
        source: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Aggregate>> {
        self.iter().filter(move |one| match &one.definition.source {
            Source::Measurement(id) => *id.measurement == *source,
            Source::Aggregate(id) => *id.name == *source,
        })
    }
}

/// What was read from documents, by their keys, and the texts it was read from.
type Parsed<T> = HashMap<String, (Arc<str>, Arc<T>)>;

/// Catalogues by database.
type Catalogs = HashMap<Arc<str>, (Fingerprint, Arc<Catalog>)>;

/// Parsed documents, kept while the manifest holds the very same text.
#[derive(Debug, Default)]
pub(crate) struct CatalogCache {
    definitions: Mutex<Parsed<DefinitionDocument>>,
    progress: Mutex<Parsed<Progress>>,
    catalogs: Mutex<Catalogs>,
}

/// Addresses of the documents a catalogue was made from; the catalogue keeps them alive through
/// the cache, so equal addresses mean equal texts.
type Fingerprint = Vec<Arc<str>>;

impl CatalogCache {
    /// The aggregates of `database` at `version`.
    ///
    /// # Errors
    /// A document that cannot be read back.
    pub(crate) fn catalog(
        &self,
        version: &Version,
        database: &Arc<str>,
    ) -> Result<Arc<Catalog>, AggregationError> {
        let prefix = prefix(database);
        let documents: Vec<(&str, &Arc<str>)> = version.documents(&prefix).collect();
        let mut catalogs = self.catalogs.lock();
        if let Some((seen, catalog)) = catalogs.get(database)
            && seen.len() == documents.len()
            && seen.iter().zip(&documents).all(|(a, (_, b))| Arc::ptr_eq(a, b))
        {
            return Ok(Arc::clone(catalog));
        }
        let catalog = Arc::new(self.read(&documents, &prefix, database)?);
        let fingerprint = documents.iter().map(|(_, text)| Arc::clone(text)).collect();
        catalogs.insert(Arc::clone(database), (fingerprint, Arc::clone(&catalog)));
        Ok(catalog)
    }

    fn read(
        &self,
        documents: &[(&str, &Arc<str>)],
        prefix: &str,
        database: &Arc<str>,
    ) -> Result<Catalog, AggregationError> {
        let mut found: BTreeMap<String, Arc<DefinitionDocument>> = BTreeMap::new();
        let mut progress: HashMap<String, Arc<Progress>> = HashMap::new();
        for (key, text) in documents {
            let rest = &key[prefix.len()..];
            if let Some(name) = rest.strip_suffix("/definition") {
                found.insert(name.to_owned(), parsed(&self.definitions, key, text)?);
            } else if let Some(name) = rest.strip_suffix("/progress") {
                progress.insert(name.to_owned(), parsed(&self.progress, key, text)?);
            }
        }
        let rules: Vec<(Arc<str>, AggregateRule)> =
            found.values().map(|document| (Arc::clone(database), document.rule.clone())).collect();
        let definitions = compile_all(&rules).map_err(of_rules)?;
        let mut aggregates = Vec::with_capacity(definitions.len());
        for definition in definitions {
            let name = &*definition.id.name;
            let Some(document) = found.get(name).map(Arc::clone) else { continue };
            let progress = progress.remove(name).unwrap_or_default();
            let definition = Arc::new(definition);
            aggregates.push(Arc::new(Aggregate { document, definition, progress }));
        }
        aggregates.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(Catalog { aggregates })
    }
}

/// The errors of rules that were compiled together, without their positions.
pub(crate) fn of_rules(errors: Vec<(usize, DefinitionError)>) -> AggregationError {
    AggregationError::Rules(errors.into_iter().map(|(_, error)| error).collect())
}

fn parsed<T: serde::de::DeserializeOwned>(
    cache: &Mutex<Parsed<T>>,
    key: &str,
    text: &Arc<str>,
) -> Result<Arc<T>, AggregationError> {
    let mut cache = cache.lock();
    if let Some((seen, value)) = cache.get(key)
        && Arc::ptr_eq(seen, text)
    {
        return Ok(Arc::clone(value));
    }
    let value = serde_json::from_str(text)
        .map_err(|source| AggregationError::Document { key: key.to_owned(), source })?;
    let value = Arc::new(value);
    cache.insert(key.to_owned(), (Arc::clone(text), Arc::clone(&value)));
    Ok(value)
}
