//! Which statements there are, and which are refused.

use std::collections::HashSet;

use datafusion::sql::parser::{DFParserBuilder, Statement as PlannedStatement};
use datafusion::sql::sqlparser::ast::{self, ObjectName};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::depth::depth;
use crate::error::QueryError;
use crate::limits::Limits;
use crate::own_statements::parse_own;
use crate::show;

/// The dialect of all statements: DataFusion's own, which takes most of PostgreSQL's.
const DIALECT: GenericDialect = GenericDialect {};

/// A statement that is not a query, `DELETE` or `INSERT`, as extensions see it.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// Anything that the parser knows: `CREATE VIEW`, `CREATE MATERIALIZED VIEW`, `DROP ..`.
    Sql(Box<ast::Statement>),
    /// `REFRESH MATERIALIZED VIEW [CONCURRENTLY] name`.
    RefreshMaterializedView {
        /// Name of the view, perhaps with a schema.
        name: ObjectName,
        /// Whether `CONCURRENTLY` was there.
        concurrently: bool,
    },
    /// `VERIFY AGGREGATE name [FROM 'time' TO 'time']`.
    VerifyAggregate {
        /// Name of the aggregate, perhaps with a set.
        name: ObjectName,
        /// Start and end of the range as written; `None`: all that is stored.
        range: Option<(String, String)>,
    },
    /// `EXPLAIN BUCKET name 'time'`.
    ExplainBucket {
        /// Name of the aggregate, perhaps with a set.
        name: ObjectName,
        /// An instant in the bucket, as written.
        at: String,
    },
}

/// What a text turned out to be.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Answers with rows and changes nothing.
    Query(PlannedStatement),
    /// `DELETE`.
    Delete(PlannedStatement),
    /// `INSERT`.
    Insert(PlannedStatement),
    /// For an extension.
    Other {
        /// Its first words, for messages.
        name: String,
        /// The statement.
        statement: Statement,
    },
}

impl Parsed {
    /// Whether it changes nothing.
    pub(crate) fn only_reads(&self) -> bool {
        match self {
            Parsed::Query(_) => true,
            Parsed::Other { statement, .. } => matches!(statement, Statement::ExplainBucket { .. }),
            Parsed::Delete(_) | Parsed::Insert(_) => false,
        }
    }
}

/// Reads one statement, and the words in it.
pub(crate) fn parse(sql: &str, limits: Limits) -> Result<(Parsed, HashSet<String>), QueryError> {
    if sql.len() > limits.sql_bytes {
        return Err(QueryError::Invalid(format!(
            "the statement has {} bytes, the limit is {}",
            sql.len(),
            limits.sql_bytes
        )));
    }
    let tokens = tokenize(sql)?;
    if depth(&tokens) > limits.depth {
        return Err(QueryError::Invalid(format!(
            "the statement nests or chains expressions more than {} deep; use IN (..) for lists \
             of values",
            limits.depth
        )));
    }
    let tokens = match show::as_query(&DIALECT, &tokens)? {
        Some(query) => tokenize(&query)?,
        None => tokens,
    };
    let words = tokens.iter().filter_map(word).map(str::to_owned).collect();
    let name = leading_keywords(&tokens);
    if let Some((name, statement)) = parse_own(&DIALECT, &tokens)? {
        return Ok((Parsed::Other { name: name.to_owned(), statement }, words));
    }
    let statement = parse_one(tokens, limits)?;
    Ok((classify(statement, name)?, words))
}

pub(crate) fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>, QueryError> {
    let tokens = Tokenizer::new(&DIALECT, sql).tokenize_with_location();
    tokens.map_err(|error| QueryError::Invalid(error.to_string()))
}

/// Whether the first word is this one, in any case.
pub(crate) fn starts_with(tokens: &[TokenWithSpan], first: &str) -> bool {
    let token = tokens.iter().find(|token| !matches!(token.token, Token::Whitespace(_)));
    token.and_then(word).is_some_and(|word| word.eq_ignore_ascii_case(first))
}

fn word(token: &TokenWithSpan) -> Option<&str> {
    match &token.token {
        Token::Word(word) => Some(&word.value),
        _ => None,
    }
}

pub(crate) fn parse_one(
    tokens: Vec<TokenWithSpan>,
    limits: Limits,
) -> Result<PlannedStatement, QueryError> {
    let mut statements = DFParserBuilder::new(tokens)
        .with_dialect(&DIALECT)
        // One level of nesting is several levels of the parser; depth is checked already.
        .with_recursion_limit(limits.depth.saturating_mul(8))
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(QueryError::while_planning)?;
    match (statements.pop_front(), statements.len()) {
        (None, _) => Err(QueryError::Invalid("there is no statement in the text".to_owned())),
        (Some(_), 1..) => Err(QueryError::unsupported_but(
            "more than one statement in a request",
            "send them one by one",
        )),
        (Some(statement), 0) => Ok(statement),
    }
}

fn classify(statement: PlannedStatement, name: String) -> Result<Parsed, QueryError> {
    match statement {
        PlannedStatement::Statement(inner) => match *inner {
            ast::Statement::Delete(_) => Ok(Parsed::Delete(PlannedStatement::Statement(inner))),
            ast::Statement::Insert(_) => Ok(Parsed::Insert(PlannedStatement::Statement(inner))),
            ast::Statement::Set(_) => Err(QueryError::unsupported_but(
                "SET here",
                "it is for connections that outlive a statement; set freshness and rewrite in \
                 the request",
            )),
            _ if is_query(&inner) => Ok(Parsed::Query(PlannedStatement::Statement(inner))),
            _ => Ok(Parsed::Other { name, statement: Statement::Sql(inner) }),
        },
        PlannedStatement::Explain(ref explain) => match explain.statement.as_ref() {
            PlannedStatement::Statement(inner) if is_query(inner) => Ok(Parsed::Query(statement)),
            _ => Err(QueryError::unsupported("EXPLAIN of anything but a query")),
        },
        _ => Err(QueryError::unsupported(name)),
    }
}

fn is_query(statement: &ast::Statement) -> bool {
    match statement {
        ast::Statement::Query(query) => is_reading(&query.body),
        ast::Statement::ShowTables { .. }
        | ast::Statement::ShowColumns { .. }
        | ast::Statement::ShowFunctions { .. }
        | ast::Statement::ShowVariable { .. }
        | ast::Statement::ExplainTable { .. } => true,
        ast::Statement::Explain { statement, .. } => is_query(statement),
        _ => false,
    }
}

/// Whether a query has no INSERT, UPDATE, DELETE or MERGE as its body.
fn is_reading(body: &ast::SetExpr) -> bool {
    match body {
        ast::SetExpr::Select(_) | ast::SetExpr::Values(_) | ast::SetExpr::Table(_) => true,
        ast::SetExpr::Query(query) => is_reading(&query.body),
        ast::SetExpr::SetOperation { left, right, .. } => is_reading(left) && is_reading(right),
        _ => false,
    }
}

/// The statement inside of EXPLAIN, or the statement itself.
pub(crate) fn innermost(statement: &PlannedStatement) -> Option<&ast::Statement> {
    match statement {
        PlannedStatement::Statement(inner) => Some(inner),
        PlannedStatement::Explain(explain) => innermost(&explain.statement),
        _ => None,
    }
}

/// The first words of a statement as far as they say what it is: `CREATE TABLE`, `UPDATE`.
fn leading_keywords(tokens: &[TokenWithSpan]) -> String {
    let mut words = Vec::new();
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) => {}
            Token::Word(word)
                if word.quote_style.is_none()
                    && names_a_statement(word.keyword, words.is_empty()) =>
            {
                words.push(word.value.to_uppercase());
            }
            _ => break,
        }
    }
    if words.is_empty() { "this statement".to_owned() } else { words.join(" ") }
}

fn names_a_statement(keyword: Keyword, is_first: bool) -> bool {
    is_first && keyword != Keyword::NoKeyword
        || matches!(
            keyword,
            Keyword::OR
                | Keyword::REPLACE
                | Keyword::TEMPORARY
                | Keyword::UNIQUE
                | Keyword::EXTERNAL
                | Keyword::MATERIALIZED
                | Keyword::TABLE
                | Keyword::VIEW
                | Keyword::INDEX
                | Keyword::SCHEMA
                | Keyword::DATABASE
                | Keyword::DATABASES
                | Keyword::FUNCTION
                | Keyword::SEQUENCE
                | Keyword::ROLE
                | Keyword::USER
                | Keyword::TRANSACTION
                | Keyword::CREATE
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(sql: &str) -> Result<Parsed, QueryError> {
        parse(sql, Limits::default()).map(|(parsed, _)| parsed)
    }

    #[test]
    fn statements_are_told_apart() {
        for sql in [
            "SELECT 1;",
            "VALUES (1)",
            "EXPLAIN ANALYZE SELECT 1",
            "SHOW TABLES",
            "DESCRIBE cpu",
            "show tag keys from cpu;",
        ] {
            assert!(matches!(parsed(sql), Ok(Parsed::Query(_))), "{sql}");
        }
        assert!(matches!(parsed("DELETE FROM cpu"), Ok(Parsed::Delete(_))));
        assert!(matches!(parsed("INSERT INTO cpu VALUES (1)"), Ok(Parsed::Insert(_))));
        for (sql, expected) in [
            ("CREATE OR REPLACE VIEW v AS SELECT 1", "CREATE OR REPLACE VIEW"),
            ("UPDATE cpu SET a = 1", "UPDATE"),
            ("drop table cpu", "DROP TABLE"),
            ("REFRESH MATERIALIZED VIEW CONCURRENTLY v;", "REFRESH MATERIALIZED VIEW"),
            ("verify aggregate s.c from '2024-01-01' to '2024-01-02';", "VERIFY AGGREGATE"),
            ("EXPLAIN BUCKET s.c '2024-01-01'", "EXPLAIN BUCKET"),
        ] {
            match parsed(sql) {
                Ok(Parsed::Other { name, .. }) => assert_eq!(name, expected),
                other => panic!("{sql}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_a_single_known_statement_is_refused() {
        for (sql, expected) in [
            ("", "there is no statement"),
            ("SELECT 1; SELECT 2", "more than one statement"),
            ("COPY cpu TO 'x.csv'", "COPY is not supported"),
            ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/x'", "CREATE EXTERNAL TABLE is not"),
            ("EXPLAIN DELETE FROM cpu", "EXPLAIN of anything but a query"),
            ("SET freshness = 'exact'", "SET here is not supported"),
            ("VERIFY cpu_1h", "write VERIFY AGGREGATE name"),
            ("VERIFY AGGREGATE c FROM '2024-01-01'", "Expected: TO"),
            ("EXPLAIN BUCKET c", "write EXPLAIN BUCKET name 'time'"),
            ("EXPLAIN BUCKET c '2024-01-01' 2", "2 after EXPLAIN BUCKET"),
            ("REFRESH x", "write REFRESH MATERIALIZED VIEW name"),
            ("REFRESH MATERIALIZED VIEW v WITH NO DATA", "WITH after REFRESH"),
            ("SHOW TAG VALUES FROM cpu", "write SHOW TAG VALUES FROM name WITH KEY = tag"),
            ("SHOW TAG KEYS FROM cpu LIMIT 1", "LIMIT after SHOW TAG KEYS"),
            ("SELEC 1", "Expected"),
        ] {
            let message = parsed(sql).unwrap_err().to_string();
            assert!(message.contains(expected), "{sql}: {message}");
        }
    }

    #[test]
    fn long_and_deep_statements_are_refused_before_they_are_parsed() {
        let long = format!("SELECT '{}'", "x".repeat(1 << 20));
        assert!(parsed(&long).unwrap_err().to_string().contains("bytes, the limit is"));
        let deep = format!("SELECT 1{}", "+1".repeat(20_000));
        assert!(parsed(&deep).unwrap_err().to_string().contains("more than 512 deep"));
        let nested = format!("SELECT {}1{}", "(".repeat(400), ")".repeat(400));
        assert!(parsed(&nested).is_ok());
    }
}
