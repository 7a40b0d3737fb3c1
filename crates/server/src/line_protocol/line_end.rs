//! Where a line ends: at a newline, but not at one inside a quoted string.

use super::head::head_end;
use super::text;

/// A string that is not closed within so many bytes is taken as broken while more bytes may come.
const OPEN_STRING_BYTES: usize = 16 << 20;

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnd {
    /// The newline at this position.
    Newline(usize),
    /// The end of the body.
    Body,
    /// Nothing: there is text after the closing quote of a string.
    Broken,
    /// Nothing: a string is not closed.
    Open,
}

/// What ends the line that starts at `start` and is no comment.
///
/// `enters` is told where each string of the line starts, after its quote; the line counts as
/// broken where it answers `false`.
pub(super) fn line_end(
    body: &[u8],
    start: usize,
    mut enters: impl FnMut(usize) -> bool,
) -> LineEnd {
    let Ok(mut at) = head_end(body, start) else { return newline(body, start) };
    while let Some(found) = memchr::memchr2(b'"', b'\n', &body[at..]).map(|i| at + i) {
        if body[found] == b'\n' {
            return LineEnd::Newline(found);
        }
        let opens = body[found - 1] == b'=' && !text::is_escaped(body, found - 1);
        at = found + 1;
        if opens {
            if !enters(at) {
                return LineEnd::Broken;
            }
            let Some((quote, _)) = text::closing_quote(body, at) else { return LineEnd::Open };
            at = quote + 1;
            if !matches!(body.get(at), None | Some(b',' | b' ' | b'\n' | b'\r')) {
                return LineEnd::Broken;
            }
        }
    }
    LineEnd::Body
}

fn newline(body: &[u8], start: usize) -> LineEnd {
    memchr::memchr(b'\n', &body[start..]).map_or(LineEnd::Body, |at| LineEnd::Newline(start + at))
}

/// Position after the line that starts at `start`, where the parser goes on whether it takes the
/// line or refuses it. `None` if more bytes have to be seen first; never if `is_whole`.
pub fn after_line(body: &[u8], start: usize, is_whole: bool) -> Option<usize> {
    let first = text::after_blanks(body, start);
    let is_comment = body.get(first) == Some(&b'#');
    let end = if is_comment { newline(body, first) } else { line_end(body, first, |_| true) };
    let is_broken = match end {
        LineEnd::Newline(at) => return Some(at + 1),
        LineEnd::Body => false,
        LineEnd::Broken => true,
        LineEnd::Open => is_whole || body.len() - start > OPEN_STRING_BYTES,
    };
    match newline(body, first) {
        LineEnd::Newline(at) if is_broken => Some(at + 1),
        _ => is_whole.then_some(body.len()),
    }
}

#[cfg(test)]
mod tests {
    use highwater_core::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::line_protocol::{Limits, Parsed, Precision, parse};

    fn lines(body: &str) -> Vec<&str> {
        let (mut lines, mut at) = (Vec::new(), 0);
        while at < body.len() {
            let next = after_line(body.as_bytes(), at, true).unwrap();
            lines.push(&body[at..next]);
            at = next;
        }
        lines
    }

    #[test]
    fn a_newline_in_a_string_ends_nothing() {
        let body = "m f=\"a\nb\" 1\n# it's \"\nm f=1\r\n\nm,t=\" f=2\nm f=\"\\\"\n\" 3";
        let expected = [
            "m f=\"a\nb\" 1\n",
            "# it's \"\n",
            "m f=1\r\n",
            "\n",
            "m,t=\" f=2\n",
            "m f=\"\\\"\n\" 3",
        ];
        assert_eq!(lines(body), expected);
    }

    #[test]
    fn a_broken_string_ends_at_the_first_newline() {
        assert_eq!(lines("m f=\"a\nm f=1\n"), ["m f=\"a\n", "m f=1\n"]);
        assert_eq!(lines("m f=\"a\nm f=\"b\" 1"), ["m f=\"a\n", "m f=\"b\" 1"]);
    }

    #[test]
    fn an_end_is_named_once_it_is_certain() {
        for open in ["m f=1", "m f=\"a\n", "m f=\"a\\", "m f=\"a\"", "m", "# x", ""] {
            assert_eq!(after_line(open.as_bytes(), 0, false), None, "{open}");
            assert!(after_line(open.as_bytes(), 0, true).is_some(), "{open}");
        }
        assert_eq!(after_line(b"m f=\"a\"x\n", 0, false), Some(9));
        let long = [b"m f=\"a\n".to_vec(), vec![b'x'; OPEN_STRING_BYTES]].concat();
        assert_eq!(after_line(&long, 0, false), Some(7));
    }

    proptest! {
        #[test]
        fn cutting_between_lines_changes_nothing(body in "([mtf=,\"\\\\ \n1#]|f=\"|m f=1\n){0,60}") {
            let read = |text: &str| {
                let Parsed { batches, refused_count, .. } =
                    parse(text.as_bytes(), Precision::Second, Timestamp::EPOCH, &Limits::default());
                (batches.iter().map(|batch| batch.rows()).sum::<usize>(), refused_count)
            };
            let line_by_line = lines(&body).into_iter().map(read);
            let sum = line_by_line.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
            let broken_types = read(&body).1 > sum.1;
            prop_assert!(sum == read(&body) || broken_types, "{:?}", lines(&body));
        }
    }
}
