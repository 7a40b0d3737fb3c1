//! `highwater backup`: what a running server holds, as the files of a folder.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use highwater_storage::{FolderCheck, StorageError, check_folder};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::backup_folder::BackupFolder;
use super::client::{Client, Host, Payload};
use crate::demo::progress;
use crate::respond::in_one_line;

/// Where to copy to.
#[derive(Args, Debug)]
pub(super) struct BackupFlags {
    #[command(flatten)]
    host: Host,
    /// The folder of the backup: an earlier one, which is brought up to date, or a new one
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// The first line of the answer.
#[derive(Debug, Deserialize)]
struct Head {
    bytes: u64,
    identity: String,
    segments: Vec<HeadSegment>,
}

#[derive(Debug, Deserialize)]
struct HeadSegment {
    path: String,
    bytes: u64,
    footer_at: u64,
    footer_crc: u32,
}

/// Each further line.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Part {
    File { path: String, bytes: u64 },
    End { complete: bool },
}

/// What was copied.
struct Copied {
    files: HashSet<String>,
    bytes: u64,
}

pub(super) fn run(flags: &BackupFlags) -> anyhow::Result<()> {
    let folder = BackupFolder::create(&flags.folder)?;
    let client = Client::new(&flags.host);
    let (mut check, mut bytes) = bring_up_to_date(&client, &folder)?;
    let damaged = check.problems.iter().filter_map(StorageError::damaged_file);
    let damaged: HashSet<String> = damaged.map(str::to_owned).collect();
    if !damaged.is_empty() {
        // An earlier backup has rotted; what is missing is copied again.
        damaged.iter().try_for_each(|path| folder.remove(path))?;
        let again;
        (check, again) = bring_up_to_date(&client, &folder)?;
        bytes += again;
    }
    if let Some(problem) = check.problems.first() {
        bail!("the backup is not sound: {}", in_one_line(problem));
    }
    let FolderCheck { segments, rows, .. } = check;
    super::print(&format!(
        "{}: {segments} segments with {rows} rows; {bytes} bytes were new; all of it is sound\n",
        flags.folder.display()
    ))
}

/// Copies what is new, removes what is gone, checks everything, and says how many bytes came.
fn bring_up_to_date(client: &Client, folder: &BackupFolder) -> anyhow::Result<(FolderCheck, u64)> {
    let copied = loop {
        if let Some(copied) = copy(client, folder)? {
            break copied;
        }
    };
    for path in folder.files()?.difference(&copied.files) {
        folder.remove(path)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok((runtime.block_on(check_folder(folder.path(), |_, _| {}))?, copied.bytes))
}

/// Copies what is new; `None` if files in the folder turned out to be something else than their
/// names say, and are removed now.
fn copy(client: &Client, folder: &BackupFolder) -> anyhow::Result<Option<Copied>> {
    let have = folder.files()?;
    let body = Payload::Json(json!({"have": have}));
    let answer = client.send("POST", "/api/v1/backup", &[], body)?;
    let mut answer = BufReader::new(answer.into_body().into_reader());
    let head: Head = read_line(&mut answer)?;
    folder.claim(&head.identity)?;
    let segments: BTreeMap<&str, &HeadSegment> =
        head.segments.iter().map(|segment| (&*segment.path, segment)).collect();
    let is_other = |path: &&String| match segments.get(path.as_str()) {
        Some(segment) => folder
            .read_from(path, segment.footer_at)
            .map_or(true, |footer| !segment.has_footer(&footer)),
        None => false,
    };
    let others: Vec<&String> = have.iter().filter(is_other).collect();
    if !others.is_empty() {
        others.into_iter().try_for_each(|path| folder.remove(path))?;
        return Ok(None);
    }
    let bar = progress::bar(head.bytes, "bytes", true);
    let mut files: HashSet<String> = segments.keys().map(|path| (*path).to_owned()).collect();
    loop {
        match read_line(&mut answer)? {
            Part::File { path, bytes } => {
                let mut content = (&mut answer).take(bytes);
                let written = folder.write(&path, &mut bar.wrap_read(&mut content), bytes);
                written.context("the backup is not complete; run the command again")?;
                files.insert(path);
            }
            Part::End { complete } if complete => break,
            Part::End { .. } => bail!("the server could not complete the backup"),
        }
    }
    bar.finish_and_clear();
    Ok(Some(Copied { files, bytes: head.bytes }))
}

impl HeadSegment {
    /// Whether a file that ends with these bytes is this segment, as far as its footer tells.
    fn has_footer(&self, footer: &[u8]) -> bool {
        self.footer_at + footer.len() as u64 == self.bytes
            && crc32c::crc32c(footer) == self.footer_crc
    }
}

fn read_line<T: DeserializeOwned>(answer: &mut impl BufRead) -> anyhow::Result<T> {
    let mut line = String::new();
    answer.read_line(&mut line).context("the server broke off; run the command again")?;
    if line.is_empty() {
        bail!("the server broke off; run the command again");
    }
    serde_json::from_str(&line).context("the answer is no backup")
}
