//! The prompt: statements over several lines, commands, history.

use std::path::PathBuf;

use anyhow::Context;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use super::commands::{self, Then};
use super::completion::Words;
use super::script::{Statements, split};
use super::session::Session;
use crate::cli::print;

/// Statements that are remembered.
const REMEMBERED: usize = 1_000;
/// In the home folder.
const HISTORY_FILE: &str = ".highwater_history";

type Line = Editor<Words, FileHistory>;

/// Asks for statements and commands until the end.
///
/// # Errors
/// If the server cannot be reached at the start, or the terminal fails. What fails later is printed.
pub(super) fn run(mut session: Session) -> anyhow::Result<()> {
    let databases = session.databases()?;
    print("Highwater; \\? for help, \\q to leave\n")?;
    if let ([only], None) = (&databases[..], &session.asking.db) {
        session.asking.db = Some(only.clone());
    }
    let mut line = editor().context("the terminal cannot be read")?;
    line.set_helper(Some(Words::default()));
    learn(&mut line, &session);
    let mut typed = String::new();
    loop {
        let database = session.asking.db.as_deref().unwrap_or("highwater");
        let prompt = match typed.is_empty() {
            true => format!("{database}> "),
            false => format!("{}> ", ".".repeat(database.chars().count())),
        };
        match line.readline(&prompt) {
            Ok(more) => {
                if add(&mut session, &mut line, &mut typed, &more)? == Then::Leave {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => typed.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("the terminal cannot be read"),
        }
    }
    if let Some(file) = history_file() {
        let saved = line.save_history(&file);
        saved.with_context(|| format!("could not save the history to {}", file.display()))?;
    }
    Ok(())
}

fn editor() -> rustyline::Result<Line> {
    let config = Config::builder()
        .max_history_size(REMEMBERED)?
        .history_ignore_space(true)
        .auto_add_history(false)
        .completion_type(CompletionType::List)
        .build();
    let mut editor = Editor::with_config(config)?;
    if let Some(file) = history_file().filter(|file| file.exists()) {
        editor.load_history(&file)?;
    }
    Ok(editor)
}

fn history_file() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(HISTORY_FILE))
}

fn learn(line: &mut Line, session: &Session) {
    if let Some(words) = line.helper_mut() {
        words.learn(session);
    }
}

/// Takes a line in, and does what is complete with it.
fn add(
    session: &mut Session,
    line: &mut Line,
    typed: &mut String,
    more: &str,
) -> anyhow::Result<Then> {
    if let Some(command) = more.trim().strip_prefix('\\').filter(|_| typed.is_empty()) {
        line.add_history_entry(more)?;
        let database = session.asking.db.clone();
        let then = commands::run(session, command).unwrap_or_else(|error| told(&error));
        if session.asking.db != database {
            learn(line, session);
        }
        return Ok(then);
    }
    if !typed.is_empty() {
        typed.push('\n');
    }
    typed.push_str(more);
    let Statements { whole, rest } = split(typed);
    for sql in &whole {
        line.add_history_entry(format!("{sql};"))?;
        if let Err(error) = session.execute(sql) {
            told(&error);
        }
    }
    *typed = rest.to_owned();
    Ok(Then::GoOn)
}

/// Prints an error and goes on.
fn told(error: &anyhow::Error) -> Then {
    eprintln!("{error:#}");
    Then::GoOn
}
