//! The files to import: what they hold, and how they are compressed.

use std::fs::{File, Metadata};
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use flate2::bufread::MultiGzDecoder;
use indicatif::ProgressBar;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const PARQUET_MAGIC: &[u8] = b"PAR1";
/// Bytes that are read from a file at once.
const READ_BYTES: usize = 256 << 10;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Line protocol
    Lp,
    /// CSV with a header row
    Csv,
    /// Parquet
    Parquet,
}

impl Format {
    /// What its points are counted in.
    pub(crate) fn place(self) -> &'static str {
        match self {
            Format::Lp | Format::Csv => "line",
            Format::Parquet => "row",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

/// One file to import.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    /// Its size as it lies on the disk.
    pub(crate) bytes: u64,
    /// When it was last changed, in nanoseconds since the epoch; 0 where that is not known.
    pub(crate) modified_ns: u64,
    compression: Compression,
}

impl Input {
    /// Looks at the first bytes and the name of a file; `format` decides instead, if it is given.
    ///
    /// # Errors
    /// The file cannot be read, or nothing says what it holds.
    pub(crate) fn examine(path: &Path, format: Option<Format>) -> anyhow::Result<Self> {
        let unreadable = || format!("could not read {}", path.display());
        let mut file = File::open(path).with_context(unreadable)?;
        let metadata = file.metadata().with_context(unreadable)?;
        if metadata.is_dir() {
            bail!("{} is a folder; name its files", path.display());
        }
        let mut start = Vec::new();
        file.by_ref().take(4).read_to_end(&mut start).with_context(unreadable)?;
        let compression = compression_of(&start);
        let format = format.or_else(|| format_of(path, &start)).ok_or_else(|| {
            anyhow!("cannot tell what {} holds: say --format lp, csv or parquet", path.display())
        })?;
        if format == Format::Parquet && compression != Compression::None {
            bail!("{}: a Parquet file is compressed inside; unpack it first", path.display());
        }
        let (bytes, modified_ns) = (metadata.len(), modified_ns(&metadata));
        Ok(Input { path: path.to_owned(), format, bytes, modified_ns, compression })
    }

    /// The name of the file without its extensions.
    pub(crate) fn stem(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = without_compression(&name);
        let extension = Path::new(name).extension().is_some();
        let end = name.rfind('.').filter(|_| extension).unwrap_or(name.len());
        name[..end].to_owned()
    }

    /// The text of the file, decompressed as it is read; `bar` follows.
    pub(crate) fn open(&self, bar: &ProgressBar) -> std::io::Result<Box<dyn Read>> {
        let file = bar.wrap_read(File::open(&self.path)?);
        let file = BufReader::with_capacity(READ_BYTES, file);
        without_mark(match self.compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(MultiGzDecoder::new(file)),
            Compression::Zstd => Box::new(zstd::Decoder::with_buffer(file)?),
        })
    }
}

/// The text without the byte order mark that some editors put in front.
fn without_mark(mut text: Box<dyn Read>) -> std::io::Result<Box<dyn Read>> {
    let mut start = Vec::new();
    text.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut start)?;
    Ok(if start == BYTE_ORDER_MARK { text } else { Box::new(Cursor::new(start).chain(text)) })
}

fn compression_of(start: &[u8]) -> Compression {
    if start.starts_with(GZIP_MAGIC) {
        Compression::Gzip
    } else if start.starts_with(ZSTD_MAGIC) {
        Compression::Zstd
    } else {
        Compression::None
    }
}

fn format_of(path: &Path, start: &[u8]) -> Option<Format> {
    if start.starts_with(PARQUET_MAGIC) {
        return Some(Format::Parquet);
    }
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    match Path::new(without_compression(&name)).extension()?.to_str()? {
        "lp" | "line" => Some(Format::Lp),
        "csv" => Some(Format::Csv),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}

fn without_compression(name: &str) -> &str {
    let stripped = [".gz", ".zst"].iter().find_map(|extension| name.strip_suffix(extension));
    stripped.unwrap_or(name)
}

fn modified_ns(metadata: &Metadata) -> u64 {
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    modified.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_first_bytes_tell_the_format() {
        let format = |name: &str, start: &[u8]| format_of(Path::new(name), start);
        assert_eq!(format("a/points.lp", b"m f=1"), Some(Format::Lp));
        assert_eq!(format("points.LP.gz", GZIP_MAGIC), Some(Format::Lp));
        assert_eq!(format("points.csv.zst", ZSTD_MAGIC), Some(Format::Csv));
        assert_eq!(format("points.dat", PARQUET_MAGIC), Some(Format::Parquet));
        assert_eq!(format("points", b"m f=1"), None);
    }

    #[test]
    fn a_measurement_is_named_after_its_file() {
        let stem = |name: &str| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            Input::examine(&path, Some(Format::Csv)).unwrap().stem()
        };
        assert_eq!(stem("cpu.csv.gz"), "cpu");
        assert_eq!(stem("cpu.2024.csv"), "cpu.2024");
        assert_eq!(stem("cpu"), "cpu");
    }
}
