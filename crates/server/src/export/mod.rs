//! `highwater export`: measurements, or the answer to a query, as Parquet files.
//!
//! The server writes Parquet, piece by piece; here the pieces become a file, under another name
//! until it is whole. Reading order: `file_name`, `whole_file`.

mod file_name;
mod whole_file;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use highwater_core::Timestamp;
use serde_json::{Value, json};

use self::whole_file::WholeFile;
use crate::cli::client::{Client, Host, Payload, quoted};
use crate::cli::{counted, print};

pub(crate) use self::file_name::measurement_of_stem;

/// What to export.
#[derive(Args, Debug)]
pub(crate) struct ExportFlags {
    #[command(flatten)]
    host: Host,
    /// The database
    #[arg(long)]
    db: String,
    /// Write the answer to this query, to one file
    #[arg(long, value_name = "SQL", conflicts_with_all = ["measurements", "from", "to"])]
    query: Option<String>,
    /// Only points from this time on
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    from: Option<Timestamp>,
    /// Only points before this time
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    to: Option<Timestamp>,
    /// The folder for one file per measurement, or one file, whose name ends with .parquet
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Measurements or aggregates; without any, all measurements
    measurements: Vec<String>,
}

/// Writes the files and says what is in them.
pub(crate) fn run(flags: &ExportFlags) -> anyhow::Result<()> {
    let server = Server { client: Client::new(&flags.host), db: &flags.db };
    let is_file = flags.out.extension().is_some_and(|extension| extension == "parquet");
    if let Some(query) = &flags.query {
        ensure!(is_file, "--query goes to one file, so --out has to end with .parquet");
        return server.export(query, &flags.out);
    }
    let measurements = match flags.measurements.as_slice() {
        [] => server.measurements()?,
        named => named.to_vec(),
    };
    if is_file {
        let [measurement] = measurements.as_slice() else {
            bail!(
                "{} measurements do not go into one file; give --out a folder",
                measurements.len()
            )
        };
        return server.export(&flags.query_of(measurement), &flags.out);
    }
    let folder = &flags.out;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("could not make the folder {}", folder.display()))?;
    for measurement in &measurements {
        let file = folder.join(file_name::of_measurement(measurement));
        server.export(&flags.query_of(measurement), &file)?;
    }
    Ok(())
}

impl ExportFlags {
    fn query_of(&self, measurement: &str) -> String {
        let mut query = format!("SELECT * FROM {}", quoted(measurement));
        let bounds = [self.from.map(|from| ("time >=", from)), self.to.map(|to| ("time <", to))];
        for (at, (condition, time)) in bounds.into_iter().flatten().enumerate() {
            let word = if at == 0 { "WHERE" } else { "AND" };
            query.push_str(&format!(" {word} {condition} '{time}'"));
        }
        query
    }
}

/// A database of a server.
struct Server<'a> {
    client: Client,
    db: &'a str,
}

impl Server<'_> {
    /// All measurements; aggregates are made of them.
    fn measurements(&self) -> anyhow::Result<Vec<String>> {
        let query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' \
                     AND table_name NOT IN (SELECT name FROM system.aggregates) ORDER BY 1";
        let ask = self.ask(query, "json");
        let answer = self.client.json("POST", "/api/v3/query_sql", &[], Payload::Json(ask))?;
        let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        let names = rows.iter().filter_map(|row| Some(row["table_name"].as_str()?.to_owned()));
        let names: Vec<String> = names.collect();
        ensure!(!names.is_empty(), "there are no measurements in {}", self.db);
        Ok(names)
    }

    /// Writes the answer to a query to a file, which is there whole or not at all.
    fn export(&self, query: &str, path: &Path) -> anyhow::Result<()> {
        let payload = Payload::Json(self.ask(query, "parquet"));
        let answer = self.client.send("POST", "/api/v3/query_sql", &[], payload)?;
        let (rows, bytes) = WholeFile::at(path).write(answer.into_body().into_reader())?;
        print(&format!(
            "{}: {}, {}\n",
            path.display(),
            counted(rows, "row"),
            counted(bytes, "byte")
        ))
    }

    fn ask(&self, query: &str, format: &str) -> Value {
        json!({ "db": self.db, "q": query, "format": format })
    }
}
