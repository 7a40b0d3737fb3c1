//! Statements that the SQL parser does not know.

use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::QueryError;
use crate::statement::{Statement, starts_with};

/// Reads the statement that these tokens begin, if it is one of ours, and says what it is called.
pub(crate) fn parse_own(
    dialect: &dyn Dialect,
    tokens: &[TokenWithSpan],
) -> Result<Option<(&'static str, Statement)>, QueryError> {
    let mut parser = Parser::new(dialect).with_tokens_with_locations(tokens.to_vec());
    let (name, parsed, rest) = if starts_with(tokens, "refresh") {
        ("REFRESH MATERIALIZED VIEW", refresh(&mut parser), "name")
    } else if starts_with(tokens, "verify") {
        ("VERIFY AGGREGATE", verify(&mut parser), "name [FROM 'time' TO 'time']")
    } else if explains_bucket(&mut parser) {
        ("EXPLAIN BUCKET", explain_bucket(&mut parser), "name 'time'")
    } else {
        return Ok(None);
    };
    let statement =
        parsed.map_err(|error| QueryError::Invalid(format!("write {name} {rest}: {error}")))?;
    while parser.consume_token(&Token::SemiColon) {}
    match parser.peek_token().token {
        Token::EOF => Ok(Some((name, statement))),
        other => Err(QueryError::unsupported(format!("{other} after {name} {rest}"))),
    }
}

fn refresh(parser: &mut Parser<'_>) -> Result<Statement, ParserError> {
    parser.next_token();
    parser.expect_keywords(&[Keyword::MATERIALIZED, Keyword::VIEW])?;
    let concurrently = parser.parse_keyword(Keyword::CONCURRENTLY);
    let name = parser.parse_object_name(false)?;
    Ok(Statement::RefreshMaterializedView { name, concurrently })
}

fn verify(parser: &mut Parser<'_>) -> Result<Statement, ParserError> {
    parser.next_token();
    parser.expect_keyword(Keyword::AGGREGATE)?;
    let name = parser.parse_object_name(false)?;
    let range = match parser.parse_keyword(Keyword::FROM) {
        false => None,
        true => {
            let from = parser.parse_literal_string()?;
            parser.expect_keyword(Keyword::TO)?;
            Some((from, parser.parse_literal_string()?))
        }
    };
    Ok(Statement::VerifyAggregate { name, range })
}

/// Whether it says `EXPLAIN BUCKET`, which is stepped over then.
fn explains_bucket(parser: &mut Parser<'_>) -> bool {
    let second = parser.peek_nth_token(1).token;
    let is_bucket =
        matches!(second, Token::Word(word) if word.value.eq_ignore_ascii_case("bucket"));
    let begins = parser.peek_keyword(Keyword::EXPLAIN) && is_bucket;
    if begins {
        parser.next_token();
        parser.next_token();
    }
    begins
}

fn explain_bucket(parser: &mut Parser<'_>) -> Result<Statement, ParserError> {
    let name = parser.parse_object_name(false)?;
    let at = parser.parse_literal_string()?;
    Ok(Statement::ExplainBucket { name, at })
}
