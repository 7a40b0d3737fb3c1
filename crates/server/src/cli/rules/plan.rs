//! `highwater rules plan`: what applying rule files would change and cost.

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::{ask_for_plan, files_of};
use crate::cli::client::{Client, Host};
use crate::cli::{aligned, print};
use crate::demo::grouped;

/// What became of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything is as the rules say.
    NothingToDo,
    /// Applying would change something.
    Changes,
    /// Nothing would be applied.
    Refused,
}

pub(super) fn run(host: &Host, rules: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let files = rules.map(files_of).transpose()?;
    let plan = ask_for_plan(&Client::new(host), files.as_ref())?;
    print(&if json { format!("{plan:#}\n") } else { described(&plan) })?;
    Ok(match verdict(&plan) {
        Verdict::NothingToDo => ExitCode::SUCCESS,
        Verdict::Changes => ExitCode::from(2),
        Verdict::Refused => ExitCode::FAILURE,
    })
}

pub(super) fn verdict(plan: &Value) -> Verdict {
    if !list(plan, "refused").is_empty() {
        return Verdict::Refused;
    }
    let is_settled = list(plan, "settings").is_empty()
        && list(plan, "aggregates").iter().all(|one| one["action"] == "unchanged");
    if is_settled { Verdict::NothingToDo } else { Verdict::Changes }
}

pub(super) fn list<'a>(plan: &'a Value, key: &str) -> &'a [Value] {
    plan[key].as_array().map_or(&[], Vec::as_slice)
}

/// The plan for people.
pub(super) fn described(plan: &Value) -> String {
    let mut text = String::new();
    for refused in list(plan, "refused") {
        text.push_str(&refusal(refused));
    }
    if verdict(plan) == Verdict::Refused {
        return text + "refused: nothing would be applied\n";
    }
    let changes: Vec<&Value> =
        list(plan, "aggregates").iter().filter(|one| one["action"] != "unchanged").collect();
    text.push_str(&table(&changes));
    for one in &changes {
        for key in list(one, "keys") {
            let line =
                format!("{}: {}: {} -> {}\n", id(one), word(&key["key"]), key["old"], key["new"]);
            text.push_str(&line);
        }
    }
    for setting in list(plan, "settings") {
        text.push_str(&format!("{}\n", word(setting)));
    }
    let mut assumed: Vec<&str> =
        changes.iter().flat_map(|one| list(&one["estimate"], "assumptions")).map(word).collect();
    assumed.sort_unstable();
    assumed.dedup();
    for assumption in assumed {
        text.push_str(&format!("assumed: {assumption}\n"));
    }
    text + &summary(plan)
}

fn refusal(refused: &Value) -> String {
    let place = match (refused["file"].as_str(), refused["line"].as_u64()) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        (Some(file), None) => format!("{file}: "),
        _ => String::new(),
    };
    format!("{place}{}\n", word(&refused["reason"]))
}

/// One row for each aggregate that something happens to.
fn table(changes: &[&Value]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let header =
        ["", "aggregate", "points to read", "pieces", "groups", "rows", "bytes", "seconds"];
    let rows = changes.iter().map(|one| {
        let mut row = vec![word(&one["action"]).to_owned(), id(one)];
        let estimate = &one["estimate"];
        if estimate.is_object() {
            let number = |key: &str| grouped(estimate[key].as_u64().unwrap_or(0));
            row.extend(["points_to_read", "pieces", "groups", "rows", "bytes"].map(number));
            row.push(format!("{:.1}", estimate["seconds"].as_f64().unwrap_or(0.0)));
        }
        row
    });
    aligned(&std::iter::once(header.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>())
}

fn summary(plan: &Value) -> String {
    let count = |action: &str| {
        let number = list(plan, "aggregates").iter().filter(|one| one["action"] == action).count();
        (number > 0).then(|| format!("{number} {action}"))
    };
    let counts: Vec<String> = ["added", "changed", "attached", "detached", "unchanged"]
        .into_iter()
        .filter_map(count)
        .collect();
    let nothing = if verdict(plan) == Verdict::NothingToDo { "nothing to do" } else { "" };
    let parts = [nothing.to_owned(), counts.join(", ")];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { String::new() } else { parts.join(": ") + "\n" }
}

pub(super) fn id(one: &Value) -> String {
    format!("{}.{}", word(&one["database"]), word(&one["name"]))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_is_a_table_with_reasons() {
        let plan = json!({
            "aggregates": [
                {"database": "t", "name": "a", "action": "changed",
                 "keys": [{"key": "interval", "old": "1h", "new": null}],
                 "estimate": {"points_to_read": 12000, "pieces": 2, "groups": 3, "rows": 6,
                              "bytes": 72, "seconds": 0.012, "assumptions": ["x", "y"]}},
                {"database": "t", "name": "b", "action": "detached", "estimate": null},
                {"database": "t", "name": "c", "action": "unchanged", "estimate": null},
            ],
            "settings": ["t: retention of cpu: keep 7d -> no rule"],
            "refused": [],
        });
        let expected = "          aggregate  points to read  pieces  groups  rows  bytes  seconds
changed   t.a        12,000          2       3       6     72     0.0
detached  t.b
t.a: interval: \"1h\" -> null
t: retention of cpu: keep 7d -> no rule
assumed: x
assumed: y
1 changed, 1 detached, 1 unchanged
";
        assert_eq!(described(&plan), expected);
        assert_eq!(verdict(&plan), Verdict::Changes);
    }

    #[test]
    fn what_is_refused_has_its_place() {
        let refused = json!({"file": "a.yml", "line": 3, "aggregate": "x", "reason": "no"});
        let plan = json!({"aggregates": [], "settings": [], "refused": [refused]});
        assert_eq!(described(&plan), "a.yml:3: no\nrefused: nothing would be applied\n");
        let settled =
            json!({"aggregates": [{"action": "unchanged"}], "settings": [], "refused": []});
        assert_eq!(described(&settled), "nothing to do: 1 unchanged\n");
    }
}
