//! A real server process with a data folder of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

use crate::client::Client;
use crate::reply::{Reply, rows};

/// How many ticks [`TestServer::drain`] takes at most.
const MAX_TICKS: usize = 10_000;
/// How long a server may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// The database of the short words.
const DATABASE: &str = "t";

/// How to start a server.
#[derive(Debug)]
pub struct Launch {
    binary: PathBuf,
    folder: TempDir,
    data: PathBuf,
    has_rules: bool,
    manual_clock: bool,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
}

/// A server that did not start.
#[derive(Debug)]
pub struct StartFailure {
    /// How the process ended.
    pub status: ExitStatus,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Launch {
    /// A server of this binary, with an empty data folder, no rules and a manual clock.
    ///
    /// # Panics
    /// If there is no temporary folder.
    pub fn of(binary: impl Into<PathBuf>) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("rules")).expect("a folder of rules");
        Launch {
            binary: binary.into(),
            data: folder.path().join("data"),
            folder,
            has_rules: true,
            manual_clock: true,
            flags: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// With this rule file.
    #[must_use]
    pub fn rules(self, yaml: &str) -> Self {
        std::fs::write(self.rules_folder().join("rules.yml"), yaml).expect("a rule file");
        self
    }

    /// With this data folder instead of one of its own.
    #[must_use]
    pub fn data(mut self, folder: &Path) -> Self {
        self.data = folder.to_owned();
        self
    }

    /// Without a folder of rules.
    #[must_use]
    pub fn without_rules(mut self) -> Self {
        self.has_rules = false;
        self
    }

    /// With the clock of the machine.
    #[must_use]
    pub fn real_clock(mut self) -> Self {
        self.manual_clock = false;
        self
    }

    /// With one more flag.
    #[must_use]
    pub fn flag(mut self, flag: &str, value: &str) -> Self {
        self.flags.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// With a flag that has no value.
    #[must_use]
    pub fn switch(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The data folder.
    pub fn data_folder(&self) -> PathBuf {
        self.data.clone()
    }

    /// The folder of rule files.
    pub fn rules_folder(&self) -> PathBuf {
        self.folder.path().join("rules")
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(self) -> TestServer {
        self.try_start().unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    /// Starts the server and waits until it is ready, or until it gave up.
    ///
    /// # Errors
    /// How it gave up.
    pub fn try_start(self) -> Result<TestServer, StartFailure> {
        let (mut process, address) = self.spawn();
        match address {
            Some(address) => {
                let agent = Agent::config_builder()
                    .http_status_as_error(false)
                    .timeout_global(Some(PATIENCE))
                    .build();
                Ok(TestServer { process, address, launch: self, agent: agent.into() })
            }
            None => {
                let status = process.wait().expect("the process has ended");
                Err(StartFailure { status, stderr: self.stderr() })
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--http", "127.0.0.1:0", "--data"]).arg(self.data_folder());
        if self.has_rules {
            command.arg("--rules").arg(self.rules_folder());
        }
        if self.manual_clock {
            command.arg("--manual-clock");
        }
        // What steers the tests is no setting of the server.
        let own = std::env::vars_os().map(|(name, _)| name);
        for name in own.filter(|name| name.to_string_lossy().starts_with("HIGHWATER_")) {
            command.env_remove(name);
        }
        // Audits by the clock read beside what a test looks at; tests of them switch them on.
        command.env("HIGHWATER_AGGREGATION__AUDIT_EVERY", "off");
        command.args(&self.flags).envs(self.variables.iter().cloned());
        command
    }

    /// The process, and its address once it is ready; none if it ends before.
    fn spawn(&self) -> (Child, Option<String>) {
        let log = std::fs::File::options().create(true).append(true).open(self.stderr_file());
        let mut process = self
            .command()
            .stdout(Stdio::piped())
            .stderr(log.expect("a file for stderr"))
            .spawn()
            .expect("the server binary");
        let stdout = process.stdout.take().expect("a piped stdout");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut address = None;
        loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) if line == "ready" => return (process, address),
                Ok(line) => {
                    let url = line.strip_prefix("http listening on ").map(str::to_owned);
                    address = url.or(address);
                }
                Err(RecvTimeoutError::Disconnected) => return (process, None),
                Err(RecvTimeoutError::Timeout) => {
                    process.kill().expect("a running process");
                    return (process, None);
                }
            }
        }
    }

    fn stderr_file(&self) -> PathBuf {
        self.folder.path().join("stderr.log")
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.stderr_file()).unwrap_or_default()
    }
}

/// A running server; ends with the value.
#[derive(Debug)]
pub struct TestServer {
    process: Child,
    address: String,
    launch: Launch,
    agent: Agent,
}

impl TestServer {
    /// The URL of the server, without a slash at its end.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Number of the process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The data folder.
    pub fn data_folder(&self) -> PathBuf {
        self.launch.data_folder()
    }

    /// The folder of rule files.
    pub fn rules_folder(&self) -> PathBuf {
        self.launch.rules_folder()
    }

    /// What the server logged so far.
    pub fn stderr(&self) -> String {
        self.launch.stderr()
    }

    /// A client of its own, for a thread; it ends with the server.
    pub fn client(&self) -> Client {
        Client { address: self.address.clone(), agent: self.agent.clone() }
    }

    /// Sends any request.
    ///
    /// # Panics
    /// If there is no answer at all.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.client().send(method, path, headers, body).expect("an answer")
    }

    /// GET.
    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], &[])
    }

    /// POST, PUT or DELETE of JSON.
    pub fn json(&self, method: &str, path: &str, body: &Value) -> Reply {
        let headers = [("content-type", "application/json")];
        self.send(method, path, &headers, body.to_string().as_bytes())
    }

    /// POST without a body.
    pub fn post(&self, path: &str) -> Reply {
        self.send("POST", path, &[], &[])
    }

    /// Writes lines, whatever the answer.
    pub fn write(&self, precision: &str, lines: &str) -> Reply {
        let path = format!("/api/v3/write_lp?db={DATABASE}&precision={precision}");
        self.send("POST", &path, &[], lines.as_bytes())
    }

    /// `W(precision) lines`: writes lines, all of which have to be taken.
    #[track_caller]
    pub fn w(&self, precision: &str, lines: &str) {
        self.write(precision, lines).expect(204);
    }

    /// A query with more keys beside it, whatever the answer.
    pub fn query(&self, sql: &str, more: Value) -> Reply {
        let mut body = json!({ "db": DATABASE, "q": sql, "format": "csv" });
        if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
            body.extend(more);
        }
        self.json("POST", "/api/v3/query_sql", &body)
    }

    /// The answer to a query as CSV, header included. What is asked of points is computed from
    /// points, so that it can be compared with what an aggregate says.
    #[track_caller]
    pub fn csv(&self, sql: &str) -> String {
        self.query(sql, json!({ "rewrite": "off" })).expect(200).body
    }

    /// `Q(sql)`: the rows of the answer, see [`rows`].
    #[track_caller]
    pub fn q(&self, sql: &str) -> String {
        rows(&self.csv(sql))
    }

    /// `QM(sql)`: the same from stored buckets only.
    #[track_caller]
    pub fn qm(&self, sql: &str) -> String {
        rows(&self.query(sql, json!({ "freshness": "materialized" })).expect(200).body)
    }

    /// `CLOCK t`.
    #[track_caller]
    pub fn clock(&self, now: &str) {
        self.json("POST", "/debug/clock", &json!({ "now": now })).expect(200);
    }

    /// `TICK`: runs every due background step once and says how many there were.
    #[track_caller]
    pub fn tick(&self) -> u64 {
        let steps = self.post("/debug/tick").expect(200).json();
        steps["steps"].as_u64().unwrap_or_else(|| panic!("no steps in {steps}"))
    }

    /// `DRAIN`: ticks until nothing is due.
    #[track_caller]
    pub fn drain(&self) {
        let busy = (0..MAX_TICKS).all(|_| self.tick() > 0);
        assert!(!busy, "still busy after {MAX_TICKS} ticks");
    }

    /// The value of a metric, named with its labels as `/metrics` prints it.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").expect(200).body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    /// Ends the server as an operator would, and starts it again.
    ///
    /// # Panics
    /// If it does not end well or does not start.
    #[track_caller]
    pub fn restart(&mut self) {
        let status = self.terminate();
        assert!(status.success(), "{status}: {}", self.stderr());
        self.start_again();
    }

    /// Ends the server as an operator would.
    ///
    /// # Panics
    /// If the process cannot be reached.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.process.wait().expect("the process ends")
    }

    /// Sends a signal, named without `SIG`.
    ///
    /// # Panics
    /// If the process cannot be reached.
    pub fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("the kill command").success(), "no process {pid}");
    }

    /// `kill -9`, then a new start over the same data folder.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.kill();
        self.start_again();
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// If the process cannot be reached.
    pub fn kill(&mut self) {
        self.process.kill().expect("a running process");
        self.process.wait().expect("the process ends");
    }

    /// A new start over the same data folder, after the process has ended.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start_again(&mut self) {
        let (process, address) = self.launch.spawn();
        self.process = process;
        self.address = address.unwrap_or_else(|| panic!("no start: {}", self.stderr()));
    }

    /// Every file of the data folder, relative to it, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let root = self.data_folder();
        let mut found = Vec::new();
        collect_files(&root, &mut found);
        let relative = |path: PathBuf| path.strip_prefix(&root).map(Path::to_owned).ok();
        let mut files: Vec<PathBuf> = found.into_iter().filter_map(relative).collect();
        files.sort();
        files
    }
}

fn collect_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect_files(&entry.path(), found),
            _ => found.push(entry.path()),
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // Errors mean that the process has ended already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the server logged:\n{}", self.stderr());
        }
    }
}
