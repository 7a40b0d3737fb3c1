//! Words of the prompt that begin with a backslash.

use super::session::{FORMATS, FRESHNESS, REWRITE, Session};
use crate::cli::print;

/// What `\?` prints.
const HELP: &str = r"
Statements end with a semicolon and may take several lines.

  \d             measurements, aggregates and tables
  \d NAME        columns of one of them
  \l             databases
  \c NAME        talk to another database
  \format NAME   print rows as pretty, csv, json or jsonl
  \freshness NAME   let aggregates answer exact, materialized, or as they say (default)
  \rewrite NAME  answer questions about points from aggregates that say the same (on), from
                 points (off), or not at all if no aggregate does (require)
  \timing        print how long statements take, or stop that
  \?             this
  \q             leave, as Ctrl-D does

Tab completes words, Ctrl-C drops what was typed, Ctrl-R looks for what was typed before.

";

/// What to do after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    Leave,
}

/// A command, as typed.
#[derive(Debug, PartialEq, Eq)]
enum Command<'a> {
    Describe(Option<&'a str>),
    Databases,
    Connect(&'a str),
    Format(&'a str),
    Freshness(Option<&'a str>),
    Rewrite(&'a str),
    Timing,
    Help,
    Quit,
}

/// Reads a command, without its backslash.
fn parse(line: &str) -> Result<Command<'_>, String> {
    let mut words = line.trim().trim_end_matches(';').split_whitespace();
    let (name, argument) = (words.next().unwrap_or_default(), words.next());
    if let Some(more) = words.next() {
        return Err(format!("\\{name} does not take {more}; \\? says what it takes"));
    }
    let one_of = |known: &[&str]| match argument {
        Some(own) if known.contains(&own) => Ok(own),
        _ => Err(format!("\\{name} takes one of {}", known.join(", "))),
    };
    let takes_nothing = |command| match argument {
        None => Ok(command),
        Some(own) => Err(format!("\\{name} does not take {own}")),
    };
    match name {
        "d" => Ok(Command::Describe(argument)),
        "dt" => takes_nothing(Command::Describe(None)),
        "l" => takes_nothing(Command::Databases),
        "c" => argument.map(Command::Connect).ok_or_else(|| "\\c takes a name".to_owned()),
        "format" => one_of(&FORMATS).map(Command::Format),
        "freshness" if argument == Some("default") => Ok(Command::Freshness(None)),
        "freshness" => one_of(&[&FRESHNESS[..], &["default"]].concat())
            .map(|own| Command::Freshness(Some(own))),
        "rewrite" => one_of(&REWRITE).map(Command::Rewrite),
        "timing" => takes_nothing(Command::Timing),
        "?" | "h" | "help" => takes_nothing(Command::Help),
        "q" | "quit" | "exit" => takes_nothing(Command::Quit),
        _ => Err(format!("there is no command \\{name}; \\? lists them")),
    }
}

/// Carries out a command, which comes without its backslash.
///
/// # Errors
/// If there is no such command, and those of the server.
pub(super) fn run(session: &mut Session, line: &str) -> anyhow::Result<Then> {
    match parse(line).map_err(anyhow::Error::msg)? {
        Command::Describe(None) => session.execute(
            "SELECT table_schema, table_name, table_type FROM information_schema.tables \
             WHERE table_schema <> 'information_schema' ORDER BY table_schema = 'system', 1, 2",
        )?,
        Command::Describe(Some(name)) => session.execute(&format!("DESCRIBE {name}"))?,
        Command::Databases => {
            let names: String =
                session.databases()?.into_iter().map(|name| format!("{name}\n")).collect();
            print(&names)?;
        }
        Command::Connect(name) => {
            anyhow::ensure!(
                session.databases()?.iter().any(|known| known == name),
                "there is no database {name}; \\l lists them, and writing to one creates it"
            );
            session.asking.db = Some(name.to_owned());
        }
        Command::Format(format) => format.clone_into(&mut session.asking.format),
        Command::Freshness(freshness) => session.asking.freshness = freshness.map(str::to_owned),
        Command::Rewrite(rewrite) => rewrite.clone_into(&mut session.asking.rewrite),
        Command::Timing => {
            session.timing = !session.timing;
            print(if session.timing { "timing is on\n" } else { "timing is off\n" })?;
        }
        Command::Help => print(HELP.trim_start_matches('\n'))?,
        Command::Quit => return Ok(Then::Leave),
    }
    Ok(Then::GoOn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_or_explained() {
        assert_eq!(parse("d"), Ok(Command::Describe(None)));
        assert_eq!(parse("d \"Cpu\";"), Ok(Command::Describe(Some("\"Cpu\""))));
        assert_eq!(parse("format  csv "), Ok(Command::Format("csv")));
        assert_eq!(parse("freshness default"), Ok(Command::Freshness(None)));
        assert_eq!(parse("q"), Ok(Command::Quit));
        for (line, expected) in [
            ("x", "there is no command \\x"),
            ("c", "takes a name"),
            ("c a b", "does not take b"),
            ("format xml", "takes one of pretty, csv"),
            ("freshness", "takes one of exact, materialized, default"),
            ("rewrite default", "takes one of on, off, require"),
            ("timing on", "does not take on"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
