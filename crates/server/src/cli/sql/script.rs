//! Cutting a text into statements at its semicolons, but not at those in texts and comments.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

/// The statements of a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Statements<'a> {
    /// Those that end with a semicolon, without it.
    pub(super) whole: Vec<&'a str>,
    /// What follows the last semicolon; empty if that is nothing but space and comments.
    pub(super) rest: &'a str,
}

/// Cuts a text into statements; empty ones are left out. In a text that breaks off inside of a quoted
/// text or a comment, nothing is cut.
pub(super) fn split(text: &str) -> Statements<'_> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location() else {
        return Statements { whole: Vec::new(), rest: text.trim() };
    };
    let lines = line_starts(text);
    let mut statements = Statements::default();
    let (mut start, mut is_empty) = (0, true);
    for token in tokens {
        match token.token {
            Token::Whitespace(_) | Token::EOF => {}
            Token::SemiColon => {
                let end = offset(text, &lines, token.span.start);
                if !is_empty {
                    statements.whole.push(text[start..end].trim());
                }
                (start, is_empty) = (end + 1, true);
            }
            _ => is_empty = false,
        }
    }
    if !is_empty {
        statements.rest = text[start..].trim();
    }
    statements
}

/// Where lines begin, in bytes.
fn line_starts(text: &str) -> Vec<usize> {
    let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    std::iter::once(0).chain(after_breaks.map(|(at, _)| at + 1)).collect()
}

/// Bytes before a place that the tokenizer names by line and character, both from 1.
fn offset(text: &str, lines: &[usize], place: Location) -> usize {
    let line = lines[place.line as usize - 1];
    let mut characters = text[line..].char_indices();
    characters.nth(place.column as usize - 1).map_or(text.len(), |(at, _)| line + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_end_statements_outside_of_texts_and_comments() {
        let cut = |text| {
            let Statements { whole, rest } = split(text);
            (whole, rest)
        };
        assert_eq!(cut("SELECT 1"), (vec![], "SELECT 1"));
        assert_eq!(cut("SELECT 'a;b';\n\nSELECT 2 ; "), (vec!["SELECT 'a;b'", "SELECT 2"], ""));
        assert_eq!(
            cut("SELECT \"ü;\", 'ü' -- no; end\n; x"),
            (vec!["SELECT \"ü;\", 'ü' -- no; end"], "x")
        );
        assert_eq!(cut(";; -- nothing\n/* ; */"), (vec![], ""));
        assert_eq!(cut("SELECT 1; SELECT 'open; "), (vec![], "SELECT 1; SELECT 'open;"));
    }
}
