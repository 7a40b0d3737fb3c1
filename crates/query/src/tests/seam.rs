//! Extensions: tables, schemas, statements, and a say in deletes.

use async_trait::async_trait;
use datafusion::catalog::{MemTable, TableProvider};
use highwater_core::{Condition, ErrorKind, MeasurementId};

use super::*;
use crate::{Deleting, QueryResult, Statement};

#[derive(Debug)]
struct Answers;

#[async_trait]
impl Extension for Answers {
    fn schemas(&self, _: &QuerySession) -> Vec<String> {
        vec!["system".to_owned()]
    }

    fn tables(&self, _: &QuerySession, schema: &str) -> Vec<String> {
        if schema == "system" { vec!["answers".to_owned()] } else { Vec::new() }
    }

    async fn table(
        &self,
        session: &QuerySession,
        schema: &str,
        name: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>, QueryError> {
        match (schema, name) {
            ("system", "answers") | ("public", "answers") => {
                let word = if session.mentions("secret") { "secret" } else { "open" };
                let plan = session.plan(&format!("SELECT 42 AS {word}")).await?;
                let batches = session.execute(&plan).await?.collect().await?;
                let table = MemTable::try_new(batches[0].schema(), vec![batches]);
                Ok(Some(Arc::new(table.map_err(QueryError::from)?)))
            }
            (_, "broken") => {
                let message = "aggregate is damaged".to_owned();
                Err(QueryError::Other { kind: ErrorKind::Corrupt, message })
            }
            _ => Ok(None),
        }
    }

    async fn statement(
        &self,
        _: &QuerySession,
        statement: &Statement,
    ) -> Result<Option<QueryResult>, QueryError> {
        match statement {
            Statement::RefreshMaterializedView { name, .. } if name.to_string() == "v" => {
                Ok(Some(QueryResult::empty()))
            }
            _ => Ok(None),
        }
    }

    async fn delete(
        &self,
        _: &QuerySession,
        id: &MeasurementId,
        condition: &Condition,
        is_all: bool,
    ) -> Result<Deleting, QueryError> {
        match condition {
            Condition::All => Err(QueryError::Invalid(format!("{} is sealed", id.measurement))),
            _ if is_all => Ok(Deleting::PointsOnly),
            _ => Ok(Deleting::Done),
        }
    }
}

#[tokio::test]
async fn extensions_add_tables_and_statements() {
    let db = Db::with(vec![Arc::new(Answers)]).await;
    db.write(&["cpu host=a usage=1.0 2024-01-01T10:00:00Z"]).await;
    assert_eq!(db.sql("SELECT open FROM system.answers").await, "42");
    assert_eq!(db.sql("SELECT secret FROM answers JOIN cpu ON true").await, "42");
    assert!(db.sql("SHOW TABLES").await.contains("highwater,system,answers"));
    assert!(db.error("SELECT * FROM system.answer").await.contains("did you mean system.answers?"));
    let error = db.try_sql("SELECT * FROM broken").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Corrupt, "aggregate is damaged")
    );
    assert_eq!(db.sql("REFRESH MATERIALIZED VIEW v").await, "");
    assert!(db.error("REFRESH MATERIALIZED VIEW w").await.contains("not supported"));
    assert!(db.error("DELETE FROM system.answers").await.contains("is not a measurement"));
}

#[tokio::test]
async fn extensions_can_forbid_a_delete_or_carry_it_out() {
    let db = Db::with(vec![Arc::new(Answers)]).await;
    db.write(&["cpu host=a usage=1.0 2024-01-01T10:00:00Z"]).await;
    assert_eq!(db.error("DELETE FROM cpu").await, "cpu is sealed");
    assert_eq!(db.sql("SELECT count(*) FROM cpu").await, "1");
    db.sql("DELETE FROM cpu WHERE usage = 1.0").await;
    assert_eq!(db.sql("SELECT count(*) FROM cpu").await, "1", "left to the extension");
    db.sql("DELETE FROM cpu WHERE host = 'a'").await;
    assert_eq!(db.sql("SELECT count(*) FROM cpu").await, "0");
}
