//! Settings of the server: a YAML file, then environment variables, then flags.
//!
//! A key of the file is written `section.key`, the variable for it `HIGHWATER_SECTION__KEY`. What
//! is unknown or cannot be read stops the start with a message that names it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use highwater_aggregation::AggregationSettings;
use highwater_storage::Settings as StorageSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The file that `highwater config default` prints: every key with its default.
pub const DEFAULT_FILE: &str = include_str!("settings/default.yml");

/// Variables of the command line that are no settings.
const OTHER_VARIABLES: [&str; 3] = ["HIGHWATER_HOST", "HIGHWATER_LOG", "HIGHWATER_CONFIG"];
const PREFIX: &str = "HIGHWATER_";

/// Everything that can be set, checked once at the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The data folder. Default `highwater-data`.
    pub data: PathBuf,
    /// The folder of rule files. Default: none.
    pub rules: Option<PathBuf>,
    /// Address of the HTTP interface; port 0 picks a free one. Default `127.0.0.1:8086`.
    pub http: SocketAddr,
    /// The process as a whole.
    pub server: ServerSettings,
    /// What a request may ask for.
    pub limits: Limits,
    /// Bounds of running queries.
    pub query: QuerySettings,
    /// The storage engine.
    pub storage: StorageSettings,
    /// Continuous aggregates.
    pub aggregation: AggregationSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            data: PathBuf::from("highwater-data"),
            rules: None,
            http: SocketAddr::from(([127, 0, 0, 1], 8086)),
            server: ServerSettings::default(),
            limits: Limits::default(),
            query: QuerySettings::default(),
            storage: StorageSettings::default(),
            aggregation: AggregationSettings::default(),
        }
    }
}

/// The process as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// Megabytes of memory the process may use: at 90 % memtables are flushed early, at 100 % writes
    /// are answered with 503 until that has helped. Default 0: as much as it takes.
    pub max_memory_mb: u64,
    /// Whether requests may damage what is stored, for tests. A word for one start, not for a file
    /// of settings. Default: no.
    #[serde(skip)]
    pub fault_injection: bool,
}

/// Less memory than this is none to run on.
const LEAST_MEMORY_MB: u64 = 128;

/// What a request may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request body as sent. Default 64 MiB.
    pub body_bytes: usize,
    /// Bytes of a request body after decompression. Default 512 MiB.
    pub decompressed_bytes: usize,
    /// Bytes of SQL text. Default 1 MiB.
    pub sql_bytes: usize,
    /// Seconds until the head of a request has to be there. Default 10.
    pub head_secs: u64,
    /// Seconds after which an idle connection is closed. Default 75.
    pub idle_secs: u64,
    /// Seconds that running requests get to end after SIGTERM. Default 30.
    pub shutdown_secs: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes: 64 << 20,
            decompressed_bytes: 512 << 20,
            sql_bytes: 1 << 20,
            head_secs: 10,
            idle_secs: 75,
            shutdown_secs: 30,
        }
    }
}

/// Bounds of running queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuerySettings {
    /// Queries running at once; one more is answered with 503. Default 100.
    pub max_queries: usize,
    /// Seconds after which a query is stopped. Default 300.
    pub timeout_secs: u64,
    /// Bytes of memory all queries may use together. Default 1 GiB.
    pub memory_bytes: usize,
}

impl Default for QuerySettings {
    fn default() -> Self {
        QuerySettings { max_queries: 100, timeout_secs: 300, memory_bytes: 1 << 30 }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("could not read the settings file {path}")]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something else than settings.
    #[error("settings file {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Line, key and what is wrong with it.
        reason: String,
    },
    /// A variable of the environment names no setting.
    #[error(
        "the environment variable {variable} names no setting; `highwater config default` lists them"
    )]
    UnknownVariable {
        /// The variable.
        variable: String,
    },
    /// A variable of the environment has a value that its setting cannot take.
    #[error("the environment variable {variable} cannot be {value:?}: {reason}")]
    Variable {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value makes no sense.
    #[error("setting {key}: {reason}")]
    Value {
        /// The key, as `section.key`.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Settings {
    /// The settings of a file (none: the defaults), changed by `HIGHWATER_` variables.
    ///
    /// # Errors
    /// [`SettingsError`], naming the key or variable.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let mut settings = file.map_or_else(|| Ok(Settings::default()), Settings::read)?;
        for (variable, value) in variables {
            if variable.starts_with(PREFIX) && !OTHER_VARIABLES.contains(&&*variable) {
                settings = settings.with_variable(&variable, &value)?;
            }
        }
        Ok(settings)
    }

    fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::ReadFile { path: path.to_owned(), source })?;
        Settings::parse(&text)
            .map_err(|reason| SettingsError::File { path: path.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Settings::default());
        }
        serde_saphyr::from_str(text).map_err(|e| e.to_string())
    }

    fn with_variable(&self, variable: &str, value: &str) -> Result<Self, SettingsError> {
        let unknown = || SettingsError::UnknownVariable { variable: variable.to_owned() };
        let bad = |reason: String| SettingsError::Variable {
            variable: variable.to_owned(),
            value: value.to_owned(),
            reason,
        };
        let mut tree = serde_json::to_value(self).map_err(|e| bad(e.to_string()))?;
        let mut slot = &mut tree;
        for key in variable[PREFIX.len()..].to_ascii_lowercase().split("__") {
            slot = slot.get_mut(key).ok_or_else(unknown)?;
        }
        if slot.is_object() {
            return Err(unknown());
        }
        *slot = scalar(value, slot);
        serde_json::from_value(tree).map_err(|e| bad(e.to_string()))
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`SettingsError::Value`], naming the key.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let positive = [
            ("limits.body_bytes", self.limits.body_bytes as u64),
            ("limits.decompressed_bytes", self.limits.decompressed_bytes as u64),
            ("limits.sql_bytes", self.limits.sql_bytes as u64),
            ("limits.head_secs", self.limits.head_secs),
            ("limits.idle_secs", self.limits.idle_secs),
            ("limits.shutdown_secs", self.limits.shutdown_secs),
            ("query.max_queries", self.query.max_queries as u64),
            ("query.timeout_secs", self.query.timeout_secs),
            ("query.memory_bytes", self.query.memory_bytes as u64),
            ("storage.flush_bytes", self.storage.flush_bytes as u64),
            ("storage.flush_points", self.storage.flush_points as u64),
            ("storage.flush_age_secs", self.storage.flush_age_secs),
            ("storage.compact_segments", self.storage.compact_segments as u64),
            ("aggregation.max_parallel", self.aggregation.max_parallel as u64),
            ("aggregation.step_points", self.aggregation.step_points),
            ("aggregation.restatements_kept", self.aggregation.restatements_kept),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(SettingsError::Value { key, reason: "must be greater than 0".to_owned() });
        }
        if (1..LEAST_MEMORY_MB).contains(&self.server.max_memory_mb) {
            let reason = format!("must be 0, for no limit, or at least {LEAST_MEMORY_MB}");
            return Err(SettingsError::Value { key: "server.max_memory_mb", reason });
        }
        if self.storage.max_memtable_bytes < self.storage.flush_bytes {
            return Err(SettingsError::Value {
                key: "storage.max_memtable_bytes",
                reason: "must not be smaller than storage.flush_bytes".to_owned(),
            });
        }
        Ok(())
    }
}

/// The text of a variable as the kind of value that stands there now.
fn scalar(text: &str, now: &Value) -> Value {
    let parsed = match now {
        Value::Number(_) => text.parse::<u64>().map(Value::from).ok(),
        Value::Bool(_) => text.parse::<bool>().map(Value::from).ok(),
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_default_file_is_the_defaults_and_names_every_key() {
        assert_eq!(Settings::parse(DEFAULT_FILE).unwrap(), Settings::default());
        let tree = serde_json::to_value(Settings::default()).unwrap();
        for (key, value) in tree.as_object().unwrap() {
            let keys = value.as_object().into_iter().flatten().map(|(key, _)| key);
            for key in std::iter::once(key).chain(keys) {
                assert!(DEFAULT_FILE.contains(&format!("{key}:")), "{key} is missing");
            }
        }
    }

    #[test]
    fn variables_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("highwater.yml");
        std::fs::write(&file, "http: 127.0.0.1:1\nstorage:\n  flush_points: 5\n").unwrap();
        let settings = Settings::load(
            Some(&file),
            variables(&[
                ("HIGHWATER_STORAGE__DURABILITY", "os"),
                ("HIGHWATER_HTTP", "127.0.0.1:2"),
                ("HIGHWATER_RULES", "12"),
                ("HIGHWATER_LOG", "debug"),
                ("HOME", "/"),
            ]),
        )
        .unwrap();
        assert_eq!(settings.http.port(), 2);
        assert_eq!(settings.storage.flush_points, 5);
        assert_eq!(settings.storage.durability, highwater_storage::Durability::Os);
        assert_eq!(settings.rules, Some(PathBuf::from("12")));
    }

    #[test]
    fn what_is_unknown_or_bad_is_named() {
        let message = |text: &str| Settings::parse(text).unwrap_err();
        assert!(message("htttp: x\n").contains("htttp"));
        assert!(message("storage: {flush_points: many}\n").contains("flush_points"));
        let load = |pair| Settings::load(None, variables(&[pair])).unwrap_err().to_string();
        assert!(load(("HIGHWATER_STORAGE__NO", "1")).contains("HIGHWATER_STORAGE__NO"));
        assert!(load(("HIGHWATER_STORAGE", "1")).contains("HIGHWATER_STORAGE"));
        let bad = load(("HIGHWATER_QUERY__MAX_QUERIES", "few"));
        assert!(bad.contains("MAX_QUERIES") && bad.contains("few"), "{bad}");
        let mut settings = Settings::default();
        settings.query.max_queries = 0;
        assert!(settings.validate().unwrap_err().to_string().contains("query.max_queries"));
        assert_eq!(Settings::default().validate().map_err(|e| e.to_string()), Ok(()));
    }
}
