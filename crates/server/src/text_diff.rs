//! What differs between two texts, line by line.

use std::fmt::Write;

/// Lines around a difference that are shown.
const CONTEXT: usize = 3;
/// Above this many pairs of lines the differing middle is shown as replaced as a whole.
const MAX_PAIRS: usize = 4 << 20;

/// One line of either text, or of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Old(&'a str),
    New(&'a str),
}

/// A unified diff from `old` to `new` without file names; empty if their lines are equal.
pub(crate) fn unified(old: &str, new: &str) -> String {
    let lines = compare(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
    let is_change = |line: &Line| !matches!(line, Line::Same(_));
    let mut text = String::new();
    let (mut at, mut old_at, mut new_at) = (0, 1, 1);
    while let Some(offset) = lines[at..].iter().position(is_change) {
        let start = at + offset.saturating_sub(CONTEXT);
        (old_at, new_at) = (old_at + (start - at), new_at + (start - at));
        let end = end_of_hunk(&lines, at + offset);
        let hunk = &lines[start..end];
        let olds = hunk.iter().filter(|line| !matches!(line, Line::New(_))).count();
        let news = hunk.iter().filter(|line| !matches!(line, Line::Old(_))).count();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "@@ -{} +{} @@", span(old_at, olds), span(new_at, news));
        for line in hunk {
            let _ = match line {
                Line::Same(line) => writeln!(text, " {line}"),
                Line::Old(line) => writeln!(text, "-{line}"),
                Line::New(line) => writeln!(text, "+{line}"),
            };
        }
        (at, old_at, new_at) = (end, old_at + olds, new_at + news);
    }
    text
}

/// First line and number of lines, as unified diffs write them.
fn span(first: usize, count: usize) -> String {
    // An empty span stands after the line before it.
    let first = if count == 0 { first - 1 } else { first };
    format!("{first},{count}")
}

/// Where the hunk that has a change at `from` ends: changes that are close share one.
fn end_of_hunk(lines: &[Line], from: usize) -> usize {
    let mut last = from;
    for (at, line) in lines.iter().enumerate().skip(from) {
        if at - last > 2 * CONTEXT {
            break;
        }
        if !matches!(line, Line::Same(_)) {
            last = at;
        }
    }
    (last + 1 + CONTEXT).min(lines.len())
}

/// The lines of both, those of a longest common subsequence once.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let before = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (middle_old, middle_new) = (&old[before..], &new[before..]);
    let pairs = middle_old.iter().rev().zip(middle_new.iter().rev());
    let after = pairs.take_while(|(a, b)| a == b).count();
    let middle_old = &middle_old[..middle_old.len() - after];
    let middle_new = &middle_new[..middle_new.len() - after];
    let mut lines: Vec<Line> = old[..before].iter().map(|line| Line::Same(line)).collect();
    lines.extend(compare_middle(middle_old, middle_new));
    lines.extend(old[old.len() - after..].iter().map(|line| Line::Same(line)));
    lines
}

fn compare_middle<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let replaced = || {
        let olds = old.iter().map(|line| Line::Old(line));
        olds.chain(new.iter().map(|line| Line::New(line))).collect()
    };
    if old.len().saturating_mul(new.len()) > MAX_PAIRS {
        return replaced();
    }
    // Length of the longest common subsequence of what follows each pair of places.
    let width = new.len() + 1;
    let mut common = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = match old[i] == new[j] {
                true => common[(i + 1) * width + j + 1] + 1,
                false => common[(i + 1) * width + j].max(common[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len()
            || i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]
        {
            lines.push(Line::Old(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_texts_differ_in_nothing() {
        assert_eq!(unified("", ""), "");
        assert_eq!(unified("a\nb", "a\nb\n"), "");
    }

    #[test]
    fn a_changed_line_has_its_neighbours() {
        let diff = unified("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n");
        assert_eq!(diff, "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n");
    }

    #[test]
    fn what_is_far_apart_has_hunks_of_its_own() {
        let numbers: Vec<String> = (0..30).map(|i| i.to_string()).collect();
        let mut changed = numbers.clone();
        changed[2] = "two".into();
        changed.remove(25);
        let diff = unified(&numbers.join("\n"), &changed.join("\n"));
        let hunks: Vec<&str> = diff.lines().filter(|line| line.starts_with("@@")).collect();
        assert_eq!(hunks, ["@@ -1,6 +1,6 @@", "@@ -23,7 +23,6 @@"]);
    }

    #[test]
    fn all_of_a_new_text_is_new() {
        assert_eq!(unified("", "a\nb\n"), "@@ -0,0 +1,2 @@\n+a\n+b\n");
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_from_their_lines(old in "[abc\n]{0,40}", new in "[abc\n]{0,40}") {
            let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
            let lines = compare(&old, &new);
            let read = |is_old: bool| -> Vec<&str> {
                lines.iter().filter_map(|line| match line {
                    Line::Same(line) => Some(*line),
                    Line::Old(line) => is_old.then_some(*line),
                    Line::New(line) => (!is_old).then_some(*line),
                }).collect()
            };
            prop_assert_eq!(read(true), old);
            prop_assert_eq!(read(false), new);
        }
    }
}
