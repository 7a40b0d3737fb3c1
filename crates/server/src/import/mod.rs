//! `highwater import`: files of line protocol, CSV or Parquet into a running server.
//!
//! A file is read batch by batch, everything becomes line protocol, and what was stored twice is
//! stored once: a point is known by its measurement, tags and time.
//!
//! Reading order: `input` (what a file is), `batch`, `lines`, `columns`, `points`, `cell_type`,
//! `csv_rows`, `parquet_rows` (files to batches), `sender`, `ledger`, `resume` (batches to the
//! server), `dry_run`, `progress`, `summary`.

pub(crate) mod batch;
mod cell_type;
mod columns;
mod csv_rows;
mod dry_run;
pub(crate) mod input;
mod ledger;
pub(crate) mod lines;
mod parquet_rows;
mod points;
mod progress;
mod resume;
mod sender;
mod summary;

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::Args;

use self::batch::{BatchSize, Source};
use self::columns::ColumnChoice;
use self::csv_rows::{CsvReading, CsvRows};
use self::dry_run::{DryRun, FileReport};
use self::input::{Format, Input};
use self::ledger::Ledger;
use self::lines::Lines;
use self::parquet_rows::{ParquetReading, ParquetRows};
use self::progress::Progress;
use self::resume::Resume;
use self::sender::{Answer, Job, Sender};
use crate::cli::client::{Client, Host};
use crate::cli::{counted, print};
use crate::export::measurement_of_stem;
use crate::line_protocol::Precision;

/// Bytes of line protocol after which a batch ends, however few lines it has.
const BATCH_BYTES: usize = 8 << 20;

/// What to import.
#[derive(Args, Debug)]
pub(crate) struct ImportFlags {
    #[command(flatten)]
    host: Host,
    /// The database; it comes into being with its first point
    #[arg(long)]
    db: String,
    /// What the files hold, where their names and first bytes do not say it
    #[arg(long)]
    format: Option<Format>,
    /// The measurement of a CSV or Parquet file; without it the name of the file
    #[arg(long, value_name = "NAME")]
    measurement: Option<String>,
    /// Columns of CSV or Parquet that are tags
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    tags: Option<Vec<String>>,
    /// Columns that are fields; without it all but the time and the tags
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    fields: Option<Vec<String>>,
    /// The column of the times: integers, RFC 3339, Arrow times or dates
    #[arg(long, value_name = "COLUMN", default_value = "time")]
    time: String,
    /// A text that means the same as an empty cell of a CSV file, such as NA
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,
    /// Unit of times that are integers
    #[arg(long, value_parser = ["ns", "us", "ms", "s", "auto"], default_value = "auto")]
    precision: String,
    /// Read everything, send nothing, and say what is there
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
    /// Lines in one request
    #[arg(long, value_name = "LINES", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch_lines: u64,
    /// Remember in this file how far the import is, and go on from there
    #[arg(long, value_name = "STATE")]
    resume: Option<PathBuf>,
    /// The files: .lp, .csv, also .gz and .zst of these, .parquet
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

impl ImportFlags {
    /// What decides which points files become, as text. The server may have moved meanwhile.
    fn request(&self) -> String {
        let ImportFlags { db, format, measurement, tags, fields, time, null, precision, .. } = self;
        format!(
            "into {db:?}, format {format:?}, measurement {measurement:?}, tags {tags:?}, fields \
             {fields:?}, time {time:?}, null {null:?}, precision {precision}"
        )
    }
}

/// Imports the files, or says what is in them.
pub(crate) fn run(flags: &ImportFlags) -> anyhow::Result<()> {
    let inputs = flags.files.iter().map(|file| Input::examine(file, flags.format));
    let inputs: Vec<Input> = inputs.collect::<anyhow::Result<_>>()?;
    let reading = Reading::of(flags)?;
    let progress = Progress::over(inputs.iter().map(|input| input.bytes).sum());
    if flags.dry_run {
        return describe(&inputs, &reading, &progress);
    }
    let resume = Resume::open(flags.resume.as_deref(), &flags.request(), &inputs)?;
    let ledger = Ledger::new(resume.progress());
    let sender = Sender::start(Client::new(&flags.host), &flags.db);
    Import { inputs: &inputs, reading: &reading, progress, resume, ledger }.run(sender)
}

/// How files become batches.
struct Reading<'a> {
    flags: &'a ImportFlags,
    choice: ColumnChoice,
    precision: Precision,
    size: BatchSize,
}

impl<'a> Reading<'a> {
    fn of(flags: &'a ImportFlags) -> anyhow::Result<Self> {
        let (time, tags, fields) = (flags.time.clone(), flags.tags.clone(), flags.fields.clone());
        let choice = ColumnChoice { time, tags, fields };
        let precision = flags.precision.parse().map_err(anyhow::Error::msg)?;
        let size = BatchSize { lines: usize::try_from(flags.batch_lines)?, bytes: BATCH_BYTES };
        Ok(Reading { flags, choice, precision, size })
    }

    /// The batches of a file after its first `skipped` lines or rows.
    fn open(
        &self,
        input: &Input,
        skipped: u64,
        progress: &Progress,
    ) -> anyhow::Result<Box<dyn Source>> {
        let bar = &progress.bar;
        let (choice, precision, size) = (&self.choice, self.precision, self.size);
        let measurement = &self.measurement_of(input);
        Ok(match input.format {
            Format::Lp => Box::new(Lines::new(input.open(bar)?, size, skipped)?),
            Format::Csv => {
                let null = self.flags.null.as_deref();
                let reading = CsvReading { measurement, choice, precision, null, size };
                Box::new(CsvRows::new(input.open(bar)?, &reading, skipped)?)
            }
            Format::Parquet => {
                let reading = ParquetReading { measurement, choice, precision, size };
                Box::new(ParquetRows::new(input, &reading, skipped, bar)?)
            }
        })
    }

    fn measurement_of(&self, input: &Input) -> String {
        match (&self.flags.measurement, input.format) {
            (Some(measurement), _) => measurement.clone(),
            (None, Format::Parquet) => measurement_of_stem(&input.stem()),
            (None, _) => input.stem(),
        }
    }

    /// The unit of the times in the batches of a file; CSV and Parquet become nanoseconds.
    fn precision_of(&self, input: &Input) -> &'a str {
        if input.format == Format::Lp { &self.flags.precision } else { "ns" }
    }
}

/// Reads everything and sends nothing.
fn describe(inputs: &[Input], reading: &Reading<'_>, progress: &Progress) -> anyhow::Result<()> {
    let (mut dry_run, mut refused) = (DryRun::default(), 0);
    for input in inputs {
        let mut report = FileReport::default();
        let precision = reading.precision_of(input).parse().map_err(anyhow::Error::msg)?;
        let mut read = || -> anyhow::Result<()> {
            let mut source = reading.open(input, 0, progress)?;
            while let Some(batch) = source.next()? {
                dry_run.read(&batch, precision, &mut report);
            }
            Ok(())
        };
        read().with_context(|| input.path.display().to_string())?;
        refused += report.refused_count;
        progress.bar.suspend(|| print(&report.text(input)))?;
    }
    progress.bar.finish_and_clear();
    if refused > 0 {
        bail!("{} would be refused", counted(refused, "point"));
    }
    Ok(())
}

/// An import that is running.
struct Import<'a> {
    inputs: &'a [Input],
    reading: &'a Reading<'a>,
    progress: Progress,
    resume: Resume,
    ledger: Ledger,
}

impl Import<'_> {
    fn run(mut self, sender: Sender) -> anyhow::Result<()> {
        let (before, _) = summary::totals(self.ledger.files());
        let sent = self.send_all(&sender, before);
        // Whatever happened, requests in flight end, and what they stored is noted.
        let rest: Vec<Answer> = sender.finish().collect();
        let answered = rest.into_iter().map(|answer| self.note(answer, before));
        let answered = answered.fold(Ok(()), anyhow::Result::and);
        self.progress.bar.finish_and_clear();
        let elapsed = self.progress.stopwatch.elapsed();
        print(&summary::text(self.inputs, &self.ledger, before, elapsed))?;
        answered.and(sent)?;
        let is_complete = self.ledger.files().iter().all(|file| file.is_complete);
        ensure!(is_complete, "some batches have no answer; {}", self.how_to_go_on());
        let (_, refused) = summary::totals(self.ledger.files());
        self.resume.remove()?;
        if refused > 0 {
            bail!("{} not stored", counted(refused, "point"));
        }
        Ok(())
    }

    fn send_all(&mut self, sender: &Sender, before: u64) -> anyhow::Result<()> {
        for (file, input) in self.inputs.iter().enumerate() {
            if self.ledger.files()[file].is_complete {
                self.progress.bar.inc(input.bytes);
                continue;
            }
            if !self.send_file(file, input, sender, before)? {
                break;
            }
        }
        Ok(())
    }

    /// Sends the batches of a file; `false` if requests fail, which their answers will tell.
    fn send_file(
        &mut self,
        file: usize,
        input: &Input,
        sender: &Sender,
        before: u64,
    ) -> anyhow::Result<bool> {
        let skipped = self.ledger.files()[file].done;
        let named = || input.path.display().to_string();
        let mut source = self.reading.open(input, skipped, &self.progress).with_context(named)?;
        let precision = self.reading.precision_of(input);
        while let Some(mut batch) = source.next().with_context(named)? {
            let number = self.ledger.send(file, &mut batch);
            if !sender.send(Job { number, precision: precision.to_owned(), batch }) {
                return Ok(false);
            }
            for answer in sender.answers() {
                self.note(answer, before)?;
            }
        }
        self.ledger.end_file(file);
        Ok(true)
    }

    /// Notes an answer, in the state file too.
    fn note(&mut self, (number, answer): Answer, before: u64) -> anyhow::Result<()> {
        let refused = answer.with_context(|| self.how_to_go_on())?;
        self.ledger.answer(number, refused);
        let (points, _) = summary::totals(self.ledger.files());
        self.progress.show(points - before);
        self.resume.save(self.ledger.files())
    }

    fn how_to_go_on(&self) -> String {
        match self.resume.path() {
            Some(path) => format!(
                "stopped; {} knows how far it is, so the same command goes on from there",
                path.display()
            ),
            None => "stopped; run the same command again: what is stored already stays as it is, \
                     and with --resume STATE a next time goes on from where it stopped"
                .to_owned(),
        }
    }
}
