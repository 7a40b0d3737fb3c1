//! Tables by name: measurements in `public`, and what extensions add.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result};
use highwater_core::MeasurementId;
use highwater_storage::MeasurementKind;

use crate::engine::{CATALOG, PUBLIC};
use crate::session::QuerySession;
use crate::views;

/// The one catalog of a session, and the list of it.
#[derive(Debug)]
pub(crate) struct Catalogs {
    session: QuerySession,
}

impl Catalogs {
    pub(crate) fn new(session: QuerySession) -> Self {
        Catalogs { session }
    }

    /// Whether there is a table of that name in `public`.
    pub(crate) fn has_table(&self, name: &str) -> bool {
        Tables { session: self.session.clone(), schema: PUBLIC.to_owned() }.table_exist(name)
    }

    /// Names of tables that look like `name`, at most three.
    pub(crate) fn names_like(&self, name: &str) -> Vec<String> {
        let catalog = Catalog(self.session.clone());
        let mut close = Vec::new();
        for schema in catalog.schema_names() {
            let tables = Tables { session: self.session.clone(), schema: schema.clone() };
            for table in tables.table_names() {
                let distance = distance(&table.to_lowercase(), &name.to_lowercase());
                let full = if schema == PUBLIC { table } else { format!("{schema}.{table}") };
                close.push((distance, full));
            }
        }
        close.retain(|(distance, _)| *distance <= 1 + name.chars().count() / 4);
        close.sort();
        close.dedup();
        close.into_iter().take(3).map(|(_, name)| name).collect()
    }
}

/// Number of characters to add, remove or replace to get from `a` to `b`.
///
/// Source: Wagner and Fischer, The string-to-string correction problem, JACM 21(1), 1974.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl CatalogProviderList for Catalogs {
    fn register_catalog(
        &self,
        _: String,
        _: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(Catalog(self.session.clone())) as _)
    }
}

#[derive(Debug)]
struct Catalog(QuerySession);

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        let extensions = self.0.engine().extensions().iter();
        let mut names: Vec<String> = extensions.flat_map(|e| e.schemas(&self.0)).collect();
        names.push(PUBLIC.to_owned());
        names.sort();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let exists = name == PUBLIC || self.schema_names().iter().any(|schema| schema == name);
        let tables = || Tables { session: self.0.clone(), schema: name.to_owned() };
        exists.then(|| Arc::new(tables()) as _)
    }
}

/// The tables of one schema.
#[derive(Debug)]
struct Tables {
    session: QuerySession,
    schema: String,
}

impl Tables {
    /// The id of a measurement that clients write, if this is where they are and it exists.
    fn points(&self, name: &str) -> Option<MeasurementId> {
        let id = MeasurementId::new(Arc::clone(self.session.database()), name);
        let measurement = self.session.version().measurement(&id)?;
        (self.schema == PUBLIC && measurement.kind() == MeasurementKind::Points).then_some(id)
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        if self.schema == PUBLIC {
            let measurements = self.session.version().measurements(self.session.database());
            let points = measurements.filter(|m| m.kind() == MeasurementKind::Points);
            names.extend(points.map(|m| m.id().measurement.to_string()));
            let views = views::queries(self.session.version(), self.session.database());
            names.extend(views.into_keys());
        }
        for extension in self.session.engine().extensions() {
            names.extend(extension.tables(&self.session, &self.schema));
        }
        names.sort();
        names.dedup();
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if let Some(id) = self.points(name) {
            return Ok(Some(self.session.named_table(&id)?));
        }
        for extension in self.session.engine().extensions() {
            let table = extension.table(&self.session, &self.schema, name).await?;
            if table.is_some() {
                return Ok(table);
            }
        }
        if self.schema == PUBLIC { views::table(&self.session, name).await } else { Ok(None) }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.points(name).is_some() || self.table_names().iter().any(|table| table == name)
    }
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distances_count_single_changes() {
        for (a, b, expected) in
            [("cpu", "cpu", 0), ("cpu", "cpv", 1), ("", "abc", 3), ("disk", "dsik", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
