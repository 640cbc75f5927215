//! `l7lb check`: reports all faults and warnings of configuration files, without network access.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use clap::{Args, ValueEnum};

use super::failure::Failure;
use super::table;
use crate::base::fault::{Fault, Place};
use crate::config::Checked;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::load::{self, Loaded};
use crate::config::warnings::{Circumstances, warnings};
use crate::decision::expectations;
use crate::decision::snapshot::Snapshot;
use crate::listener::descriptors;

/// The files to check.
#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The output format.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Treat warnings as faults: exit with 2 if there are any.
    #[arg(long)]
    strict: bool,
}

/// The output format.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text on standard error.
    Text,
    /// One JSON array on standard output.
    Json,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let mut all = Vec::new();
    for file in &arguments.files {
        let report = inspect(file);
        if arguments.format == Format::Text {
            eprint!("{}", text(file, &report));
        }
        all.extend(report.diagnostics);
    }
    if arguments.format == Format::Json {
        let json: Vec<serde_json::Value> = all.iter().map(Diagnostic::to_json).collect();
        table::json(&json)?;
    }
    let is_failure = |diagnostic: &Diagnostic| diagnostic.severity == Severity::Error || arguments.strict;
    // Everything has been printed.
    if all.iter().any(is_failure) { Err(Failure::usage("")) } else { Ok(()) }
}

/// The result for one file.
struct FileReport {
    /// One line about a valid file.
    summary: Option<String>,
    diagnostics: Vec<Diagnostic>,
}

fn inspect(file: &Path) -> FileReport {
    match load::open(file) {
        Ok(loaded) => {
            let diagnostics = examine(&loaded);
            let good = diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Warning);
            FileReport { summary: good.then(|| summary(file, &loaded.checked)), diagnostics }
        }
        Err(diagnostics) => FileReport { summary: None, diagnostics },
    }
}

/// The diagnostics of a valid file: failed tests, then warnings.
#[expect(clippy::disallowed_methods, reason = "limits need a start time; none is evaluated")]
fn examine(loaded: &Loaded) -> Vec<Diagnostic> {
    let circumstances = Circumstances { now: SystemTime::now(), descriptors: descriptors::raise_limit().ok() };
    let failed = match Snapshot::build(&loaded.checked, None, Instant::now()) {
        Ok(snapshot) => expectations::failures(&loaded.checked, &snapshot),
        Err(problem) => vec![Fault { place: Place::root(), problem, hint: String::new() }],
    };
    let mut diagnostics = loaded.source.diagnostics(Severity::Error, failed);
    diagnostics.extend(loaded.source.diagnostics(Severity::Warning, warnings(&loaded.checked.written, &circumstances)));
    diagnostics
}

/// The result for one file as text.
fn text(file: &Path, report: &FileReport) -> String {
    let mut text = String::new();
    if !report.diagnostics.is_empty() {
        text = format!("l7lb: {} in {}\n\n", count(&report.diagnostics), file.display());
        text.extend(report.diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")));
    }
    text.extend(report.summary.iter().map(|summary| format!("{summary}\n")));
    text
}

/// `-t`: checks a file like `check`.
pub(super) fn test(file: &Path) -> Result<(), Failure> {
    main(&Arguments { files: vec![file.to_owned()], format: Format::Text, strict: false })
}

/// Loads a file for serving.
pub(super) fn load(file: &Path) -> Result<Loaded, Failure> {
    load::open(file).map_err(|diagnostics| {
        let said: String = diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")).collect();
        Failure::usage(format!("{} in {}\n\n{said}", count(&diagnostics), file.display()))
    })
}

/// `2 faults and 1 warning`.
fn count(diagnostics: &[Diagnostic]) -> String {
    let faults = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    let counted = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    };
    let parts = [counted(faults, "fault"), counted(diagnostics.len() - faults, "warning")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

fn summary(file: &Path, checked: &Checked) -> String {
    let backends: usize = checked.pools.values().map(|pool| pool.members.len()).sum();
    format!(
        "{}: ok (listeners: {}, pools: {}, backends: {backends}, routes: {})",
        file.display(),
        checked.listeners.len(),
        checked.pools.len(),
        checked.routes.len()
    )
}
