//! `highwater quarantine`: damaged segments of a data folder are given up, so that the rest of it
//! answers again.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use highwater_aggregation::{Aggregates, AggregationSettings, Loss};
use highwater_core::SystemClock;
use highwater_query::Limits;
use highwater_storage::{Engine, Settings, Version, data_folder};

use crate::demo::{grouped, progress};

/// What to give up.
#[derive(Args, Debug)]
pub(super) struct QuarantineFlags {
    /// The data folder; no server may be running on it
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The segment to give up, as `highwater check` names it
    #[arg(long, value_name = "PATH", required_unless_present = "all_damaged")]
    segment: Option<PathBuf>,
    /// Read everything and give up all segments that are damaged
    #[arg(long, conflicts_with_all = ["segment", "force"])]
    all_damaged: bool,
    /// Give the segment up even if it is sound
    #[arg(long)]
    force: bool,
    /// Do it; without this the command only says what would be lost
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(flags: &QuarantineFlags) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let engine = open(flags).await?;
        let outcome = quarantine(flags, &engine).await;
        let closed = engine.close().await;
        outcome?;
        Ok(closed?)
    })
}

async fn open(flags: &QuarantineFlags) -> anyhow::Result<Engine> {
    let object_store = data_folder(&flags.data)?.object_store;
    let settings = Settings { object_store, ..Settings::default() };
    Ok(Engine::open(&flags.data, settings, Arc::new(SystemClock)).await?)
}

async fn quarantine(flags: &QuarantineFlags, engine: &Engine) -> anyhow::Result<()> {
    let settings = AggregationSettings::default();
    let aggregates = Aggregates::open(engine.clone(), settings, Limits::default())?;
    let paths = match &flags.segment {
        Some(path) => vec![within(path, &flags.data)],
        None => damaged(engine).await?,
    };
    for path in &paths {
        let loss = match flags.yes {
            true => aggregates.quarantine(path, flags.force).await?,
            false => aggregates.plan_quarantine(path, flags.force).await?,
        };
        super::print(&described(&loss, flags.yes))?;
    }
    let segments = super::counted(paths.len() as u64, "segment");
    match (flags.yes, paths.is_empty()) {
        (_, true) => super::print("no segment is damaged\n"),
        (true, false) => {
            super::print(&format!("{segments} given up; system.quarantine lists them\n"))
        }
        (false, false) => bail!("nothing has changed; add --yes to give up {segments}"),
    }
}

/// The path within the data folder, also of one that leads there.
fn within(path: &std::path::Path, data: &std::path::Path) -> String {
    path.strip_prefix(data).unwrap_or(path).display().to_string()
}

/// Reads every segment and returns the paths of those that are damaged.
async fn damaged(engine: &Engine) -> anyhow::Result<Vec<String>> {
    let paths = |version: &Version| -> Vec<(String, u64)> {
        let all = version.all_measurements().flat_map(|one| one.segments());
        all.map(|segment| (segment.path.clone(), segment.bytes)).collect()
    };
    let segments = paths(&engine.version());
    let bar = progress::bar(segments.iter().map(|(_, bytes)| bytes).sum(), "bytes", true);
    let mut damaged = Vec::new();
    for (path, bytes) in segments {
        if engine.examine_segment(&path).await?.damage.is_some() {
            damaged.push(path);
        }
        bar.inc(bytes);
    }
    bar.finish_and_clear();
    Ok(damaged)
}

fn described(loss: &Loss, is_done: bool) -> String {
    let Loss { segment, kept, rows, bytes, summary, damage, .. } = loss;
    let damage = damage.as_deref().unwrap_or("sound");
    let (rows, bytes) = (grouped(*rows), grouped(*bytes));
    let kept = if is_done { format!("  kept as {kept}\n") } else { String::new() };
    format!("{segment}: {rows} rows, {bytes} bytes\n  {damage}\n  {summary}\n{kept}")
}
