//! Files of line protocol, cut between lines.

use std::io::Read;

use anyhow::ensure;

use super::batch::{Batch, BatchSize, Places, Source};
use crate::line_protocol::line_end::after_line;

/// Bytes by which the buffer grows.
const CHUNK_BYTES: usize = 256 << 10;
/// No request may hold a longer line.
const MAX_LINE_BYTES: usize = 32 << 20;

/// A file of line protocol.
pub(crate) struct Lines {
    text: Box<dyn Read>,
    size: BatchSize,
    /// What is read and not yet in a batch.
    buffer: Vec<u8>,
    at_end: bool,
    /// Lines of the file before the buffer.
    lines_before: u64,
}

impl Lines {
    /// The lines of `text` after the first `skipped` ones.
    pub(crate) fn new(text: Box<dyn Read>, size: BatchSize, skipped: u64) -> std::io::Result<Self> {
        let mut lines =
            Lines { text, size, buffer: Vec::new(), at_end: false, lines_before: skipped };
        let mut left = skipped;
        while left > 0 && lines.fill()? {
            let newlines = memchr::memchr_iter(b'\n', &lines.buffer);
            let (count, last) = newlines.take(left as usize).fold((0, 0), |(n, _), at| (n + 1, at));
            left -= count;
            match left {
                0 => drop(lines.buffer.drain(..=last)),
                _ => lines.buffer.clear(),
            }
        }
        Ok(lines)
    }

    /// Reads some more; `false` at the end of the text.
    fn fill(&mut self) -> std::io::Result<bool> {
        let before = self.buffer.len();
        self.text.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut self.buffer)?;
        self.at_end = self.buffer.len() == before;
        Ok(!self.at_end)
    }

    /// How many bytes of the buffer are whole lines of the next batch, and how many of these lines
    /// are points.
    fn cut(&mut self) -> anyhow::Result<(usize, u64)> {
        let (mut end, mut lines, mut points) = (0, 0, 0);
        while lines < self.size.lines && end < self.size.bytes {
            let next = after_line(&self.buffer, end, self.at_end).filter(|next| *next > end);
            if let Some(next) = next {
                lines += 1;
                points += u64::from(is_point(&self.buffer[end..next]));
                end = next;
            } else if self.at_end {
                break;
            } else {
                ensure!(
                    self.buffer.len() - end <= MAX_LINE_BYTES,
                    "line {} is longer than {MAX_LINE_BYTES} bytes",
                    self.lines_before + newlines(&self.buffer[..end]) + 1
                );
                self.fill()?;
            }
        }
        Ok((end, points))
    }
}

impl Source for Lines {
    fn next(&mut self) -> anyhow::Result<Option<Batch>> {
        let (end, points) = self.cut()?;
        if end == 0 {
            return Ok(None);
        }
        let rest = self.buffer.split_off(end);
        let body = std::mem::replace(&mut self.buffer, rest);
        let places = Places::LinesFrom(self.lines_before + 1);
        self.lines_before += newlines(&body) + u64::from(!body.ends_with(b"\n"));
        Ok(Some(Batch { body, points, end: self.lines_before, places, refused: Vec::new() }))
    }
}

fn newlines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

/// Whether a line is neither empty nor a comment.
fn is_point(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    !line.is_empty() && line[0] != b'#'
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn source(text: &str, lines: usize, skipped: u64) -> Lines {
        let size = BatchSize { lines, bytes: 1 << 20 };
        Lines::new(Box::new(Cursor::new(text.to_owned())), size, skipped).unwrap()
    }

    fn bodies(mut source: Lines) -> Vec<(String, u64, u64)> {
        let mut bodies = Vec::new();
        while let Some(batch) = source.next().unwrap() {
            bodies.push((String::from_utf8(batch.body).unwrap(), batch.points, batch.end));
        }
        bodies
    }

    #[test]
    fn batches_end_between_lines() {
        let text = "m f=1 1\n# one\nm f=\"a\nb\" 2\n\nm f=3 3";
        let expected = [
            ("m f=1 1\n# one\n".to_owned(), 1, 2),
            ("m f=\"a\nb\" 2\n\n".to_owned(), 1, 5),
            ("m f=3 3".to_owned(), 1, 6),
        ];
        assert_eq!(bodies(source(text, 2, 0)), expected);
        assert_eq!(bodies(source(text, 2, 2)), expected[1..]);
        assert_eq!(bodies(source(text, 2, 5)), expected[2..]);
        assert_eq!(bodies(source(text, 2, 6)), []);
    }

    #[test]
    fn long_texts_stay_whole() {
        let text: String = (0..100_000).map(|i| format!("m f=\"{i}\n\" {i}\n")).collect();
        let batches = bodies(source(&text, 777, 0));
        assert_eq!(batches.iter().map(|(body, ..)| body.as_str()).collect::<String>(), text);
        let (last, points, end) = batches.last().unwrap();
        assert_eq!((last.lines().count(), *points, *end), (1088, 544, 200_000));
        let resumed = bodies(source(&text, 777, 2 * 777));
        assert_eq!(resumed, batches[1..]);
    }

    #[test]
    fn bytes_end_a_batch_too() {
        let size = BatchSize { lines: 1000, bytes: 10 };
        let text = Box::new(Cursor::new("m f=1 1\n".repeat(4)));
        let batches = bodies(Lines::new(text, size, 0).unwrap());
        assert_eq!(batches.iter().map(|(body, ..)| body.len()).collect::<Vec<_>>(), [16, 16]);
    }
}
