//! `highwater write`: line protocol from a file or from stdin.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::client::{Client, Host, Payload};

/// Bodies longer than this are compressed on their way.
const COMPRESS_BYTES: usize = 64 << 10;
/// How gzip files start.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What to write.
#[derive(Args, Debug)]
pub(super) struct WriteFlags {
    #[command(flatten)]
    host: Host,
    /// The database; it comes into being with its first point
    #[arg(long)]
    db: String,
    /// Unit of the times: ns, us, ms, s or auto
    #[arg(long, default_value = "auto")]
    precision: String,
    /// Store all lines or none, instead of the good ones
    #[arg(long)]
    all_or_nothing: bool,
    /// The file of lines, gzip or not; `-` is stdin
    file: PathBuf,
}

pub(super) fn run(flags: &WriteFlags) -> anyhow::Result<()> {
    let lines = read(&flags.file)?;
    let payload = if lines.starts_with(&GZIP_MAGIC) {
        Payload::Gzip(lines)
    } else if lines.len() > COMPRESS_BYTES {
        Payload::Gzip(compressed(&lines)?)
    } else {
        Payload::Text(lines)
    };
    let accept_partial = if flags.all_or_nothing { "false" } else { "true" };
    let query = [
        ("db", flags.db.as_str()),
        ("precision", &flags.precision),
        ("accept_partial", accept_partial),
    ];
    Client::new(&flags.host).send("POST", "/api/v3/write_lp", &query, payload)?;
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut lines = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut lines).context("could not read stdin")?;
        return Ok(lines);
    }
    std::fs::read(file).with_context(|| format!("could not read {}", file.display()))
}

fn compressed(lines: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(lines)?;
    encoder.finish()
}
