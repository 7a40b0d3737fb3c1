//! A file that is there whole or not at all.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::demo::is_bar_wanted;

/// Bytes that are written at once.
const PIECE_BYTES: usize = 256 << 10;

/// A Parquet file to be; under another name until it is whole.
pub(super) struct WholeFile<'a> {
    path: &'a Path,
    beside: PathBuf,
}

impl<'a> WholeFile<'a> {
    pub(super) fn at(path: &'a Path) -> Self {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".partial");
        WholeFile { path, beside: beside.into() }
    }

    /// Writes all of `content`; returns the rows and bytes of the file.
    ///
    /// # Errors
    /// The content breaks off, is no Parquet, or cannot be written. There is no new file then.
    pub(super) fn write(&self, content: impl Read) -> anyhow::Result<(u64, u64)> {
        let written = self.write_beside(content);
        if written.is_err() {
            // What is half done is worth nothing; if it cannot go away it stays where it harms nobody.
            let _ = std::fs::remove_file(&self.beside);
        }
        written
    }

    fn write_beside(&self, mut content: impl Read) -> anyhow::Result<(u64, u64)> {
        let unwritable = || format!("could not write {}", self.path.display());
        let mut file = File::create(&self.beside).with_context(unwritable)?;
        let bar = self.bar();
        let (mut piece, mut bytes) = (vec![0; PIECE_BYTES], 0);
        loop {
            let read = content
                .read(&mut piece)
                .context("the answer broke off; the log of the server says why")?;
            if read == 0 {
                break;
            }
            file.write_all(&piece[..read]).with_context(unwritable)?;
            bytes += read as u64;
            bar.set_position(bytes);
        }
        bar.finish_and_clear();
        file.sync_all().with_context(unwritable)?;
        let rows = rows_of(&self.beside).context("the answer is no whole Parquet file")?;
        std::fs::rename(&self.beside, self.path).with_context(unwritable)?;
        Ok((rows, bytes))
    }

    fn bar(&self) -> ProgressBar {
        if !is_bar_wanted() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{spinner} {msg} {bytes}, {bytes_per_sec}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        ProgressBar::new_spinner().with_style(style).with_message(self.path.display().to_string())
    }
}

fn rows_of(path: &Path) -> anyhow::Result<u64> {
    let file = SerializedFileReader::new(File::open(path)?)?;
    Ok(u64::try_from(file.metadata().file_metadata().num_rows())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_parquet_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        std::fs::write(&path, "before").unwrap();
        assert!(WholeFile::at(&path).write(&b"PAR1 and then it broke off"[..]).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
