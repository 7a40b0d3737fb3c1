//! Where the points of a demo, or of a fixture, are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};

/// A data folder; a temporary one is removed with the value.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    is_temporary: bool,
}

impl DataFolder {
    /// The folder asked for, which has to be new or empty, or else a temporary one.
    pub(super) fn new(wanted: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = wanted else {
            return DataFolder::temporary("demo");
        };
        ensure!(
            is_free(path)?,
            "{} is not empty; choose a new folder, or go on with it: highwater serve --data {0}",
            path.display()
        );
        Ok(DataFolder { path: path.to_owned(), is_temporary: false })
    }

    /// A new temporary folder.
    pub(crate) fn temporary(what: &str) -> anyhow::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let name = format!("highwater-{what}-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(DataFolder { path, is_temporary: true }),
                // Left behind by a process of the same number.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    return Err(e).with_context(|| format!("could not make {}", path.display()));
                }
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.is_temporary
    }
}

fn is_free(path: &Path) -> anyhow::Result<bool> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e).with_context(|| format!("could not read {}", path.display())),
    }
}

impl fmt::Display for DataFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = if self.is_temporary { " (removed at the end)" } else { "" };
        write!(f, "{}{note}", self.path.display())
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if self.is_temporary
            && self.path.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "could not remove the data");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(DataFolder::new(Some(&folder.path().join("new"))).is_ok());
        assert!(DataFolder::new(Some(folder.path())).is_ok());
        std::fs::write(folder.path().join("LOCK"), "").unwrap();
        let refused = DataFolder::new(Some(folder.path())).unwrap_err().to_string();
        assert!(refused.contains("highwater serve --data"), "{refused}");
        assert!(folder.path().exists());
    }
}
