//! `SHOW MEASUREMENTS`, `TAG KEYS`, `TAG VALUES` and `FIELD KEYS`, InfluxDB's words for what there is, as
//! queries over the information schema.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName, ObjectNamePart};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use highwater_core::schema::{TIME_COLUMN, tag_data_type};

use crate::engine::PUBLIC;
use crate::error::QueryError;

/// One of the statements.
struct Show {
    /// What it is called in messages, and how it goes on.
    usage: &'static str,
    /// The query that answers it.
    query: fn(&mut Parser<'_>) -> Result<String, ParserError>,
}

/// The query that answers the statement which these tokens begin, if it is one of these.
///
/// # Errors
/// [`QueryError`] if the statement does not go on as it should.
pub(crate) fn as_query(
    dialect: &dyn Dialect,
    tokens: &[TokenWithSpan],
) -> Result<Option<String>, QueryError> {
    let mut parser = Parser::new(dialect).with_tokens_with_locations(tokens.to_vec());
    if !parser.parse_keyword(Keyword::SHOW) {
        return Ok(None);
    }
    let mut begins = |words: &[&str]| {
        let is_next = |(at, word): (usize, &&str)| match parser.peek_nth_token(at).token {
            Token::Word(own) => own.quote_style.is_none() && own.value.eq_ignore_ascii_case(word),
            _ => false,
        };
        let begins = words.iter().enumerate().all(is_next);
        if begins {
            words.iter().for_each(|_| drop(parser.next_token()));
        }
        begins
    };
    let Show { usage, query } = if begins(&["measurements"]) {
        Show { usage: "SHOW MEASUREMENTS", query: measurements }
    } else if begins(&["tag", "keys"]) {
        Show { usage: "SHOW TAG KEYS [FROM name]", query: tag_keys }
    } else if begins(&["tag", "values"]) {
        Show { usage: "SHOW TAG VALUES FROM name WITH KEY = tag", query: tag_values }
    } else if begins(&["field", "keys"]) {
        Show { usage: "SHOW FIELD KEYS [FROM name]", query: field_keys }
    } else {
        return Ok(None);
    };
    let invalid = |error: ParserError| QueryError::Invalid(format!("write {usage}: {error}"));
    let query = query(&mut parser).map_err(invalid)?;
    while parser.consume_token(&Token::SemiColon) {}
    match parser.peek_token().token {
        Token::EOF => Ok(Some(query)),
        other => Err(QueryError::unsupported(format!("{other} after {usage}"))),
    }
}

fn measurements(_: &mut Parser<'_>) -> Result<String, ParserError> {
    Ok(format!(
        "SELECT table_name AS measurement FROM information_schema.tables \
         WHERE table_schema = '{PUBLIC}' AND table_type = 'BASE TABLE' ORDER BY 1"
    ))
}

fn tag_keys(parser: &mut Parser<'_>) -> Result<String, ParserError> {
    let is_tag = format!("data_type = '{}'", tag_data_type());
    keys(parser, "column_name AS tag_key", &is_tag)
}

fn field_keys(parser: &mut Parser<'_>) -> Result<String, ParserError> {
    let is_field = format!("data_type <> '{}' AND column_name <> '{TIME_COLUMN}'", tag_data_type());
    keys(parser, "column_name AS field_key, data_type AS field_type", &is_field)
}

/// Some columns of one table, or of all measurements with their names.
fn keys(parser: &mut Parser<'_>, shown: &str, wanted: &str) -> Result<String, ParserError> {
    let columns = "information_schema.columns c";
    if !parser.parse_keyword(Keyword::FROM) {
        return Ok(format!(
            "SELECT c.table_name AS measurement, {shown} FROM {columns} \
             JOIN information_schema.tables t ON t.table_schema = c.table_schema \
             AND t.table_name = c.table_name WHERE c.table_schema = '{PUBLIC}' \
             AND t.table_type = 'BASE TABLE' AND {wanted} ORDER BY 1, 2"
        ));
    }
    let table = parser.parse_object_name(false)?;
    let (schema, name) = schema_and_name(&table)?;
    // The last condition holds always; it makes a table that does not exist an error.
    Ok(format!(
        "SELECT {shown} FROM {columns} WHERE c.table_schema = {} AND c.table_name = {} \
         AND {wanted} AND (SELECT count(*) FROM {table} WHERE false) = 0 ORDER BY 1",
        literal(&schema),
        literal(&name)
    ))
}

fn tag_values(parser: &mut Parser<'_>) -> Result<String, ParserError> {
    parser.expect_keyword(Keyword::FROM)?;
    let table = parser.parse_object_name(false)?;
    parser.expect_keywords(&[Keyword::WITH, Keyword::KEY])?;
    parser.expect_token(&Token::Eq)?;
    let tag = parser.parse_identifier()?;
    Ok(format!(
        "SELECT DISTINCT {tag} AS tag_value FROM {table} WHERE {tag} IS NOT NULL ORDER BY 1"
    ))
}

fn schema_and_name(table: &ObjectName) -> Result<(String, String), ParserError> {
    let words = table.0.iter().map(|part| match part {
        ObjectNamePart::Identifier(Ident { value, .. }) => Ok(value.clone()),
        ObjectNamePart::Function(_) => {
            Err(ParserError::ParserError(format!("{table} is no name of a table")))
        }
    });
    let words = words.collect::<Result<Vec<_>, _>>()?;
    match &words[..] {
        [name] => Ok((PUBLIC.to_owned(), name.clone())),
        [schema, name] => Ok((schema.clone(), name.clone())),
        _ => Err(ParserError::ParserError(format!("{table} has too many parts"))),
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
