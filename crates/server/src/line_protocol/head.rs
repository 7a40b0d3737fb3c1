//! The `measurement,tags` of the lines, interned by their bytes.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::refusal::Refusal;
use super::text;

/// Where the points of a line go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Position of the measurement in the request.
    pub(super) measurement: u32,
    /// Position of the tag set in the measurement.
    pub(super) tag_set: u32,
}

#[derive(Debug)]
struct Head {
    start: usize,
    end: usize,
    place: Place,
    /// The head of the line that came after the latest line with this one.
    next: u32,
}

/// The different heads of the good lines of a body.
#[derive(Debug)]
pub(super) struct Heads<'a> {
    body: &'a [u8],
    heads: Vec<Head>,
    /// Hash of the bytes and position in `heads`.
    by_bytes: HashTable<(u64, u32)>,
    hasher: DefaultHashBuilder,
    latest: u32,
}

/// The head of a line: where it ends, and where its point goes if the head is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) end: usize,
    /// Hash of its bytes, unless it was guessed.
    hash: u64,
    pub(super) known: Option<(u32, Place)>,
}

impl<'a> Heads<'a> {
    pub(super) fn new(body: &'a [u8], hasher: DefaultHashBuilder) -> Self {
        Heads { body, heads: Vec::new(), by_bytes: HashTable::new(), hasher, latest: 0 }
    }

    /// The head of the line that starts at `at`.
    #[inline]
    pub(super) fn find(&self, at: usize) -> Result<Found, Refusal> {
        match self.guess(at) {
            Some(found) => Ok(found),
            None => self.look_up(at),
        }
    }

    /// Time series tend to be written in the same order again and again.
    #[inline]
    fn guess(&self, at: usize) -> Option<Found> {
        let next = self.heads.get(self.latest as usize)?.next;
        let guess = self.heads.get(next as usize)?;
        let end = at + (guess.end - guess.start);
        let is_it = self.body.get(end) == Some(&b' ')
            && self.body[at..end] == self.body[guess.start..guess.end];
        is_it.then_some(Found { end, hash: 0, known: Some((next, guess.place)) })
    }

    fn look_up(&self, at: usize) -> Result<Found, Refusal> {
        let end = head_end(self.body, at)?;
        let head = &self.body[at..end];
        let hash = self.hasher.hash_one(head);
        let is_it = |&(own_hash, i): &(u64, u32)| {
            let own = &self.heads[i as usize];
            own_hash == hash && self.body[own.start..own.end] == *head
        };
        let found = self.by_bytes.find(hash, is_it);
        Ok(Found { end, hash, known: found.map(|&(_, i)| (i, self.heads[i as usize].place)) })
    }

    /// Remembers that a good line had the known head `head`.
    #[inline]
    pub(super) fn follow(&mut self, head: u32) {
        if let Some(latest) = self.heads.get_mut(self.latest as usize) {
            latest.next = head;
        }
        self.latest = head;
    }

    /// Remembers that a good line had the new head `[start, head.end)`.
    pub(super) fn insert(&mut self, start: usize, head: Found, place: Place) {
        let at = self.heads.len() as u32;
        self.heads.push(Head { start, end: head.end, place, next: 0 });
        self.by_bytes.insert_unique(head.hash, (head.hash, at), |&(hash, _)| hash);
        self.follow(at);
    }
}

/// Position of the first space from `at` on without a backslash before it.
///
/// # Errors
/// The line ends before.
pub(super) fn head_end(body: &[u8], at: usize) -> Result<usize, Refusal> {
    let rest = &body[at..];
    let ends = |&i: &usize| rest[i] == b'\n' || !text::is_escaped(rest, i);
    let end = memchr::memchr2_iter(b' ', b'\n', rest).find(ends);
    match end {
        Some(end) if rest[end] == b' ' => Ok(at + end),
        _ => {
            let measurement = &rest[..end.unwrap_or(rest.len())];
            Err(Refusal::NoFields { measurement: text::excerpt(measurement.trim_ascii_end(), 64) })
        }
    }
}
