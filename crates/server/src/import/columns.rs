//! Which column is the time, which are tags and which are fields.

use anyhow::{bail, ensure};

/// What the command line says about the columns of CSV and Parquet files.
#[derive(Clone, Debug)]
pub(super) struct ColumnChoice {
    pub(super) time: String,
    /// None: those that the file itself names.
    pub(super) tags: Option<Vec<String>>,
    /// None: all other columns.
    pub(super) fields: Option<Vec<String>>,
}

/// What a column becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Time,
    Tag,
    Field,
    Unused,
}

impl ColumnChoice {
    /// The role of each of these columns; `own_tags` are those that the file says are tags.
    ///
    /// # Errors
    /// A column that was chosen is not there, or twice, or nothing is left for fields.
    pub(super) fn roles(&self, names: &[String], own_tags: &[String]) -> anyhow::Result<Vec<Role>> {
        let tags = self.tags.as_deref().unwrap_or(own_tags);
        let chosen =
            [std::slice::from_ref(&self.time), tags, self.fields.as_deref().unwrap_or(&[])];
        for name in chosen.into_iter().flatten() {
            match names.iter().filter(|own| *own == name).count() {
                0 => bail!("there is no column {name}{}", self.advice(name, names)),
                1 => {}
                _ => bail!("column {name} is there twice"),
            }
        }
        let roles: Vec<Role> = names.iter().map(|name| self.role(name, tags)).collect();
        ensure!(roles.contains(&Role::Field), "no column is left to be a field");
        for (at, name) in names.iter().enumerate() {
            let is_twice = roles[at] != Role::Unused && names[..at].contains(name);
            ensure!(!is_twice, "column {name} is there twice; choose others by --fields");
        }
        Ok(roles)
    }

    fn role(&self, name: &String, tags: &[String]) -> Role {
        if *name == self.time {
            Role::Time
        } else if tags.contains(name) {
            Role::Tag
        } else if self.fields.as_ref().is_none_or(|fields| fields.contains(name)) {
            Role::Field
        } else {
            Role::Unused
        }
    }

    fn advice(&self, name: &str, names: &[String]) -> String {
        let option = if name == self.time { "; name the time by --time" } else { "" };
        format!("{option}; there are {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn roles(
        tags: Option<&[&str]>,
        fields: Option<&[&str]>,
        names: &[&str],
    ) -> Result<String, String> {
        let (tags, fields) = (tags.map(strings), fields.map(strings));
        let choice = ColumnChoice { time: "time".to_owned(), tags, fields };
        let roles = choice.roles(&strings(names), &strings(&["own"])).map_err(|e| e.to_string())?;
        Ok(roles.iter().map(|role| format!("{role:?} ")).collect::<String>().trim_end().to_owned())
    }

    #[test]
    fn every_column_has_a_role() {
        let names = ["a", "time", "b", "own"];
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(roles(None, None, &names), ok("Field Time Field Tag"));
        assert_eq!(roles(Some(&["a"]), None, &names), ok("Tag Time Field Field"));
        assert_eq!(roles(Some(&[]), Some(&["b"]), &names), ok("Unused Time Field Unused"));
    }

    #[test]
    fn what_cannot_be_chosen_is_named() {
        let error = |tags, fields, names: &[&str]| roles(tags, fields, names).unwrap_err();
        assert!(
            error(Some(&[]), None, &["t", "a"]).contains("no column time; name the time by --time")
        );
        assert!(
            error(Some(&["x"]), None, &["time", "a"]).contains("no column x; there are time, a")
        );
        assert!(error(Some(&["a"]), None, &["time", "a"]).contains("no column is left"));
        assert!(error(Some(&[]), None, &["time", "a", "a"]).contains("a is there twice"));
    }
}
