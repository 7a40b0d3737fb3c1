//! `highwater rules diff`: rule files beside what is in force.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::Value;

use super::plan::{Verdict, described, id, list, verdict};
use super::{ask_for_plan, files_of, yaml};
use crate::cli::client::{Client, Host};
use crate::cli::print;
use crate::text_diff;

pub(super) fn run(host: &Host, folder: &Path) -> anyhow::Result<ExitCode> {
    let plan = ask_for_plan(&Client::new(host), Some(&files_of(folder)?))?;
    match verdict(&plan) {
        Verdict::NothingToDo => return Ok(ExitCode::SUCCESS),
        Verdict::Refused => {
            print(&described(&plan))?;
            bail!("the rules are refused, so there is nothing to compare");
        }
        Verdict::Changes => {}
    }
    print(&differences(&plan))?;
    Ok(ExitCode::FAILURE)
}

/// A unified diff per aggregate, from what is in force to what the files say, and a line per
/// setting.
fn differences(plan: &Value) -> String {
    let mut text = String::new();
    for one in list(plan, "aggregates").iter().filter(|one| one["action"] != "unchanged") {
        let name = id(one);
        let diff = text_diff::unified(&canonical(&one["before"]), &canonical(&one["after"]));
        text.push_str(&format!("--- server {name}\n+++ files {name}\n{diff}"));
    }
    for setting in list(plan, "settings") {
        text.push_str(&format!("{}\n", setting.as_str().unwrap_or_default()));
    }
    text
}

fn canonical(rule: &Value) -> String {
    if rule.is_null() { String::new() } else { yaml::block(rule) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_changed_rule_is_shown_line_by_line() {
        let plan = json!({
            "aggregates": [
                {"database": "t", "name": "a", "action": "changed",
                 "before": {"name": "a", "interval": "1h"}, "after": {"name": "a", "interval": "1d"}},
                {"database": "t", "name": "b", "action": "detached",
                 "before": {"name": "b"}, "after": null},
                {"database": "t", "name": "c", "action": "unchanged"},
            ],
            "settings": ["t: is created"],
        });
        let expected = "\
--- server t.a
+++ files t.a
@@ -1,2 +1,2 @@
 name: a
-interval: 1h
+interval: 1d
--- server t.b
+++ files t.b
@@ -1,1 +0,0 @@
-name: b
t: is created
";
        assert_eq!(differences(&plan), expected);
    }
}
