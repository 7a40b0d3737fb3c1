//! What this machine does while the demo runs, as points.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, ensure};
use highwater_core::Timestamp;
use sysinfo::{Disks, Networks, System};

use super::compare::{Comparisons, Question};
use super::database::{Database, Format};
use super::progress;
use super::report::Report;
use super::server::EmbeddedServer;

/// Pause between two samples; shorter ones make processor usage meaningless.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// Tables that are shown, each with the measurement below it.
const TABLES: [(&str, &str); 4] = [
    (
        "machine_cpu",
        "SELECT time, points, round(usage_percent_mean, 1) AS cpu_percent_mean, \
         round(usage_percent_max, 1) AS cpu_percent_max FROM machine_cpu_10s ORDER BY time",
    ),
    (
        "machine_memory",
        "SELECT time, round(used_bytes_mean / 1e6, 1) AS memory_mb_mean, \
         round(used_bytes_max / 1e6, 1) AS memory_mb_max FROM machine_memory_10s ORDER BY time",
    ),
    (
        "machine_disk",
        "SELECT time, mount, round(used_percent_last, 1) AS used_percent FROM machine_disk_10s \
         ORDER BY time, mount",
    ),
    (
        "machine_network",
        "SELECT time, interface, received_bytes_sum AS received_bytes, sent_bytes_sum AS \
         sent_bytes FROM machine_network_10s ORDER BY time, interface",
    ),
];

/// The machine, and what was seen of it last.
pub(super) struct Machine {
    system: System,
    disks: Disks,
    networks: Networks,
}

impl Machine {
    pub(super) fn new() -> anyhow::Result<Self> {
        let unreadable = "could not read the state of this machine; try --live-seconds 0";
        let mut system = System::new().context(unreadable)?;
        system.refresh_cpu_usage();
        Ok(Machine {
            system,
            disks: Disks::new_with_refreshed_list().context(unreadable)?,
            networks: Networks::new_with_refreshed_list().context(unreadable)?,
        })
    }

    /// Writes points of the machine for some seconds, then shows aggregates of them.
    pub(super) fn show(
        &mut self,
        report: &Report,
        server: &EmbeddedServer,
        database: &Database,
        seconds: u64,
        comparisons: &mut Comparisons,
    ) -> anyhow::Result<()> {
        let question = Question {
            label: "this machine's processor by ten seconds".to_owned(),
            raw: "SELECT time_bucket('10s', time) AS time, avg(usage_percent) AS mean, \
                  max(usage_percent) AS highest FROM machine_cpu GROUP BY 1 ORDER BY 1"
                .to_owned(),
            aggregate: "SELECT time, usage_percent_mean AS mean, usage_percent_max AS highest \
                        FROM machine_cpu_10s ORDER BY 1"
                .to_owned(),
        };
        let samples = seconds * 1_000 / SAMPLE_EVERY.as_millis() as u64;
        let bar = progress::bar(samples, "samples of this machine", false);
        for _ in 0..samples {
            ensure!(server.pause(SAMPLE_EVERY), "interrupted");
            database.write(self.sample(server.now()).as_bytes())?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let title = format!("This machine, for {seconds} seconds: the open bucket counts already");
        comparisons.show(report, database, &title, &[question])?;
        for (measurement, sql) in TABLES {
            let has_points = "SELECT count(*) FROM information_schema.tables WHERE table_name = ";
            if database.number(&format!("{has_points}'{measurement}'"))? > 0 {
                report.line(&format!("\n{}", database.query(sql, Format::Pretty)?))?;
            }
        }
        Ok(())
    }

    /// Writes points of the machine until Ctrl-C.
    pub(super) fn follow(
        &mut self,
        server: &EmbeddedServer,
        database: &Database,
    ) -> anyhow::Result<()> {
        while server.pause(SAMPLE_EVERY) {
            database.write(self.sample(server.now()).as_bytes())?;
        }
        Ok(())
    }

    /// A point of processor and memory, one for each disk and each network interface.
    fn sample(&mut self, at: Timestamp) -> String {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.disks.refresh(true);
        self.networks.refresh(true);
        let mut lines = String::new();
        let cores = self.system.cpus().len();
        line(
            &mut lines,
            "machine_cpu",
            format_args!("usage_percent={},cores={cores}i", self.system.global_cpu_usage()),
            at,
        );
        let (used, total) = (self.system.used_memory(), self.system.total_memory());
        line(
            &mut lines,
            "machine_memory",
            format_args!("used_bytes={used}i,total_bytes={total}i"),
            at,
        );
        let mut seen = Vec::new();
        for disk in &self.disks {
            let (total, free) = (disk.total_space(), disk.available_space());
            // Containers mount one disk in many places.
            let is_new = !seen.contains(&(disk.name(), total));
            if total > 0 && is_new {
                seen.push((disk.name(), total));
                let head = head("machine_disk", "mount", &disk.mount_point().to_string_lossy());
                let used = 100.0 * (total.saturating_sub(free)) as f64 / total as f64;
                line(&mut lines, &head, format_args!("used_percent={used},free_bytes={free}i"), at);
            }
        }
        for (interface, network) in &self.networks {
            let (received, sent) = (network.received(), network.transmitted());
            let head = head("machine_network", "interface", &interface.to_string_lossy());
            line(
                &mut lines,
                &head,
                format_args!("received_bytes={received}i,sent_bytes={sent}i"),
                at,
            );
        }
        lines
    }
}

fn line(lines: &mut String, head: &str, fields: std::fmt::Arguments<'_>, at: Timestamp) {
    // Writing to a string cannot fail.
    let _ = writeln!(lines, "{head} {fields} {}", at.as_nanos());
}

/// Measurement and one tag, with everything escaped that line protocol gives a meaning to.
fn head(measurement: &str, tag: &str, value: &str) -> String {
    let mut head = format!("{measurement},{tag}=");
    for c in value.chars().map(|c| if c.is_control() { '_' } else { c }) {
        if matches!(c, ',' | '=' | ' ') {
            head.push('\\');
        }
        head.push(c);
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_values_are_escaped() {
        assert_eq!(head("m", "t", "/a b,c=d\n"), "m,t=/a\\ b\\,c\\=d_");
    }

    #[test]
    fn a_sample_is_line_protocol() {
        let lines = Machine::new().unwrap().sample(Timestamp::from_secs(1));
        let limits = crate::line_protocol::Limits::default();
        let precision = crate::line_protocol::Precision::Nanosecond;
        let parsed =
            crate::line_protocol::parse(lines.as_bytes(), precision, Timestamp::EPOCH, &limits);
        assert_eq!(parsed.refused, []);
        assert!(parsed.batches.iter().any(|batch| &*batch.measurement == "machine_cpu"));
    }
}
