//! Another name for an aggregate: stored partials and progress stay, and what reads it follows.

use std::sync::Arc;

use highwater_storage::{Commit, Edit};
use tracing::info;

use crate::catalog::{
    DefinitionDocument, definition_key, feed_key, job_key, of_rules, previous_key, progress_key,
    put, shadow_job_key, shadow_key, shadow_progress_key,
};
use crate::definition::{AggregateId, compile_all};
use crate::error::AggregationError;
use crate::exact::Reader;
use crate::runtime::{Aggregates, no_such};
use crate::undo::Previous;
use crate::versions::refuse_taken_name;

impl Aggregates {
    /// Gives an aggregate another name, in one commit. The rules of those that read it follow; those
    /// of rule files have to be changed there too, or else the next reload detaches it.
    ///
    /// # Errors
    /// If there is none of that name, or the new one is taken or no name.
    pub async fn rename(
        &self,
        database: &str,
        name: &str,
        to: &str,
    ) -> Result<(), AggregationError> {
        let _running = self.lock_refreshes().await;
        let reader = self.reader(&database.into())?;
        if reader.find(name).is_none() {
            return Err(no_such(&reader, name));
        }
        let (from, to) = (AggregateId::new(database, name), AggregateId::new(database, to));
        if from == to {
            return Ok(());
        }
        refuse_taken_name(&reader, &to)?;
        let catalog = reader.catalog();
        let is_kept = catalog.previous().contains_key(&to.name);
        if is_kept || reader.find(&to.name).is_some() {
            let why =
                if is_kept { "was an aggregate until just now" } else { "is another aggregate" };
            return Err(AggregationError::Conflict(format!(
                "{} {why}; choose another name",
                to.name
            )));
        }
        let renaming = Renaming { reader: &reader, from, to };
        self.engine().commit(Commit::of(renaming.edits()?)).await?;
        self.schedules().lock().wake(&renaming.to);
        info!(from = %renaming.from, to = %renaming.to, "aggregate renamed");
        Ok(())
    }
}

struct Renaming<'a> {
    reader: &'a Reader,
    from: AggregateId,
    to: AggregateId,
}

impl Renaming<'_> {
    /// Every document that holds the name, with the new one.
    fn edits(&self) -> Result<Vec<Edit>, AggregationError> {
        let catalog = self.reader.catalog();
        let mut edits = Vec::new();
        for catalog in [catalog, catalog.next()] {
            let rules = catalog.iter().map(|one| self.document(one.id(), &one.document).rule);
            let rules = rules.map(|rule| (Arc::clone(&self.from.database), rule));
            compile_all(&rules.collect::<Vec<_>>()).map_err(of_rules)?;
        }
        for one in catalog.iter().chain(catalog.shadows()) {
            let (id, document) = (self.id(one.id()), self.document(one.id(), &one.document));
            if document != *one.document {
                let key = if one.is_shadow() { shadow_key(&id) } else { definition_key(&id) };
                edits.push(put(key, &document)?);
            }
        }
        for (name, previous) in catalog.previous() {
            let id = AggregateId::new(Arc::clone(&self.from.database), Arc::clone(name));
            let renamed = self.previous(&id, previous);
            if renamed != **previous {
                edits.push(put(previous_key(&self.id(&id)), &renamed)?);
            }
        }
        for key in [progress_key, shadow_progress_key, job_key, shadow_job_key, feed_key] {
            if let Some(text) = self.reader.session().version().document(&key(&self.from)) {
                edits.push(Edit::PutDocument { key: key(&self.to), text: Some(Arc::clone(text)) });
            }
        }
        let kinds = [
            definition_key,
            progress_key,
            job_key,
            shadow_key,
            shadow_progress_key,
            shadow_job_key,
            previous_key,
            feed_key,
        ];
        let old = kinds.map(|key| Edit::PutDocument { key: key(&self.from), text: None });
        edits.extend(old);
        Ok(edits)
    }

    fn id(&self, id: &AggregateId) -> AggregateId {
        if *id == self.from { self.to.clone() } else { id.clone() }
    }

    fn name(&self, name: &Arc<str>) -> Arc<str> {
        if *name == self.from.name { Arc::clone(&self.to.name) } else { Arc::clone(name) }
    }

    /// A document of the aggregate `id` under the new name.
    fn document(&self, id: &AggregateId, document: &DefinitionDocument) -> DefinitionDocument {
        let mut renamed = document.clone();
        if *id == self.from {
            renamed.rule.name = self.to.name.to_string();
            renamed.stored_as.get_or_insert_with(|| Arc::clone(&self.from.name));
        }
        if *renamed.rule.source == *self.from.name {
            renamed.rule.source = self.to.name.to_string();
        }
        renamed
    }

    fn previous(&self, id: &AggregateId, previous: &Previous) -> Previous {
        Previous {
            together: previous.together.iter().map(|name| self.name(name)).collect(),
            document: self.document(id, &previous.document),
            ..previous.clone()
        }
    }
}
