//! Bytes of the manifest's files: a line of header, then JSON. See `docs/format/manifest.md`.

use std::fmt::Write;

use bytes::Bytes;
use highwater_core::SequenceNumber;
use serde::de::DeserializeOwned;

use super::{Edit, ManifestState};
use crate::error::StorageError;

const MAGIC: &str = "highwater-manifest";
const VERSION: &str = "2";
const MAX_HEADER_BYTES: usize = 80;

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// It ends early: it was never completely written.
    Torn,
    /// It is something else.
    Other { offset: u64, reason: String },
}

impl Damage {
    /// As the error of the file `path`.
    pub(crate) fn in_file(self, path: String) -> StorageError {
        let (offset, reason) = match self {
            Damage::Torn => (0, "the file ends early".to_owned()),
            Damage::Other { offset, reason } => (offset, reason),
        };
        StorageError::Corrupt { path, offset, reason }
    }
}

/// The file of one commit.
pub(super) fn encode_edits(
    seq: SequenceNumber,
    edits: &[Edit],
) -> Result<Bytes, serde_json::Error> {
    let mut json = String::from("[");
    for (i, edit) in edits.iter().enumerate() {
        json.push_str(if i > 0 { ",\n" } else { "\n" });
        json.push_str(&serde_json::to_string(edit)?);
    }
    json.push_str("\n]\n");
    Ok(frame(seq, &json))
}

/// A checkpoint.
pub(super) fn encode_state(state: &ManifestState) -> Result<Bytes, serde_json::Error> {
    let mut json = serde_json::to_string(state)?;
    json.push('\n');
    Ok(frame(state.seq, &json))
}

/// Reads the file of one commit.
pub(crate) fn decode_edits(bytes: &[u8]) -> Result<(SequenceNumber, Vec<Edit>), Damage> {
    decode(bytes)
}

/// Reads a checkpoint.
pub(crate) fn decode_state(bytes: &[u8]) -> Result<ManifestState, Damage> {
    let (seq, state): (_, ManifestState) = decode(bytes)?;
    if state.seq == seq { Ok(state) } else { Err(other(0, "the header names another commit")) }
}

fn frame(seq: SequenceNumber, json: &str) -> Bytes {
    let checked = format!("{seq} {}\n{json}", json.len());
    let mut file = String::with_capacity(checked.len() + 32);
    let crc = crc32c::crc32c(checked.as_bytes());
    write!(file, "{MAGIC} {VERSION} {crc:08x} {checked}").expect("a string takes every text");
    Bytes::from(file)
}

/// The commit and the JSON of a file.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(SequenceNumber, T), Damage> {
    let header_len = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(header_len) => header_len,
        None if bytes.len() < MAX_HEADER_BYTES => return Err(Damage::Torn),
        None => return Err(other(0, "there is no header")),
    };
    let header = std::str::from_utf8(&bytes[..header_len]).map_err(|_| other(0, "bad header"))?;
    let [magic, version, crc, seq, len] = header.split(' ').collect::<Vec<_>>()[..] else {
        return Err(other(0, "bad header"));
    };
    if magic != MAGIC || version != VERSION {
        return Err(other(0, &format!("{magic} {version} is not a format this release reads")));
    }
    let json = &bytes[header_len + 1..];
    let stated: usize = len.parse().map_err(|_| other(0, "bad length"))?;
    if json.len() < stated {
        let closing: &[u8] = if json.first() == Some(&b'[') { b"]\n" } else { b"}\n" };
        let is_complete = json.ends_with(closing);
        return Err(if is_complete { other(0, "its length does not match") } else { Damage::Torn });
    }
    let crc_end = magic.len() + version.len() + crc.len() + 3;
    if Ok(crc32c::crc32c(&bytes[crc_end..])) != u32::from_str_radix(crc, 16) {
        return Err(other(0, "the checksum does not match"));
    }
    let seq = seq.parse().map_err(|_| other(0, "bad commit number"))?;
    let value = serde_json::from_slice(json).map_err(|e| other(header_len + 1, &e.to_string()))?;
    Ok((SequenceNumber::new(seq), value))
}

fn other(offset: usize, reason: &str) -> Damage {
    Damage::Other { offset: offset as u64, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOLDEN: &str = "highwater-manifest 2 2b3db673 7 65\n[\n\
        {\"create_database\":{\"database\":\"db\"}},\n{\"flushed\":{\"seq\":6}}\n]\n";

    fn edits() -> Vec<Edit> {
        let seq = SequenceNumber::new(6);
        vec![Edit::CreateDatabase { database: "db".into() }, Edit::Flushed { seq }]
    }

    #[test]
    fn files_of_this_version_are_read_and_written_the_same() {
        let seq = SequenceNumber::new(7);
        assert_eq!(decode_edits(GOLDEN.as_bytes()), Ok((seq, edits())));
        assert_eq!(encode_edits(seq, &edits()).unwrap(), GOLDEN);
    }

    #[test]
    fn a_file_that_ends_early_is_torn_and_others_are_damaged() {
        let bytes = GOLDEN.as_bytes().to_vec();
        for end in 0..bytes.len() {
            assert_eq!(decode_edits(&bytes[..end]), Err(Damage::Torn), "{end} bytes");
        }
        let newer = GOLDEN.replace("manifest 2", "manifest 3");
        assert!(matches!(decode_edits(newer.as_bytes()), Err(Damage::Other { .. })));
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed(at in 0usize..1000, flip in 1u8..) {
            let mut bytes = GOLDEN.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            let decoded = decode_edits(&bytes);
            prop_assert_ne!(&decoded, &Err(Damage::Torn));
            // Upper case digits of the checksum mean the same.
            prop_assert!(decoded.is_err() || bytes.eq_ignore_ascii_case(GOLDEN.as_bytes()));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode_edits(&bytes).is_err());
        }
    }
}
