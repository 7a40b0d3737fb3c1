//! The aggregates of one version: their definitions and their progress, read from the manifest's
//! documents.
//!
//! Documents are named `aggregate/<database>/<name>/<kind>`. Two kinds make an aggregate, so that a
//! refresh rewrites only the small one that changes: `definition` and `progress`. A changed
//! definition that is being built is a `shadow` with its `shadow_progress`; what the last change or
//! drop replaced is `previous`. The job that builds one is `job` or `shadow_job`; jobs whose aggregate
//! has gone or has another one are `job-<id>`. See `docs/format/aggregates.md`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use highwater_core::{MeasurementId, Schema, SequenceNumber, TimeRange, Timestamp};
use highwater_storage::{Edit, Version};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::definition::{
    AggregateId, AggregateRule, Definition, DefinitionError, Source, Storage, compile_all,
};
use crate::error::AggregationError;
use crate::jobs::Job;
pub(crate) use crate::progress::Progress;
use crate::undo::Previous;

/// How the kinds of jobs begin that belong to no aggregate any more.
const ENDED_JOB: &str = "job-";

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
    /// Counts the sets of stored partials, one for each change that needs new ones.
    pub(crate) version: u32,
    /// The rule as written, in canonical form.
    pub(crate) rule: AggregateRule,
    /// Outputs that were added when a part of the source had expired already, and when its rest
    /// began: stored partials before do not have them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) valid_from: BTreeMap<Arc<str>, Timestamp>,
    /// Name that its stored partials were begun under, if the aggregate was renamed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stored_as: Option<Arc<str>>,
    /// Columns of the measurement at its root when that was dropped without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root_columns: Option<Arc<Schema>>,
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
    /// What builds it, or did.
    pub(crate) job: Option<Arc<Job>>,
    /// Whether it answers already.
    pub(crate) place: Place,
}

/// Whether an aggregate answers already, which also says where its documents are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// It does.
    InForce,
    /// It is being built, and answers once it is.
    Shadow {
        /// What answers until then.
        replaces: Option<Arc<Aggregate>>,
    },
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
        self.document.stored(self.id())
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

    /// Whether it is being built and does not answer yet.
    pub(crate) fn is_shadow(&self) -> bool {
        matches!(self.place, Place::Shadow { .. })
    }

    /// What it replaces once it is built.
    pub(crate) fn replaces(&self) -> Option<&Arc<Aggregate>> {
        match &self.place {
            Place::InForce => None,
            Place::Shadow { replaces } => replaces.as_ref(),
        }
    }

    /// Name of its runs: those of a shadow are told apart by its version.
    pub(crate) fn run_id(&self) -> AggregateId {
        match self.is_shadow() {
            false => self.id().clone(),
            true => self.build_id(),
        }
    }

    /// Name under which its job is tried and rests: that of this version of it.
    pub(crate) fn build_id(&self) -> AggregateId {
        let name = format!("{}@{}", self.name(), self.document.version);
        AggregateId::new(Arc::clone(&self.id().database), name)
    }

    /// Key of the document of its job.
    pub(crate) fn job_key(&self) -> String {
        match self.is_shadow() {
            false => job_key(self.id()),
            true => shadow_job_key(self.id()),
        }
    }

    /// Keys of its documents: the definition, the progress.
    pub(crate) fn keys(&self) -> [String; 2] {
        match self.is_shadow() {
            false => [definition_key(self.id()), progress_key(self.id())],
            true => [shadow_key(self.id()), shadow_progress_key(self.id())],
        }
    }

    /// The edit that stores a progress of it.
    pub(crate) fn put_progress(&self, progress: &Progress) -> Result<Edit, AggregationError> {
        let [_, key] = self.keys();
        put(key, progress)
    }
}

/// Key prefix of all documents of a database's aggregates.
fn prefix(database: &str) -> String {
    format!("aggregate/{}/", database.replace('%', "%25").replace('/', "%2F"))
}

fn key(id: &AggregateId, kind: &str) -> String {
    format!("{}{}/{kind}", prefix(&id.database), id.name)
}

/// Key of the definition document.
pub(crate) fn definition_key(id: &AggregateId) -> String {
    key(id, "definition")
}

/// Key of the progress document.
pub(crate) fn progress_key(id: &AggregateId) -> String {
    key(id, "progress")
}

/// Key of the definition that is being built.
pub(crate) fn shadow_key(id: &AggregateId) -> String {
    key(id, "shadow")
}

/// Key of the progress of building it.
pub(crate) fn shadow_progress_key(id: &AggregateId) -> String {
    key(id, "shadow_progress")
}

/// Key of the job that builds, or built, the one in force.
pub(crate) fn job_key(id: &AggregateId) -> String {
    key(id, "job")
}

/// Key of the job that builds what is being built.
pub(crate) fn shadow_job_key(id: &AggregateId) -> String {
    key(id, "shadow_job")
}

/// Key of a job whose aggregate has gone or has another one.
pub(crate) fn ended_job_key(id: &AggregateId, job: u64) -> String {
    key(id, &format!("{ENDED_JOB}{job}"))
}

/// Key of what the last change or drop replaced.
pub(crate) fn previous_key(id: &AggregateId) -> String {
    key(id, "previous")
}

/// Key of what is known of its feed of restatements.
pub(crate) fn feed_key(id: &AggregateId) -> String {
    key(id, "feed")
}

impl DefinitionDocument {
    /// The edit that stores it as the one in force.
    pub(crate) fn put(&self, id: &AggregateId) -> Result<Edit, AggregationError> {
        put(definition_key(id), self)
    }

    /// Whether its stored partials live in memory.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.rule.storage.as_deref() == Some(Storage::Memory.name())
    }

    /// The measurement that holds the stored partials of this version.
    pub(crate) fn stored(&self, id: &AggregateId) -> MeasurementId {
        let name = self.stored_as.as_ref().unwrap_or(&id.name);
        MeasurementId::new(Arc::clone(&id.database), format!("{name}@{}", self.version))
    }
}

/// The edit that stores a document.
pub(crate) fn put(key: String, document: &impl Serialize) -> Result<Edit, AggregationError> {
    match serde_json::to_string(document) {
        Ok(text) => Ok(Edit::PutDocument { key, text: Some(text.into()) }),
        Err(source) => Err(AggregationError::Document { key, source }),
    }
}

/// All aggregates of one database at one version.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    aggregates: Vec<Arc<Aggregate>>,
    /// How it will be once all shadows have replaced what they shadow; `None` without shadows.
    next: Option<Arc<Catalog>>,
    /// What the last change or drop of an aggregate replaced, by name.
    previous: BTreeMap<Arc<str>, Arc<Previous>>,
    /// Jobs whose aggregate has gone or has another one, oldest first, with the name of then.
    ended_jobs: Vec<(Arc<str>, Arc<Job>)>,
}

impl Catalog {
    /// By name, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Aggregate>> {
        self.aggregates.iter()
    }

    /// The same with every shadow in the place of what it shadows.
    pub(crate) fn next(self: &Arc<Self>) -> &Arc<Catalog> {
        self.next.as_ref().unwrap_or(self)
    }

    /// What is being built, by name.
    pub(crate) fn shadows(&self) -> impl Iterator<Item = &Arc<Aggregate>> {
        let next = self.next.iter().flat_map(|next| next.iter());
        next.filter(|one| one.is_shadow())
    }

    /// What is being built under that name.
    pub(crate) fn shadow(&self, name: &str) -> Option<&Arc<Aggregate>> {
        self.next.as_ref()?.get(name).filter(|one| one.is_shadow())
    }

    /// What the last change or drop of an aggregate replaced, by name.
    pub(crate) fn previous(&self) -> &BTreeMap<Arc<str>, Arc<Previous>> {
        &self.previous
    }

    /// Jobs whose aggregate has gone or has another one, oldest first, with the name of then.
    pub(crate) fn ended_jobs(&self) -> &[(Arc<str>, Arc<Job>)] {
        &self.ended_jobs
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

    /// Number of aggregates between this one and its root measurement.
    pub(crate) fn depth(&self, aggregate: &Aggregate) -> usize {
        std::iter::successors(self.parent(aggregate), |parent| self.parent(parent)).count()
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
    previous: Mutex<Parsed<Previous>>,
    jobs: Mutex<Parsed<Job>>,
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
        let catalog = Arc::new(self.read(&documents, &prefix, database, version.opened())?);
        let fingerprint = documents.iter().map(|(_, text)| Arc::clone(text)).collect();
        catalogs.insert(Arc::clone(database), (fingerprint, Arc::clone(&catalog)));
        Ok(catalog)
    }

    fn read(
        &self,
        documents: &[(&str, &Arc<str>)],
        prefix: &str,
        database: &Arc<str>,
        opened: SequenceNumber,
    ) -> Result<Catalog, AggregationError> {
        let mut current: BTreeMap<Arc<str>, Found> = BTreeMap::new();
        let mut shadows: BTreeMap<Arc<str>, Found> = BTreeMap::new();
        let (mut previous, mut ended_jobs) = (BTreeMap::new(), Vec::new());
        for (key, text) in documents {
            let Some((name, kind)) = key[prefix.len()..].rsplit_once('/') else { continue };
            let name: Arc<str> = name.into();
            let found = match kind {
                "shadow" | "shadow_progress" | "shadow_job" => {
                    shadows.entry(Arc::clone(&name)).or_default()
                }
                _ => current.entry(Arc::clone(&name)).or_default(),
            };
            match kind {
                "definition" | "shadow" => {
                    found.document = Some(parsed(&self.definitions, key, text)?);
                }
                "progress" | "shadow_progress" => {
                    found.progress = parsed(&self.progress, key, text)?;
                }
                "job" | "shadow_job" => found.job = Some(parsed(&self.jobs, key, text)?),
                _ if kind.starts_with(ENDED_JOB) => {
                    ended_jobs.push((name, parsed(&self.jobs, key, text)?));
                }
                "previous" => drop(previous.insert(name, parsed(&self.previous, key, text)?)),
                _ => {}
            }
        }
        ended_jobs.sort_by_key(|(_, job)| job.id);
        current.values_mut().chain(shadows.values_mut()).for_each(|one| one.forget_memory(opened));
        let aggregates = together(database, current.clone())?;
        let next = match shadows.is_empty() {
            true => None,
            false => {
                for (name, mut shadow) in shadows {
                    let at = aggregates.binary_search_by(|one| one.name().cmp(&name));
                    let replaces = at.ok().map(|at| Arc::clone(&aggregates[at]));
                    shadow.place = Place::Shadow { replaces };
                    current.insert(name, shadow);
                }
                let aggregates = together(database, current)?;
                let ended_jobs = ended_jobs.clone();
                Some(Arc::new(Catalog { aggregates, ended_jobs, ..Catalog::default() }))
            }
        };
        Ok(Catalog { aggregates, next, previous, ended_jobs })
    }
}

/// The documents of one aggregate.
#[derive(Clone)]
struct Found {
    document: Option<Arc<DefinitionDocument>>,
    progress: Arc<Progress>,
    job: Option<Arc<Job>>,
    place: Place,
}

impl Default for Found {
    fn default() -> Self {
        Found { document: None, progress: Arc::default(), job: None, place: Place::InForce }
    }
}

impl Found {
    /// What it had in memory before the engine was opened is not there any more.
    fn forget_memory(&mut self, opened: SequenceNumber) {
        if self.document.as_ref().is_some_and(|document| document.is_in_memory()) {
            Arc::make_mut(&mut self.progress).forget_memory(opened);
        }
    }
}

/// Aggregates that stand together, compiled, by name.
fn together(
    database: &Arc<str>,
    mut found: BTreeMap<Arc<str>, Found>,
) -> Result<Vec<Arc<Aggregate>>, AggregationError> {
    let documents = found.values().filter_map(|one| one.document.as_ref());
    let rules: Vec<(Arc<str>, AggregateRule)> =
        documents.map(|document| (Arc::clone(database), document.rule.clone())).collect();
    let definitions = compile_all(&rules).map_err(of_rules)?;
    let mut aggregates = Vec::with_capacity(definitions.len());
    for definition in definitions {
        let Some(Found { document: Some(document), progress, job, place }) =
            found.remove(&definition.id.name)
        else {
            continue;
        };
        let definition = Arc::new(definition);
        aggregates.push(Arc::new(Aggregate { document, definition, progress, job, place }));
    }
    aggregates.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(aggregates)
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
