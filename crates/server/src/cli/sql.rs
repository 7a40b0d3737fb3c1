//! `highwater sql`: a statement, a script of statements, or a prompt.

mod commands;
mod completion;
mod prompt;
mod script;
mod session;

use std::io::{IsTerminal, Read};

use anyhow::Context;
use clap::Args;

use super::client::Host;
use session::{Asking, Session};

/// What to ask.
#[derive(Args, Debug)]
pub(super) struct SqlFlags {
    #[command(flatten)]
    host: Host,
    #[command(flatten)]
    asking: Asking,
    /// One statement; `-` reads statements that end with semicolons from stdin, and so does nothing
    /// at all unless stdin is a terminal, which gets a prompt
    sql: Option<String>,
}

pub(super) fn run(flags: &SqlFlags) -> anyhow::Result<()> {
    let session = Session::new(&flags.host, flags.asking.clone());
    match flags.sql.as_deref() {
        None if std::io::stdin().is_terminal() => prompt::run(session),
        None | Some("-") => {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text).context("could not read stdin")?;
            run_script(&session, &text)
        }
        Some(sql) => session.execute(sql),
    }
}

/// Runs statements one by one, until one fails.
fn run_script(session: &Session, text: &str) -> anyhow::Result<()> {
    let script::Statements { whole, rest } = script::split(text);
    let rest = Some(rest).filter(|rest| !rest.is_empty());
    let statements: Vec<&str> = whole.into_iter().chain(rest).collect();
    anyhow::ensure!(!statements.is_empty(), "there is no statement on stdin");
    let count = statements.len();
    for (at, sql) in statements.into_iter().enumerate() {
        let place = || format!("statement {} of {count}", at + 1);
        match count {
            1 => session.execute(sql)?,
            _ => session.execute(sql).with_context(place)?,
        }
    }
    Ok(())
}
