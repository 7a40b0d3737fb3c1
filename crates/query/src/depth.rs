//! How deep a statement nests, measured on its tokens before any recursive code sees it.
//!
//! Parsers and planners recurse once per level of nesting and once per link of a chain
//! (`1 + 1 + ...` leans to the left, `a JOIN b JOIN c` too), so both count as depth.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// One open parenthesis, bracket or CASE.
#[derive(Default)]
struct Level {
    is_case: bool,
    /// Links of the comparison or sum being read.
    links: usize,
    /// Links of the condition being read: AND and OR.
    conditions: usize,
    /// Links of the query: joins and set operations.
    relations: usize,
    in_from: bool,
}

impl Level {
    fn depth(&self) -> usize {
        1 + self.links + self.conditions + self.relations
    }
}

/// The greatest depth anywhere in these tokens, an upper bound of the depth of the tree.
pub(crate) fn depth(tokens: &[TokenWithSpan]) -> usize {
    let mut levels = vec![Level::default()];
    // Depth of all levels but the last.
    let mut outer = 0;
    let mut deepest = 0;
    // `IS DISTINCT FROM` has no FROM clause.
    let mut after_distinct = false;
    for token in tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))) {
        let keyword = match &token.token {
            Token::Word(word) => word.keyword,
            _ => Keyword::NoKeyword,
        };
        if !(after_distinct && keyword == Keyword::FROM) {
            step(&token.token, &mut levels, &mut outer);
        }
        after_distinct = keyword == Keyword::DISTINCT;
        deepest = deepest.max(outer + levels.last().map_or(0, Level::depth));
    }
    deepest
}

fn step(token: &Token, levels: &mut Vec<Level>, outer: &mut usize) {
    match token {
        Token::LParen | Token::LBracket | Token::LBrace => open(false, levels, outer),
        Token::RParen | Token::RBracket | Token::RBrace => while close(levels, outer) {},
        Token::Word(word) if word.quote_style.is_none() => keyword(word.keyword, levels, outer),
        Token::Comma => {
            let level = last(levels);
            (level.links, level.conditions) = (0, 0);
            level.relations += usize::from(level.in_from);
        }
        Token::SemiColon => *last(levels) = Level::default(),
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::Placeholder(_)
        | Token::Period
        | Token::EOF => {}
        // Whatever else there is joins two expressions or precedes one.
        _ => last(levels).links += 1,
    }
}

fn keyword(keyword: Keyword, levels: &mut Vec<Level>, outer: &mut usize) {
    match keyword {
        Keyword::CASE => open(true, levels, outer),
        Keyword::END if last(levels).is_case => {
            close(levels, outer);
        }
        Keyword::WHEN | Keyword::THEN | Keyword::ELSE | Keyword::ON | Keyword::USING => {
            let level = last(levels);
            (level.links, level.conditions) = (0, 0);
        }
        Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => {
            let level = last(levels);
            *level = Level { relations: level.relations + 1, ..Level::default() };
        }
        Keyword::JOIN => last(levels).relations += 1,
        Keyword::FROM => {
            let level = last(levels);
            (level.links, level.conditions, level.in_from) = (0, 0, true);
        }
        Keyword::SELECT
        | Keyword::WHERE
        | Keyword::GROUP
        | Keyword::HAVING
        | Keyword::ORDER
        | Keyword::LIMIT
        | Keyword::OFFSET
        | Keyword::WINDOW
        | Keyword::QUALIFY
        | Keyword::VALUES => {
            let level = last(levels);
            (level.links, level.conditions, level.in_from) = (0, 0, false);
        }
        Keyword::AND | Keyword::OR => {
            let level = last(levels);
            (level.links, level.conditions) = (0, level.conditions + 1);
        }
        Keyword::NOT
        | Keyword::IS
        | Keyword::IN
        | Keyword::LIKE
        | Keyword::ILIKE
        | Keyword::SIMILAR
        | Keyword::BETWEEN
        | Keyword::COLLATE
        | Keyword::AT
        | Keyword::DIV
        | Keyword::XOR
        | Keyword::INTERVAL
        | Keyword::EXPLAIN
        | Keyword::PRIOR
        | Keyword::OVERLAPS => last(levels).links += 1,
        _ => {}
    }
}

fn last(levels: &mut [Level]) -> &mut Level {
    levels.last_mut().expect("the outermost level is never closed")
}

fn open(is_case: bool, levels: &mut Vec<Level>, outer: &mut usize) {
    *outer += last(levels).depth();
    levels.push(Level { is_case, ..Level::default() });
}

/// Closes the innermost level; `true` if it was a CASE inside of what should be closed.
fn close(levels: &mut Vec<Level>, outer: &mut usize) -> bool {
    if levels.len() == 1 {
        return false;
    }
    let closed = levels.pop().is_some_and(|level| level.is_case);
    *outer -= last(levels).depth();
    closed
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn depth_of(sql: &str) -> usize {
        depth(&Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().unwrap())
    }

    #[test]
    fn chains_and_nesting_are_deep_and_lists_are_not() {
        assert!(depth_of(&format!("SELECT 1{}", "+1".repeat(1000))) > 1000);
        assert!(depth_of(&format!("SELECT {}1{}", "(".repeat(600), ")".repeat(600))) > 600);
        assert!(depth_of(&format!("SELECT * FROM t{}", " JOIN t ON true".repeat(600))) > 600);
        assert!(depth_of(&format!("SELECT * FROM t{}", ", t".repeat(600))) > 600);
        assert!(depth_of(&format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(600))) > 600);
        assert!(depth_of(&"CASE WHEN true THEN ".repeat(600)) > 600);
        assert!(depth_of(&format!("SELECT x IN (1{})", ", 2".repeat(9000))) < 10);
        assert!(depth_of(&format!("SELECT 1{}", ", a + b AS c".repeat(9000))) < 10);
        assert!(depth_of(&format!("SELECT a IS DISTINCT FROM b{}", ", c".repeat(9000))) < 10);
        assert!(depth_of("SELECT CASE WHEN a THEN 1 ELSE 2 END, b FROM t WHERE x = 1") < 10);
    }
}
