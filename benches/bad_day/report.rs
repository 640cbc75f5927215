//! The results as Markdown tables, their storage between runs, and their insertion into the documentation.

use std::fmt::Write;
use std::io;
use std::path::Path;

use crate::measure::Summary;

/// The result of one proxy in one scenario.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Row {
    pub(crate) proxy: String,
    pub(crate) scenario: String,
    pub(crate) summary: Summary,
}

/// The rows of all runs. A later row for the same proxy and scenario replaces the earlier one.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
}

impl Results {
    /// Loads the results of earlier runs; empty if the file does not exist.
    pub(crate) fn load(file: &Path) -> io::Result<Self> {
        match std::fs::read(file) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes all rows.
    pub(crate) fn save(&self, file: &Path) -> io::Result<()> {
        std::fs::write(file, serde_json::to_vec_pretty(self)?)
    }

    /// Adds a row, or replaces the earlier row of the same proxy and scenario.
    pub(crate) fn put(&mut self, row: Row) {
        let same = |old: &&mut Row| old.proxy == row.proxy && old.scenario == row.scenario;
        match self.rows.iter_mut().find(same) {
            Some(existing) => *existing = row,
            None => self.rows.push(row),
        }
    }

    /// The summary of a proxy and a scenario.
    pub(crate) fn find(&self, proxy: &str, scenario: &str) -> Option<&Summary> {
        self.rows.iter().find(|row| row.proxy == proxy && row.scenario == scenario).map(|row| &row.summary)
    }

    /// The proxies, in the order of measurement.
    pub(crate) fn proxies(&self) -> Vec<&str> {
        unique(self.rows.iter().map(|row| row.proxy.as_str()))
    }

    /// The scenarios, in the order of measurement.
    pub(crate) fn scenarios(&self) -> Vec<&str> {
        unique(self.rows.iter().map(|row| row.scenario.as_str()))
    }

    /// The short table (p99 and errors), and a collapsed table with all figures.
    pub(crate) fn markdown(&self) -> String {
        let mut text = self.short_table();
        text.push_str("\n<details><summary>All figures</summary>\n\n");
        text.push_str(&self.long_table());
        text.push_str("\n</details>\n");
        text
    }

    fn short_table(&self) -> String {
        let proxies = self.proxies();
        let mut text = format!("| p99, ms (errors) | {} |\n|---|", proxies.join(" | "));
        text.push_str(&"---|".repeat(proxies.len()));
        text.push('\n');
        for scenario in self.scenarios() {
            let cells: Vec<String> =
                proxies.iter().map(|proxy| self.find(proxy, scenario).map_or("–".to_owned(), cell)).collect();
            writeln!(text, "| {scenario} | {} |", cells.join(" | ")).ok();
        }
        text
    }

    fn long_table(&self) -> String {
        let mut text = "| scenario | proxy | p50 | p99 | p99.9 | worst second | errors | causes | responses per backend | send delay, p99 |\n\
                        |---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for scenario in self.scenarios() {
            for proxy in self.proxies() {
                let Some(summary) = self.find(proxy, scenario) else { continue };
                let [p50, p99, p999, worst, delay] =
                    [summary.p50, summary.p99, summary.p999, summary.worst_second, summary.send_delay]
                        .map(milliseconds);
                let failures: Vec<String> =
                    summary.failures.iter().map(|(failure, count)| format!("{count} × {failure}")).collect();
                let shares: Vec<String> = summary.shares.values().map(usize::to_string).collect();
                let shares = shares.join(", ");
                let (errors, requests, failures) = (summary.errors, summary.requests, failures.join(", "));
                writeln!(
                    text,
                    "| {scenario} | {proxy} | {p50} | {p99} | {p999} | {worst} | {errors} of {requests} | {failures} | {shares} | {delay} |"
                )
                .ok();
            }
        }
        text
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut unique = Vec::new();
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    unique
}

fn cell(summary: &Summary) -> String {
    let p99 = milliseconds(summary.p99);
    if summary.errors == 0 { p99 } else { format!("{p99} ({})", percentage(summary)) }
}

/// The share of requests that failed, such as `1.3 %`.
pub(crate) fn percentage(summary: &Summary) -> String {
    let hundredths = summary.errors * 10_000 / summary.requests.max(1);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

/// Microseconds as milliseconds, with one decimal below 100 ms.
pub(crate) fn milliseconds(microseconds: u64) -> String {
    match microseconds {
        0..100_000 => format!("{}.{}", microseconds / 1000, microseconds % 1000 / 100),
        _ => format!("{}", microseconds / 1000),
    }
}

/// Replaces the text of the page between `<!-- bad_day LABEL -->` and `<!-- /bad_day LABEL -->`.
pub(crate) fn insert(page: &Path, label: &str, table: &str) -> io::Result<()> {
    let text = std::fs::read_to_string(page)?;
    let (open, close) = (format!("<!-- bad_day {label} -->"), format!("<!-- /bad_day {label} -->"));
    let missing = || io::Error::other(format!("{} does not contain {open} … {close}", page.display()));
    let (before, rest) = text.split_once(&open).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&close).ok_or_else(missing)?;
    std::fs::write(page, format!("{before}{open}\n{table}{close}{after}"))
}
