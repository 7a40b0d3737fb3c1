//! A Highwater process of our own, on a folder that is removed at the end.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use highwater_core::Stopwatch;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

use crate::DATABASE;

/// Answers may be large: a query of the set L returns some 60 MB.
const LARGEST_ANSWER: u64 = 4 << 30;
/// Of `/proc`, on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    process: Child,
    /// Kept open, so that the server can print.
    _stdout: BufReader<ChildStdout>,
    binary: PathBuf,
    variables: Vec<(&'static str, &'static str)>,
    folder: TempDir,
    client: Client,
}

impl Server {
    /// Starts `binary` with default settings, on an empty folder, with these rules.
    ///
    /// # Errors
    /// It does not start or does not say where it listens.
    pub fn start(binary: &Path, rules: Option<&str>) -> anyhow::Result<Self> {
        Server::start_with(binary, rules, &[])
    }

    /// As [`Server::start`], with settings changed by these variables of the environment.
    ///
    /// # Errors
    /// It does not start or does not say where it listens.
    pub fn start_with(
        binary: &Path,
        rules: Option<&str>,
        variables: &[(&'static str, &'static str)],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let rule_folder = folder.path().join("rules");
        std::fs::create_dir(&rule_folder)?;
        if let Some(rules) = rules {
            std::fs::write(rule_folder.join("bench.yml"), rules)?;
        }
        let (process, stdout, client) = spawn(binary, folder.path(), variables)?;
        let (binary, variables) = (binary.to_owned(), variables.to_vec());
        Ok(Server { process, _stdout: stdout, binary, variables, folder, client })
    }

    /// The next start has default settings.
    pub fn forget_variables(&mut self) {
        self.variables.clear();
    }

    /// Kills the server with SIGKILL and starts it again on the same folder. Returns the seconds
    /// from there until it is ready.
    ///
    /// # Errors
    /// It does not start again.
    pub fn kill_and_restart(&mut self) -> anyhow::Result<f64> {
        self.process.kill()?;
        self.process.wait()?;
        let stopwatch = Stopwatch::start();
        (self.process, self._stdout, self.client) =
            spawn(&self.binary, self.folder.path(), &self.variables)?;
        Ok(stopwatch.elapsed().as_secs_f64())
    }

    /// A client of this server, with connections of its own.
    pub fn client(&self) -> Client {
        Client::new(self.client.address.clone())
    }

    /// Peak of the memory that was resident, in bytes.
    ///
    /// # Errors
    /// `/proc` does not tell.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmHWM")?;
        Ok(kib.trim().parse::<u64>()? * 1024)
    }

    /// Seconds of processor time used so far, all threads together, in the kernel too.
    ///
    /// # Errors
    /// `/proc` does not tell.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The name may hold anything; after it come state, parent and so on, utime as 12th.
        let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
        let ticks: Vec<u64> = fields.split(' ').skip(11).take(2).flat_map(str::parse).collect();
        ensure!(ticks.len() == 2, "no times in stat");
        Ok(ticks.iter().sum::<u64>() as f64 / TICKS_PER_SECOND)
    }

    /// Flushes and compacts all there is.
    ///
    /// # Errors
    /// The server refuses.
    pub fn settle(&self) -> anyhow::Result<()> {
        self.client.post("/api/v1/flush", "")?;
        self.client.post("/api/v1/compact", "")?;
        Ok(())
    }

    /// Bytes of all files below a folder of the data folder, such as `segments`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn disk_bytes(&self, below: &str) -> anyhow::Result<u64> {
        folder_bytes(&self.folder.path().join("data").join(below))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(
    binary: &Path,
    folder: &Path,
    variables: &[(&str, &str)],
) -> anyhow::Result<(Child, BufReader<ChildStdout>, Client)> {
    let mut process = Command::new(binary)
        .arg("serve")
        .args(["--http", "127.0.0.1:0", "--postgres", "off"])
        .arg("--data")
        .arg(folder.join("data"))
        .arg("--rules")
        .arg(folder.join("rules"))
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {}", binary.display()))?;
    let stdout = process.stdout.take().context("the server has no standard output")?;
    let mut stdout = BufReader::new(stdout);
    match wait_until_ready(&mut stdout) {
        Ok(address) => Ok((process, stdout, Client::new(address))),
        Err(error) => {
            let _ = process.kill();
            let status = process.wait()?;
            Err(error.context(format!("{}: {status}", binary.display())))
        }
    }
}

fn wait_until_ready(stdout: &mut impl BufRead) -> anyhow::Result<String> {
    let mut address = None;
    for line in stdout.lines() {
        let line = line?;
        if let Some(found) = line.strip_prefix("http listening on ") {
            address = Some(found.to_owned());
        }
        if line == "ready" {
            return address.context("the server did not say where it listens");
        }
    }
    bail!("the server ended before it was ready")
}

fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { folder_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// Lets real time pass while a server runs.
#[expect(clippy::disallowed_methods, reason = "what is measured happens in real time")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Where `highwater` is when nobody says: beside this program.
///
/// # Errors
/// It is not there.
pub fn default_binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let binary = own.with_file_name("highwater");
    ensure!(
        binary.is_file(),
        "{} is missing: build it with `cargo build --release -p highwater-server`, or name \
         another one with --server",
        binary.display()
    );
    Ok(binary)
}

/// One client with its own connections.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    address: String,
}

impl Client {
    fn new(address: String) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).build();
        Client { agent: config.into(), address }
    }

    /// Writes line protocol with nanoseconds.
    ///
    /// # Errors
    /// The server does not store every line.
    pub fn write(&self, body: &[u8]) -> anyhow::Result<()> {
        let route = format!("/api/v3/write_lp?db={DATABASE}&precision=nanosecond");
        self.send(&route, "text/plain", body).map(drop)
    }

    /// Posts text to a route of the bench database and returns the answer.
    ///
    /// # Errors
    /// The answer is no success.
    pub fn post(&self, route: &str, body: &str) -> anyhow::Result<Vec<u8>> {
        self.send(&format!("{route}?db={DATABASE}"), "application/json", body.as_bytes())
    }

    /// Answer of a query as CSV; `options` are further keys of the body.
    ///
    /// # Errors
    /// The server refuses the query.
    pub fn query(&self, sql: &str, options: &[(&str, &str)]) -> anyhow::Result<Vec<u8>> {
        let mut body = json!({"db": DATABASE, "q": sql, "format": "csv"});
        for (key, value) in options {
            body[*key] = Value::from(*value);
        }
        self.send("/api/v3/query_sql", "application/json", body.to_string().as_bytes())
            .with_context(|| sql.to_owned())
    }

    fn send(&self, route: &str, content_type: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let url = format!("{}{route}", self.address);
        let mut answer = self.agent.post(&url).content_type(content_type).send(body)?;
        let status = answer.status();
        let content = answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec()?;
        ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&content));
        Ok(content)
    }
}
