//! Words that Tab completes: keywords, functions, and what the database has.

use std::collections::BTreeSet;

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use super::session::Session;

/// Keywords that are worth completing.
const KEYWORDS: &str = "AND AS ASC BETWEEN BY CASE CAST CROSS DELETE DESC DESCRIBE DISTINCT ELSE END \
     EXCEPT EXISTS EXPLAIN ANALYZE FROM FULL GROUP HAVING IN INNER INSERT INTERSECT INTERVAL INTO IS JOIN LEFT LIKE LIMIT \
     MATERIALIZED NOT NULL OFFSET ON OR ORDER OUTER OVER PARTITION REFRESH RIGHT SELECT SHOW TABLES MEASUREMENTS \
     THEN UNION VALUES VERIFY AGGREGATE VIEW WHEN WHERE WINDOW WITH";
/// Where those names are that are not keywords.
const NAMES: [&str; 3] = [
    "SELECT DISTINCT table_schema AS name FROM information_schema.tables",
    "SELECT DISTINCT table_name AS name FROM information_schema.tables",
    "SELECT DISTINCT column_name AS name FROM information_schema.columns \
     WHERE table_schema <> 'information_schema'",
];
/// The same of functions, the same in every database.
const FUNCTIONS: &str = "SELECT DISTINCT routine_name AS name FROM information_schema.routines";

/// Completes the word before the cursor.
#[derive(Debug, Default)]
pub(super) struct Words {
    names: BTreeSet<String>,
    functions: BTreeSet<String>,
}

impl Words {
    /// Asks the server for names, again after a change of database. Without an answer only keywords
    /// are completed.
    pub(super) fn learn(&mut self, session: &Session) {
        let ask = |sql: &str| {
            let rows = session.rows(sql).unwrap_or_default();
            let names = rows.iter().filter_map(|row| row["name"].as_str().map(str::to_owned));
            names.collect::<Vec<_>>()
        };
        self.names = NAMES.iter().flat_map(|sql| ask(sql)).collect();
        if self.functions.is_empty() {
            self.functions = ask(FUNCTIONS).into_iter().collect();
        }
    }

    /// Where the word before `end` starts, and what it could become.
    fn candidates(&self, line: &str, end: usize) -> (usize, Vec<String>) {
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        let start = line[..end].char_indices().rev().take_while(|(_, letter)| is_part(*letter));
        let start = start.last().map_or(end, |(at, _)| at);
        let word = line[start..end].to_lowercase();
        if word.is_empty() {
            return (start, Vec::new());
        }
        let fits = |name: &&str| name.to_lowercase().starts_with(&word);
        let is_shouted = line[start..end].chars().all(|letter| !letter.is_lowercase());
        let keyword = |word: &str| if is_shouted { word.to_owned() } else { word.to_lowercase() };
        let keywords = KEYWORDS.split_whitespace().filter(fits).map(keyword);
        let names = self.names.iter().map(String::as_str).filter(fits).map(quoted);
        let functions = self.functions.iter().map(String::as_str).filter(fits);
        let functions = functions.map(|name| format!("{name}("));
        let all: BTreeSet<String> = keywords.chain(names).chain(functions).collect();
        (start, all.into_iter().collect())
    }
}

/// The name as it is written in SQL.
fn quoted(name: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    match name.chars().all(is_plain) && !name.starts_with(|letter: char| letter.is_ascii_digit()) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        end: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.candidates(line, end))
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {}

impl Validator for Words {}

impl Helper for Words {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_completed_as_they_are_written() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let words = Words { names: set(&["cpu", "cpu 2", "Selma"]), functions: set(&["sum"]) };
        let of = |line: &str| words.candidates(line, line.len());
        assert_eq!(of("SELECT su"), (7, vec!["sum(".to_owned()]));
        assert_eq!(of("SEL"), (0, vec!["SELECT".to_owned(), "Selma".to_owned()]));
        assert_eq!(of("sel"), (0, vec!["Selma".to_owned(), "select".to_owned()]));
        assert_eq!(of("select ü from cp").1, ["\"cpu 2\"", "cpu"]);
        assert_eq!(of("select "), (7, vec![]));
    }
}
