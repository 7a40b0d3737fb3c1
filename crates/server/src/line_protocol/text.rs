//! Where names end, and what their escapes mean.

use std::borrow::Cow;

/// Position of the first byte of `text` that is `delimiter` and has no backslash before it.
pub(super) fn find_unescaped(text: &[u8], delimiter: u8) -> Option<usize> {
    memchr::memchr_iter(delimiter, text).find(|&at| !is_escaped(text, at))
}

/// Whether a backslash stands before position `at`.
///
/// Backslashes do not escape each other: clients write the tag value `\,` as `\\,`, which is a
/// backslash and an escaped comma.
pub(super) fn is_escaped(text: &[u8], at: usize) -> bool {
    at > 0 && text[at - 1] == b'\\'
}

/// A name without its escapes: `\,`, `\=` and `\ ` lose the backslash, other backslashes stay.
pub(super) fn unescape(name: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', name.as_bytes()).is_none() {
        return Cow::Borrowed(name);
    }
    let mut plain = String::with_capacity(name.len());
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' || !matches!(chars.peek(), Some(',' | '=' | ' ')) {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

/// Position after the line end at `at`: end of the body, LF or CRLF. `None` if there is none.
#[inline]
pub(super) fn after_line_end(body: &[u8], at: usize) -> Option<usize> {
    match body.get(at..)? {
        [] => Some(at),
        [b'\n', ..] => Some(at + 1),
        [b'\r'] => Some(at + 1),
        [b'\r', b'\n', ..] => Some(at + 2),
        _ => None,
    }
}

/// Position of the first byte from `at` on that is neither space nor tab.
#[inline]
pub(super) fn after_blanks(body: &[u8], mut at: usize) -> usize {
    while matches!(body.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    at
}

/// Position of the first newline from `at` on, or the end of the body.
pub(super) fn next_newline(body: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &body[at..]).map_or(body.len(), |found| at + found)
}

/// Position of the quote that closes the string which starts after its opening quote at `at`.
///
/// The second value says whether there is a backslash inside.
pub(super) fn closing_quote(body: &[u8], at: usize) -> Option<(usize, bool)> {
    let mut escapes = false;
    let mut from = at;
    loop {
        let found = from + memchr::memchr2(b'"', b'\\', body.get(from..)?)?;
        if body[found] == b'"' {
            return Some((found, escapes));
        }
        escapes = true;
        let is_escape = matches!(body.get(found + 1), Some(b'"' | b'\\'));
        from = found + 1 + usize::from(is_escape);
    }
}

/// Appends a quoted string's inside, of which only `\"` and `\\` are escapes.
pub(super) fn unescape_string(inside: &[u8], to: &mut Vec<u8>) {
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        to.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.split_first() {
            Some((escaped @ (b'"' | b'\\'), after)) => {
                to.push(*escaped);
                rest = after;
            }
            _ => to.push(b'\\'),
        }
    }
    to.extend_from_slice(rest);
}

/// Text for a message: invalid UTF-8 replaced, cut at about `limit` bytes.
pub(super) fn excerpt(text: &[u8], limit: usize) -> String {
    let mut shown = String::from_utf8_lossy(&text[..text.len().min(limit)]).into_owned();
    shown.truncate(shown.floor_char_boundary(limit));
    shown
}
