//! The statements that are understood.

/// A statement of InfluxQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    CreateDatabase { name: String },
    ShowDatabases,
    ShowMeasurements { on: Option<String> },
    ShowRetentionPolicies { on: Option<String> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A word outside of quotes, as it was written.
    Word(String),
    /// A name in double quotes.
    Name(String),
    Semicolon,
}

impl Statement {
    /// Reads statements separated by `;`.
    ///
    /// # Errors
    /// A sentence that names what is not supported.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Statement>, String> {
        let tokens = tokens(text)?;
        let statements: Vec<Statement> = tokens
            .split(|token| *token == Token::Semicolon)
            .filter(|tokens| !tokens.is_empty())
            .map(|tokens| Statement::parse(tokens).ok_or_else(|| not_supported(text)))
            .collect::<Result<_, _>>()?;
        if statements.is_empty() { Err("the query is empty".to_owned()) } else { Ok(statements) }
    }

    fn parse(tokens: &[Token]) -> Option<Statement> {
        let words: Vec<String> = tokens.iter().map(keyword).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["CREATE", "DATABASE", _] => Some(Statement::CreateDatabase { name: name(tokens)? }),
            ["SHOW", "DATABASES"] => Some(Statement::ShowDatabases),
            ["SHOW", "MEASUREMENTS"] => Some(Statement::ShowMeasurements { on: None }),
            ["SHOW", "MEASUREMENTS", "ON", _] => {
                Some(Statement::ShowMeasurements { on: Some(name(tokens)?) })
            }
            ["SHOW", "RETENTION", "POLICIES"] => {
                Some(Statement::ShowRetentionPolicies { on: None })
            }
            ["SHOW", "RETENTION", "POLICIES", "ON", _] => {
                Some(Statement::ShowRetentionPolicies { on: Some(name(tokens)?) })
            }
            _ => None,
        }
    }
}

fn not_supported(text: &str) -> String {
    format!(
        "{text:?} is not supported; supported are CREATE DATABASE, SHOW DATABASES, SHOW \
         MEASUREMENTS and SHOW RETENTION POLICIES; for queries send SQL to /api/v3/query_sql"
    )
}

fn keyword(token: &Token) -> String {
    match token {
        Token::Word(word) => word.to_uppercase(),
        Token::Name(_) | Token::Semicolon => String::new(),
    }
}

/// The name that the last token is.
fn name(tokens: &[Token]) -> Option<String> {
    match tokens.last()? {
        Token::Word(name) | Token::Name(name) => Some(name.clone()),
        Token::Semicolon => None,
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            ';' => tokens.push(Token::Semicolon),
            '"' => tokens.push(Token::Name(quoted(&mut chars)?)),
            blank if blank.is_whitespace() => {}
            first => {
                let mut word = String::from(first);
                while let Some(next) =
                    chars.next_if(|c| !c.is_whitespace() && !matches!(c, ';' | '"'))
                {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

fn quoted(chars: &mut impl Iterator<Item = char>) -> Result<String, String> {
    let mut name = String::new();
    while let Some(char) = chars.next() {
        match char {
            '"' => return Ok(name),
            '\\' => name.extend(chars.next()),
            other => name.push(other),
        }
    }
    Err(format!("the quotes of \"{name} are not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<Statement> {
        Statement::parse_all(text).unwrap()
    }

    #[test]
    fn what_clients_send_on_their_own_is_understood() {
        let create = |name: &str| Statement::CreateDatabase { name: name.into() };
        assert_eq!(parsed("CREATE DATABASE telegraf"), [create("telegraf")]);
        assert_eq!(parsed("create database \"my \\\"db\";"), [create("my \"db")]);
        assert_eq!(
            parsed("SHOW DATABASES; show measurements on \"t\""),
            [Statement::ShowDatabases, Statement::ShowMeasurements { on: Some("t".into()) }]
        );
        assert_eq!(
            parsed("SHOW RETENTION POLICIES ON t"),
            [Statement::ShowRetentionPolicies { on: Some("t".into()) }]
        );
    }

    #[test]
    fn everything_else_is_refused_with_a_hint() {
        for text in [
            "",
            " ; ",
            "SELECT mean(usage) FROM cpu",
            "DROP DATABASE t",
            "CREATE DATABASE t WITH DURATION 1d",
            "SHOW MEASUREMENTS LIMIT 1",
            "\"SHOW\" DATABASES",
            "CREATE DATABASE \"t",
        ] {
            assert!(Statement::parse_all(text).is_err(), "{text}");
        }
        assert!(Statement::parse_all("SELECT 1").unwrap_err().contains("/api/v3/query_sql"));
    }
}
