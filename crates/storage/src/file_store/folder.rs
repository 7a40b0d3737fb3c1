//! Writing into a local folder so that it survives a power cut.
//!
//! An object is written and synced under `unfinished/`, then linked to its place, then the folder
//! that names it is synced: at no moment can a crash show half of it.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::log::{LocalLog, LogBytes};
use super::{PutKind, io as io_error, taken};
use crate::error::StorageError;

const UNFINISHED: &str = "unfinished";

/// A local data folder.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// Folders whose own names are known to be durable.
    durable: Mutex<HashSet<PathBuf>>,
    next_unfinished: AtomicU64,
}

impl Folder {
    /// Opens `root`, creating it and its parents as needed.
    pub(super) fn open(root: &Path) -> io::Result<Folder> {
        let absolute = std::path::absolute(root)?;
        // The folder itself may have been created a moment ago, to take its lock.
        let is_new = |folder: &&Path| *folder == absolute || !folder.exists();
        let new = absolute.ancestors().take_while(is_new);
        let holders: Vec<&Path> = new.filter_map(Path::parent).collect();
        fs::create_dir_all(&absolute)?;
        holders.iter().rev().try_for_each(|holder| sync_folder(holder))?;
        let root = absolute.canonicalize()?;
        let durable = Mutex::new(HashSet::from([root.clone()]));
        Ok(Folder { root, durable, next_unfinished: AtomicU64::new(0) })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn put(&self, path: &str, bytes: &[u8], kind: PutKind) -> Result<(), StorageError> {
        let unfinished = self.unfinished_path().map_err(|e| io_error("write", path, e))?;
        let result = self.put_through(&unfinished, path, bytes, kind);
        // After a rename it is gone; after a link or a failure it is not needed.
        let removed = match fs::remove_file(&unfinished) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(io_error("delete", path, e)),
            _ => Ok(()),
        };
        result.and(removed)
    }

    fn put_through(
        &self,
        unfinished: &Path,
        path: &str,
        bytes: &[u8],
        kind: PutKind,
    ) -> Result<(), StorageError> {
        let write = || {
            let mut file = File::create(unfinished)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            let target = self.root.join(path);
            let parent = self.create_parents(&target)?;
            match kind {
                PutKind::Create => fs::hard_link(unfinished, &target)?,
                PutKind::Overwrite => fs::rename(unfinished, &target)?,
            }
            sync_folder(&parent)
        };
        write().map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => taken(path),
            _ => io_error("write", path, e),
        })
    }

    pub(super) fn create_log(&self, path: &str) -> Result<LocalLog, StorageError> {
        let target = self.root.join(path);
        let create = || {
            let parent = self.create_parents(&target)?;
            let file = OpenOptions::new().append(true).create_new(true).open(&target)?;
            file.sync_all()?;
            sync_folder(&parent)?;
            Ok(file)
        };
        match create() {
            Ok(file) => Ok(LocalLog::new(path, file)),
            Err(e) if io::Error::kind(&e) == ErrorKind::AlreadyExists => Err(taken(path)),
            Err(e) => Err(io_error("create", path, e)),
        }
    }

    /// A log to read from; `None` if there is none.
    pub(super) fn open_log(&self, path: &str) -> Result<Option<LogBytes>, StorageError> {
        let open = || {
            let file = File::open(self.root.join(path))?;
            let len = file.metadata()?.len();
            Ok(LogBytes::File { path: path.to_owned(), file, len })
        };
        match open() {
            Err(e) if io::Error::kind(&e) == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some).map_err(|e| io_error("read", path, e)),
        }
    }

    pub(super) fn truncate(&self, path: &str, len: u64) -> Result<(), StorageError> {
        let truncate = || {
            let file = OpenOptions::new().write(true).open(self.root.join(path))?;
            file.set_len(len)?;
            file.sync_all()
        };
        truncate().map_err(|e| io_error("truncate", path, e))
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let rename = || {
            let target = self.root.join(to);
            let parent = self.create_parents(&target)?;
            fs::rename(self.root.join(from), &target)?;
            sync_folder(&parent)
        };
        rename().map_err(|e| io_error("move", from, e))
    }

    pub(super) fn remove_unfinished(&self) -> Result<(), StorageError> {
        match fs::remove_dir_all(self.root.join(UNFINISHED)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(io_error("delete", UNFINISHED, e)),
            _ => Ok(()),
        }
    }

    fn unfinished_path(&self) -> io::Result<PathBuf> {
        let folder = self.root.join(UNFINISHED);
        fs::create_dir_all(&folder)?;
        Ok(folder.join(self.next_unfinished.fetch_add(1, Ordering::Relaxed).to_string()))
    }

    /// Makes the folder that holds `target` exist durably and returns it.
    fn create_parents(&self, target: &Path) -> io::Result<PathBuf> {
        let parent = target.parent().unwrap_or(&self.root).to_owned();
        let mut durable = self.durable.lock();
        let new: Vec<&Path> = parent.ancestors().take_while(|f| !durable.contains(*f)).collect();
        fs::create_dir_all(&parent)?;
        for folder in new.iter().rev() {
            sync_folder(folder.parent().unwrap_or(&self.root))?;
        }
        durable.extend(new.into_iter().map(Path::to_owned));
        Ok(parent)
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
