//! Names of aggregates, sets and outputs.

use std::sync::Arc;

use super::DefinitionError;

/// Schemas that exist without any aggregate; no set may take their names.
const RESERVED_SCHEMAS: [&str; 3] = ["public", "system", "information_schema"];

/// Longest name of anything, in bytes.
const NAME_BYTES: usize = 1024;

/// Checks a name of something that SQL and the data folder will hold.
///
/// # Errors
/// Without a key: the caller knows what is named.
pub(crate) fn checked_name(name: &str) -> Result<Arc<str>, DefinitionError> {
    let reason = match name {
        "" => "must not be empty".to_owned(),
        _ if name.trim().is_empty() => "must not be blank".to_owned(),
        _ if name.len() > NAME_BYTES => format!("must not be longer than {NAME_BYTES} bytes"),
        _ if name.chars().any(char::is_control) => {
            format!("{name:?} must not hold control characters")
        }
        _ => return Ok(name.into()),
    };
    Err(DefinitionError::new(reason))
}

/// Checks `name` or `set.name`.
pub(super) fn aggregate_name(name: &str) -> Result<Arc<str>, DefinitionError> {
    let at_name = |e: DefinitionError| e.inside("name");
    let checked = checked_name(name).map_err(at_name)?;
    let Some((set, member)) = name.split_once('.') else { return Ok(checked) };
    set_name(set).and_then(|_| checked_name(member)).map_err(at_name)?;
    if member.contains('.') {
        let reason = format!("{name:?} must be a name, or set.name, without further dots");
        return Err(DefinitionError::at("name", reason));
    }
    Ok(checked)
}

/// Checks the name of a set: it becomes a schema of SQL.
pub(crate) fn set_name(set: &str) -> Result<Arc<str>, DefinitionError> {
    if RESERVED_SCHEMAS.iter().any(|reserved| reserved.eq_ignore_ascii_case(set)) {
        return Err(DefinitionError::new(format!("a schema named {set} exists already")));
    }
    if set.contains('.') {
        return Err(DefinitionError::new(format!("{set:?} must not hold a dot")));
    }
    checked_name(set)
}
