//! Which object store a data folder belongs to: the file `OBJECT-STORE` in it.
//!
//! The log of a folder goes with the manifest and the segments of one bucket. Opened with another
//! one, acknowledged points would be lost, so that is refused. The bytes are described in
//! `docs/format/object-store.md`.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::BucketUrl;
use crate::error::StorageError;
use crate::manifest::ManifestState;
use crate::wal::log_path;

/// Name of the file in the data folder.
pub(crate) const MARK_FILE: &str = "OBJECT-STORE";
const HEADER: &str = "highwater-object-store 1";

/// What a data folder knows of its object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreMark {
    pub(crate) url: BucketUrl,
    /// The last opening from this folder, and those tried since. A copy of the folder that was
    /// opened elsewhere has others.
    pub(crate) openings: Vec<Arc<str>>,
    /// Identity of the database, once it has been opened here.
    pub(crate) database: Option<Arc<str>>,
}

impl StoreMark {
    /// The mark of a folder that is new to this bucket.
    pub(crate) fn new(url: BucketUrl) -> StoreMark {
        StoreMark { url, openings: Vec::new(), database: None }
    }

    /// The mark in a data folder; `None` if it belongs to no object store. Blocking.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if it is damaged, [`StorageError::Io`] if it cannot be read.
    pub(crate) fn read(folder: &Path) -> Result<Option<StoreMark>, StorageError> {
        match fs::read_to_string(folder.join(MARK_FILE)) {
            Ok(text) => StoreMark::parse(&text).map(Some).ok_or_else(|| StorageError::Corrupt {
                path: MARK_FILE.to_owned(),
                offset: 0,
                reason: "it is no mark of an object store that this release reads".to_owned(),
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::Io {
                action: "read",
                path: MARK_FILE.to_owned(),
                source: Box::new(error),
            }),
        }
    }

    /// The mark for a data folder that is to be opened with this setting, `None` for a folder
    /// without object store. A new mark is not in the folder yet. Blocking.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if the folder belongs elsewhere, and those of reading.
    pub(crate) fn of_folder(
        folder: &Path,
        setting: Option<&str>,
    ) -> Result<Option<StoreMark>, StorageError> {
        let wanted = setting.map(str::parse::<BucketUrl>).transpose()?;
        let shown = folder.display();
        let refused = match (StoreMark::read(folder)?, wanted) {
            (None, Some(_)) if folder.join("manifest").is_dir() => format!(
                "data folder {shown} holds a database of its own; choose another folder for the \
                 object store, or leave storage.object_store out"
            ),
            (None, wanted) => return Ok(wanted.map(StoreMark::new)),
            (Some(mark), Some(url)) if mark.url == url => return Ok(Some(mark)),
            (Some(mark), Some(url)) => format!(
                "data folder {shown} belongs to {}, not to {url}; set storage.object_store to \
                 that, or choose another folder",
                mark.url
            ),
            (Some(mark), None) => format!(
                "data folder {shown} has only the log of a database in {url}; set \
                 storage.object_store to {url}",
                url = mark.url
            ),
        };
        Err(StorageError::Invalid(refused))
    }

    /// Whether the database was opened from this folder last, so that the logs are here.
    pub(crate) fn had_open(&self, state: &ManifestState) -> bool {
        state.opening.as_ref().is_some_and(|last| self.openings.contains(last))
    }

    /// The error that names the logs that are in another folder.
    pub(crate) fn logs_elsewhere(&self, state: &ManifestState) -> StorageError {
        let logs: Vec<String> = state.logs.iter().map(|&log| log_path(log)).collect();
        StorageError::LogsElsewhere { logs: logs.join(", "), url: self.url.to_string() }
    }

    fn parse(text: &str) -> Option<StoreMark> {
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) || !text.ends_with('\n') {
            return None;
        }
        let url = lines.next()?.strip_prefix("url ")?.parse().ok()?;
        let mut mark = StoreMark::new(url);
        for line in lines {
            match line.split_once(' ')? {
                ("database", identity) => mark.database = Some(identity.into()),
                ("opening", opening) => mark.openings.push(opening.into()),
                _ => return None,
            }
        }
        Some(mark)
    }

    /// What the file holds.
    pub(crate) fn text(&self) -> String {
        let database = self.database.iter().map(|identity| format!("database {identity}\n"));
        let openings = self.openings.iter().map(|opening| format!("opening {opening}\n"));
        let rest: String = database.chain(openings).collect();
        format!("{HEADER}\nurl {}\n{rest}", self.url)
    }
}

/// 32 hex digits that nothing else has: every new hasher of the standard library has other keys,
/// which come from the operating system.
pub(crate) fn unique_text() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_bucket() {
        let folder = tempfile::tempdir().unwrap();
        let of_folder = |setting| StoreMark::of_folder(folder.path(), setting);
        let refusal = |setting| of_folder(setting).unwrap_err().to_string();
        assert_eq!(of_folder(None).unwrap(), None);
        let mut mark = of_folder(Some("s3://b/one/")).unwrap().unwrap();
        fs::write(folder.path().join(MARK_FILE), mark.text()).unwrap();
        assert_eq!(of_folder(Some("s3://b/one")).unwrap(), Some(mark.clone()));
        mark.database = Some("17-a".into());
        mark.openings = vec!["b1".into(), "b2".into()];
        fs::write(folder.path().join(MARK_FILE), mark.text()).unwrap();
        assert_eq!(of_folder(Some("s3://b/one")).unwrap(), Some(mark.clone()));
        assert!(refusal(None).contains("set storage.object_store to s3://b/one"));
        assert!(refusal(Some("s3://b/two")).contains("belongs to s3://b/one"));
        let torn = &mark.text()[..mark.text().len() - 1];
        fs::write(folder.path().join(MARK_FILE), torn).unwrap();
        assert!(refusal(Some("s3://b/one")).contains(MARK_FILE));

        let local = tempfile::tempdir().unwrap();
        fs::create_dir(local.path().join("manifest")).unwrap();
        let refused = StoreMark::of_folder(local.path(), Some("s3://b/one")).unwrap_err();
        assert!(refused.to_string().contains("a database of its own"), "{refused}");
        assert_ne!(unique_text(), unique_text());
    }
}
