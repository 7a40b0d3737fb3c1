//! What the demo prints: headings with numbers, lines, and columns under each other.

use std::cell::Cell;
use std::io::IsTerminal;

use crate::cli::print;

/// Prints to stdout, in order.
#[derive(Debug)]
pub(super) struct Report {
    in_colour: bool,
    step: Cell<u32>,
}

impl Report {
    /// Headings are bold on a terminal, unless `NO_COLOR` is set.
    pub(super) fn to_stdout() -> Self {
        let in_colour = std::io::stdout().is_terminal() && !no_colour();
        Report { in_colour, step: Cell::new(0) }
    }

    /// The title of the next step.
    pub(super) fn heading(&self, title: &str) -> anyhow::Result<()> {
        self.step.set(self.step.get() + 1);
        let gap = if self.step.get() > 1 { "\n" } else { "" };
        let (bold, plain) = if self.in_colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        print(&format!("{gap}{bold}{}  {title}{plain}\n", self.step.get()))
    }

    /// Text below a heading.
    pub(super) fn line(&self, text: &str) -> anyhow::Result<()> {
        print(&indented(text))
    }

    /// Rows below a heading, see [`aligned`].
    pub(super) fn rows(&self, rows: &[Vec<String>]) -> anyhow::Result<()> {
        self.line(&aligned(rows))
    }
}

/// Whether the environment asks for text without colours and bars.
pub(super) fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn indented(text: &str) -> String {
    let lines = text.lines();
    lines
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("   {line}\n") })
        .collect()
}

/// Columns of one width each: the first and the last start at the left, numbers between them end
/// at the right.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        rows.iter().filter_map(|row| row.get(at)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(at, cell)| match at {
            0 => format!("{cell:<0$}", widths[at]),
            _ if at + 1 == columns => cell.clone(),
            _ => format!("{cell:>0$}", widths[at]),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["", "ms", ""]), row(["one", "12.5", "same"]), row(["three", "1", "same"])];
        assert_eq!(aligned(&rows), "         ms\none    12.5  same\nthree     1  same\n");
        assert_eq!(aligned(&[]), "");
    }

    #[test]
    fn text_is_indented_but_empty_lines_are_not() {
        assert_eq!(indented("a\n\nb"), "   a\n\n   b\n");
    }
}
