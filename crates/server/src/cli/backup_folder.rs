//! A folder with a backup: the files of a data folder, and a mark that says what it is.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

/// The mark; a data folder in use has none.
const MARK: &str = "HIGHWATER-BACKUP";
const MARK_TEXT: &str = "A backup of Highwater. `highwater restore` makes a data folder of it.\n";
/// What the mark says of the database, from its first backup on.
const MARK_DATABASE: &str = "database ";
/// Folders of files that belong to a backup.
const PARTS: [&str; 3] = ["segments", "wal", "manifest"];

/// A folder with a backup in it, or room for one.
#[derive(Debug)]
pub(super) struct BackupFolder {
    root: PathBuf,
    /// Locked while somebody writes the backup.
    mark: File,
}

impl BackupFolder {
    /// Opens a backup, or makes one of a folder that is empty or not there.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        fs::create_dir_all(path).with_context(|| format!("could not make {shown}"))?;
        let is_empty = fs::read_dir(path)?.next().is_none();
        if is_empty {
            fs::write(path.join(MARK), MARK_TEXT)
                .with_context(|| format!("could not write to {shown}"))?;
        }
        let folder = BackupFolder::open(path)
            .with_context(|| format!("{shown} is not empty; choose another folder"))?;
        match folder.mark.try_lock() {
            Ok(()) => Ok(folder),
            Err(TryLockError::WouldBlock) => bail!("another backup to {shown} is under way"),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("could not lock {shown}"))
            }
        }
    }

    /// Opens a backup.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let mark = File::open(path.join(MARK));
        let mark = mark.with_context(|| format!("{} is no backup", path.display()))?;
        Ok(BackupFolder { root: path.to_owned(), mark })
    }

    /// Makes it the backup of the database with this identity.
    ///
    /// # Errors
    /// If it is the backup of another one.
    pub(super) fn claim(&self, identity: &str) -> anyhow::Result<()> {
        let mark = self.root.join(MARK);
        let text = fs::read_to_string(&mark)?;
        match text.lines().find_map(|line| line.strip_prefix(MARK_DATABASE)) {
            Some(known) if known != identity => bail!(
                "{} is the backup of another database; choose another folder",
                self.root.display()
            ),
            Some(_) => Ok(()),
            None => Ok(fs::write(&mark, format!("{text}{MARK_DATABASE}{identity}\n"))?),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    /// Paths of all files, relative to the folder, with `/` between names.
    pub(super) fn files(&self) -> anyhow::Result<HashSet<String>> {
        let mut found = HashSet::new();
        for part in PARTS {
            collect(&self.root, part.to_owned(), &mut found)?;
        }
        Ok(found)
    }

    /// The bytes of a file from `start` on.
    pub(super) fn read_from(&self, path: &str, start: u64) -> anyhow::Result<Vec<u8>> {
        let place = self.place(path)?;
        let read = || {
            let (mut file, mut bytes) = (File::open(&place)?, Vec::new());
            file.seek(SeekFrom::Start(start))?;
            file.read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        read().with_context(|| format!("could not read {}", place.display()))
    }

    /// Writes a file of `length` bytes, whole or not at all, durably.
    pub(super) fn write(
        &self,
        path: &str,
        bytes: &mut dyn Read,
        length: u64,
    ) -> anyhow::Result<()> {
        let file = self.place(path)?;
        let mut write = || {
            let folder = file.parent().unwrap_or(&self.root);
            fs::create_dir_all(folder)?;
            let unfinished = self.root.join("unfinished");
            let mut written = File::create(&unfinished)?;
            if std::io::copy(bytes, &mut written)? != length {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            written.sync_all()?;
            fs::rename(&unfinished, &file)?;
            File::open(folder)?.sync_all()
        };
        write().with_context(|| format!("could not write {}", file.display()))
    }

    /// Removes a file that is there.
    pub(super) fn remove(&self, path: &str) -> anyhow::Result<()> {
        let file = self.place(path)?;
        fs::remove_file(&file).with_context(|| format!("could not remove {}", file.display()))
    }

    /// Where a file is; it must belong to a backup and not lead out of the folder.
    fn place(&self, path: &str) -> anyhow::Result<PathBuf> {
        let relative = Path::new(path);
        let is_inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
        let first = relative.components().next().map(|part| part.as_os_str().to_owned());
        if !is_inside || !PARTS.iter().any(|part| first.as_deref() == Some(part.as_ref())) {
            bail!("{path} is no file of a backup");
        }
        Ok(self.root.join(relative))
    }
}

fn collect(root: &Path, below: String, found: &mut HashSet<String>) -> anyhow::Result<()> {
    let folder = root.join(&below);
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = format!("{below}/{name}");
        if entry.file_type()?.is_dir() {
            collect(root, path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let backup = BackupFolder::create(folder.path()).unwrap();
        for path in ["../x", "segments/../../x", "/etc/x", "LOCK", "", "segmentsx/y"] {
            assert!(backup.write(path, &mut &b"x"[..], 1).is_err(), "{path}");
        }
        backup.write("segments/a/b.parquet", &mut &b"xy"[..], 2).unwrap();
        assert!(backup.write("segments/a/b.parquet", &mut &b"z"[..], 2).is_err());
        assert_eq!(backup.read_from("segments/a/b.parquet", 1).unwrap(), b"y");
        assert_eq!(backup.files().unwrap(), HashSet::from(["segments/a/b.parquet".to_owned()]));
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("precious"), "x").unwrap();
        assert!(BackupFolder::create(other.path()).is_err());
    }
}
