//! The file that remembers how far an import is.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::input::Input;
use super::ledger::FileProgress;

/// A state file, or none.
#[derive(Debug)]
pub(super) struct Resume {
    path: Option<PathBuf>,
    state: State,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// What the import was asked for, but for its files.
    request: String,
    files: Vec<FileState>,
}

/// One file; another size or time of change makes it another file.
#[derive(Debug, Serialize, Deserialize)]
struct FileState {
    path: PathBuf,
    bytes: u64,
    modified_ns: u64,
    #[serde(flatten)]
    progress: FileProgress,
}

impl Resume {
    /// Reads the state file, if one is wanted and there.
    ///
    /// # Errors
    /// It cannot be read, or is of an import that was asked for something else.
    pub(super) fn open(
        path: Option<&Path>,
        request: &str,
        inputs: &[Input],
    ) -> anyhow::Result<Self> {
        let known = path.filter(|path| path.exists()).map(read).transpose()?;
        let other = known.as_ref().filter(|known| known.request != request);
        let other = other.map(|known| known.request.as_str()).unwrap_or_default();
        ensure!(
            other.is_empty(),
            "the state file is of another import: {other}; remove it to start anew"
        );
        let known = known.map_or_else(Vec::new, |known| known.files);
        let files =
            inputs.iter().map(|input| FileState::of(input, &known)).collect::<Result<_, _>>()?;
        Ok(Resume {
            path: path.map(Path::to_owned),
            state: State { request: request.to_owned(), files },
        })
    }

    /// How far each file is.
    pub(super) fn progress(&self) -> Vec<FileProgress> {
        self.state.files.iter().map(|file| file.progress.clone()).collect()
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Remembers how far each file is, all of it or, after a crash, what was remembered before.
    pub(super) fn save(&mut self, progress: &[FileProgress]) -> anyhow::Result<()> {
        for (file, progress) in self.state.files.iter_mut().zip(progress) {
            file.progress = progress.clone();
        }
        let Some(path) = &self.path else { return Ok(()) };
        let unwritable = || format!("could not write the state file {}", path.display());
        let text = serde_json::to_string_pretty(&self.state)?;
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        std::fs::write(&beside, text).with_context(unwritable)?;
        std::fs::rename(&beside, path).with_context(unwritable)
    }

    /// Everything is done: forgets it.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        match self.path.filter(|path| path.exists()) {
            Some(path) => std::fs::remove_file(&path)
                .with_context(|| format!("could not remove the state file {}", path.display())),
            None => Ok(()),
        }
    }
}

fn read(path: &Path) -> anyhow::Result<State> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("could not read the state file {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no state file", path.display()))
}

impl FileState {
    fn of(input: &Input, known: &[FileState]) -> anyhow::Result<Self> {
        let path = std::path::absolute(&input.path)?;
        let (bytes, modified_ns) = (input.bytes, input.modified_ns);
        let is_it = |known: &&FileState| {
            known.path == path && (known.bytes, known.modified_ns) == (bytes, modified_ns)
        };
        let progress = known.iter().find(is_it).map(|known| known.progress.clone());
        Ok(FileState { path, bytes, modified_ns, progress: progress.unwrap_or_default() })
    }
}
