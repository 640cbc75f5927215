//! The figures of the benchmark, and the file of committed figures.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;

const HEADER: &str = "# CPU instructions per request, counted by callgrind.\n\
# Written by `cargo bench --bench cost -- --update`.\n";

/// Instructions per request by name, such as `h1_l7lb`.
#[derive(Debug, Default)]
pub(crate) struct Figures(BTreeMap<String, u64>);

impl Figures {
    /// Reads the file; without a file there are no figures.
    pub(crate) fn load(file: &Path) -> io::Result<Self> {
        let text = match std::fs::read_to_string(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text?,
        };
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let parse = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.trim().to_owned(), value.trim().parse().ok()?))
        };
        let figures: Option<_> = lines.map(parse).collect();
        figures.map(Self).ok_or_else(|| io::Error::other(format!("{} has an invalid line", file.display())))
    }

    pub(crate) fn save(&self, file: &Path) -> io::Result<()> {
        let mut text = HEADER.to_owned();
        for (name, value) in &self.0 {
            // Writing to a string cannot fail.
            writeln!(text, "{name} = {value}").ok();
        }
        std::fs::write(file, text)
    }

    pub(crate) fn put(&mut self, name: &str, value: u64) {
        self.0.insert(name.to_owned(), value);
    }

    /// A Markdown table with the change against the committed figures.
    pub(crate) fn table(&self, committed: &Self) -> String {
        let mut text = "| scenario | instructions per request | change |\n|---|---|---|\n".to_owned();
        for (name, value) in &self.0 {
            let change = committed
                .0
                .get(name)
                .map_or_else(|| "new".to_owned(), |before| format!("{:+.1} %", (ratio(*value, *before) - 1.0) * 100.0));
            writeln!(text, "| {name} | {value} | {change} |").ok();
        }
        text
    }

    /// The names of figures that exceed the committed ones by more than `tolerance`.
    pub(crate) fn grown(&self, committed: &Self, tolerance: f64) -> Vec<String> {
        let exceeds = |(name, value): &(&String, &u64)| {
            committed.0.get(*name).is_some_and(|before| ratio(**value, *before) > 1.0 + tolerance)
        };
        self.0.iter().filter(exceeds).map(|(name, _)| name.clone()).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "instruction counts are far below 2^52")]
fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other.max(1) as f64
}
