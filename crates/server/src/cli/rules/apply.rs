//! `highwater rules apply`: make rule files those in force.

use std::io::{IsTerminal, Write, stdin, stdout};
use std::path::Path;

use anyhow::bail;
use serde_json::json;

use super::plan::{Verdict, described, verdict};
use super::{ask_for_plan, files_of};
use crate::cli::client::{Client, Host, Payload};
use crate::cli::print;

pub(super) fn run(host: &Host, rules: &Path, yes: bool, force: bool) -> anyhow::Result<()> {
    let client = Client::new(host);
    let files = files_of(rules)?;
    let plan = ask_for_plan(&client, Some(&files))?;
    print(&described(&plan))?;
    match verdict(&plan) {
        Verdict::NothingToDo => return Ok(()),
        Verdict::Refused => bail!("the rules are refused, so nothing is applied"),
        Verdict::Changes => {}
    }
    if !yes && !is_confirmed()? {
        bail!("nothing has changed");
    }
    let body = Payload::Json(json!({ "files": files, "force": force }));
    let applied = client.json("POST", "/api/v1/rules/apply", &[], body)?;
    print("applied\n")?;
    match applied["rules_folder"].as_str() {
        Some(folder) => print(&format!(
            "the server's own files in {folder} count again from its next start or reload on\n"
        )),
        None => Ok(()),
    }
}

fn is_confirmed() -> anyhow::Result<bool> {
    if !stdin().is_terminal() {
        bail!("nothing has changed; add --yes, as there is nobody to ask");
    }
    print("apply this? [y/N] ")?;
    stdout().flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
