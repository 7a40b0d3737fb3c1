//! Where the file of a segment lies: `segments/<database>/<measurement>/<day>/<number>.parquet`.
//! One that is in memory alone has such a name too, in a folder that does not exist.

use std::fmt::Write;

use highwater_core::{MeasurementId, Timestamp};

use super::Medium;

/// Folder of all segments.
pub(crate) const SEGMENTS_FOLDER: &str = "segments";
/// What stands in the place of [`SEGMENTS_FOLDER`] in names of segments in memory.
const MEMORY_FOLDER: &str = "memory";
/// Longest name that is spelled out, in bytes; file systems allow 255.
const MAX_NAME_BYTES: usize = 200;

/// Path of the segment with this number.
pub(crate) fn segment_path(
    id: &MeasurementId,
    day: Timestamp,
    number: u64,
    medium: Medium,
) -> String {
    let folder = match medium {
        Medium::Disk => SEGMENTS_FOLDER,
        Medium::Memory => MEMORY_FOLDER,
    };
    let (database, measurement) = (encode(&id.database), encode(&id.measurement));
    let day = day.start_of_day().to_string();
    let day = day.split('T').next().unwrap_or_default();
    format!("{folder}/{database}/{measurement}/{day}/{number:020}.parquet")
}

/// Whether this names a segment in memory.
pub(crate) fn is_in_memory(path: &str) -> bool {
    path.strip_prefix(MEMORY_FOLDER).is_some_and(|rest| rest.starts_with('/'))
}

/// The number in the path of a segment; `None` if it is no such path.
pub(crate) fn file_number(path: &str) -> Option<u64> {
    path.rsplit('/').next()?.strip_suffix(".parquet")?.parse().ok()
}

/// The name with all but `A-Z a-z 0-9 - _` percent-encoded. Nothing is read back from it, so a
/// name that is too long is cut and told apart by its checksum.
fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    if encoded.len() > MAX_NAME_BYTES {
        encoded.truncate(MAX_NAME_BYTES);
        let _ = write!(encoded, "+{:08x}", crc32c::crc32c(name.as_bytes()));
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_leave_their_folder() {
        let id = MeasurementId::new("..", "a/b %é");
        let path = segment_path(&id, Timestamp::from_secs(-1), 7, Medium::Disk);
        let expected = "segments/%2E%2E/a%2Fb%20%25%C3%A9/1969-12-31/00000000000000000007.parquet";
        assert_eq!(path, expected);
        assert_eq!(file_number(&path), Some(7));
        assert_eq!(file_number("segments/a"), None);
        let long = MeasurementId::new("d", "é".repeat(500));
        assert!(segment_path(&long, Timestamp::EPOCH, 0, Medium::Disk).len() < 300);
        let in_memory = segment_path(&id, Timestamp::EPOCH, 7, Medium::Memory);
        assert!(is_in_memory(&in_memory) && !is_in_memory(&path), "{in_memory}");
    }
}
