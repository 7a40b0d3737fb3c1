//! Frames: records with their length, a checksum and what was durable before them.
//!
//! ```text
//! length u32 │ CRC-32C u32 │ kind u8 │ seq u64 │ durable u64 │ body
//!                          └─ checked by the CRC, `length` bytes ─┘
//! ```

use highwater_core::SequenceNumber;

use super::encoding::{Malformed, Unread, put_u32, put_u64};
use super::window::Window;
use crate::error::StorageError;

/// First bytes of every log.
pub(super) const FILE_HEADER: &[u8; 16] = b"highwater-wal 1\n";

/// Bytes of length and checksum.
pub(super) const PREFIX_BYTES: usize = 8;
const HEADER_BYTES: usize = 17;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Points = 1,
    Delete = 2,
}

/// A frame whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) seq: SequenceNumber,
    /// Bytes of the file that were durable when the frame was encoded.
    pub(super) durable: u64,
    pub(super) body: &'a [u8],
    /// Bytes of the whole frame.
    pub(super) bytes: usize,
}

/// Starts a frame at the end of `out`; the body follows, then [`finish`].
pub(super) fn start(out: &mut Vec<u8>, kind: Kind, seq: SequenceNumber, durable: u64) -> usize {
    let at = out.len();
    put_u64(out, 0);
    out.push(kind as u8);
    put_u64(out, seq.get());
    put_u64(out, durable);
    at
}

/// Fills in length and checksum of the frame that was started at `at`.
///
/// # Panics
/// If it has 4 GiB or more; the size of records is checked before they are encoded.
pub(super) fn finish(out: &mut [u8], at: usize) {
    let checked = at + PREFIX_BYTES;
    let len = u32::try_from(out.len() - checked);
    let len = len.expect("records are checked to be smaller than 4 GiB");
    let crc = crc32c::crc32c(&out[checked..]);
    let mut prefix = Vec::with_capacity(PREFIX_BYTES);
    put_u32(&mut prefix, len);
    put_u32(&mut prefix, crc);
    out[at..checked].copy_from_slice(&prefix);
}

/// Bytes of the frame that begins like this, if it is one.
pub(super) fn stated_bytes(prefix: &[u8]) -> usize {
    Unread(prefix).len().map_or(PREFIX_BYTES, |len| len.saturating_add(PREFIX_BYTES))
}

/// The frame at the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Frame<'_>, Malformed> {
    let mut unread = Unread(bytes);
    let (len, crc) = (unread.len()?, unread.u32()?);
    let checked = unread.take(len)?;
    let mut body = Unread(checked);
    let kind = kind_of(body.u8()?)?;
    let (seq, durable) = (SequenceNumber::new(body.u64()?), body.u64()?);
    if crc32c::crc32c(checked) != crc {
        return Err(Malformed("the checksum does not match"));
    }
    Ok(Frame { kind, seq, durable, body: body.0, bytes: PREFIX_BYTES + len })
}

/// Whether a sound frame after `damage` says that the byte there was durable once. Frames that
/// were not durable together may be lost in any pattern, so sound ones alone prove nothing.
///
/// # Errors
/// [`StorageError::Io`] if the log cannot be read.
pub(super) fn was_durable(
    log: &mut Window,
    damage: u64,
    last: SequenceNumber,
) -> Result<bool, StorageError> {
    let mut at = damage + 1;
    while at + (PREFIX_BYTES + HEADER_BYTES) as u64 <= log.len() {
        match read_plausible(log, at, last)? {
            Some(frame) if frame.durable > damage => return Ok(true),
            Some(frame) => at += frame.bytes as u64,
            None => at += 1,
        }
    }
    Ok(false)
}

/// Like [`read`], but computes checksums only where the numbers make sense.
fn read_plausible(
    log: &mut Window,
    at: u64,
    last: SequenceNumber,
) -> Result<Option<Frame<'_>>, StorageError> {
    let start = log.at(at, PREFIX_BYTES + HEADER_BYTES)?;
    match is_plausible(&start[PREFIX_BYTES..], at, last) {
        true => Ok(read(log.frame(at)?).ok()),
        false => Ok(None),
    }
}

/// Whether these could be kind and numbers of a frame at `at` that follows the commit `last`.
fn is_plausible(header: &[u8], at: u64, last: SequenceNumber) -> bool {
    let mut header = Unread(header);
    let mut numbers = || -> Result<(u64, u64), Malformed> {
        kind_of(header.u8()?)?;
        Ok((header.u64()?, header.u64()?))
    };
    let ahead = |seq: u64| seq.checked_sub(last.get());
    let follows = |seq| ahead(seq).is_some_and(|ahead| (1..1 << 32).contains(&ahead));
    numbers().is_ok_and(|(seq, durable)| follows(seq) && durable <= at)
}

fn kind_of(code: u8) -> Result<Kind, Malformed> {
    match code {
        1 => Ok(Kind::Points),
        2 => Ok(Kind::Delete),
        _ => Err(Malformed("it is of an unknown kind")),
    }
}
