//! Lines that were refused, wherever that happened.

use highwater_storage::WriteMode;
use serde_json::{Value, json};

use crate::line_protocol::RefusedLine;

/// Refused lines that are reported; further ones are counted.
const MAX_REPORTED: usize = 10_000;
/// Bytes of a line that are sent back.
const MAX_ORIGINAL_BYTES: usize = 1024;

/// The refused lines of one request.
#[derive(Debug)]
pub(super) struct Refusals {
    /// Ascending by line once [`Refusals::add`] is done.
    reported: Vec<RefusedLine>,
    count: usize,
    lines: usize,
    mode: WriteMode,
}

impl Refusals {
    /// `count` refused lines of `lines`, the first of them in `reported`.
    pub(super) fn of(
        reported: Vec<RefusedLine>,
        count: usize,
        lines: usize,
        mode: WriteMode,
    ) -> Self {
        Refusals { reported, count, lines, mode }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Adds lines that were read but may not be stored.
    pub(super) fn add(&mut self, refused: impl Iterator<Item = (u32, String)>, body: &[u8]) {
        let mut refused: Vec<(u32, String)> = refused.collect();
        if refused.is_empty() {
            return;
        }
        self.count += refused.len();
        refused.sort_by_key(|(line, _)| *line);
        refused.truncate(MAX_REPORTED);
        let mut texts = (1..).zip(body.split(|byte| *byte == b'\n'));
        for (line, reason) in refused {
            let text = texts.find(|(number, _)| *number >= line).map(|(_, text)| text);
            let original = cut(text.unwrap_or_default());
            self.reported.push(RefusedLine { line, original, reason });
        }
        self.reported.sort_by_key(|refused| refused.line);
        self.reported.truncate(MAX_REPORTED);
    }

    /// What happened as a whole, in the words of InfluxDB 3.
    pub(super) fn headline(&self) -> &'static str {
        match self.mode {
            WriteMode::StoreGoodLines => "partial write of line protocol occurred",
            WriteMode::AllOrNothing => "parsing failed for write_lp endpoint",
        }
    }

    /// What happened, with the first refused line.
    pub(super) fn in_a_sentence(&self) -> String {
        let first = self.reported.first();
        let first = first.map(|refused| format!("line {}: {}", refused.line, refused.reason));
        let rest = match self.mode {
            WriteMode::StoreGoodLines if self.count < self.lines => "the others are stored",
            _ => "nothing is stored",
        };
        let (first, count, lines) = (first.unwrap_or_default(), self.count, self.lines);
        format!("{}: {first} ({count} of {lines} lines refused, {rest})", self.headline())
    }

    /// One entry per refused line.
    pub(super) fn data(&self) -> Value {
        let entry = |refused: &RefusedLine| {
            json!({
                "original_line": refused.original,
                "line_number": refused.line,
                "error_message": refused.reason,
            })
        };
        self.reported.iter().map(entry).collect()
    }
}

/// The text of a line, invalid UTF-8 replaced.
fn cut(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(&line[..line.len().min(MAX_ORIGINAL_BYTES)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_reported_in_order_with_their_text() {
        let body = b"a b=1\r\nbroken\nc d=1\nc d=2";
        let broken = RefusedLine { line: 2, original: "broken".into(), reason: "no fields".into() };
        let mut refusals = Refusals::of(vec![broken], 1, 4, WriteMode::StoreGoodLines);
        let late = |line| (line, "too old".to_owned());
        refusals.add([late(4), late(1)].into_iter(), body);
        refusals.add(std::iter::once((3, "other".to_owned())), body);
        let seen: Vec<(u32, &str)> =
            refusals.reported.iter().map(|r| (r.line, r.original.as_str())).collect();
        assert_eq!(seen, [(1, "a b=1"), (2, "broken"), (3, "c d=1"), (4, "c d=2")]);
        let sentence = refusals.in_a_sentence();
        assert!(sentence.contains("line 1: too old (4 of 4 lines refused"), "{sentence}");
    }
}
