//! `l7lb check`: everything that is wrong with a file, without touching the network.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use crate::config::{self, Checked};

/// What to check.
#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let mut faults = String::new();
    for file in &arguments.files {
        match load(file) {
            Ok(checked) => eprintln!("{}", summary(file, &checked)),
            Err(failure) => faults.push_str(&failure.message),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::usage(faults)) }
}

/// Reads a file and proves it consistent.
pub(super) fn load(file: &Path) -> Result<Checked, Failure> {
    config::load::load(file).map_err(|diagnostics| {
        let mut message = format!("{} in {}\n\n", faults(diagnostics.len()), file.display());
        for diagnostic in diagnostics {
            // Writing to a String cannot fail.
            writeln!(message, "{diagnostic}").ok();
        }
        Failure::usage(message)
    })
}

fn faults(count: usize) -> String {
    if count == 1 { "1 fault".to_owned() } else { format!("{count} faults") }
}

/// One line about a file that is all right.
pub(super) fn summary(file: &Path, checked: &Checked) -> String {
    let backends: usize = checked.pools.values().map(|pool| pool.members.len()).sum();
    format!(
        "{}: ok (listeners: {}, pools: {}, backends: {backends}, routes: {})",
        file.display(),
        checked.listeners.len(),
        checked.pools.len(),
        checked.routes.len()
    )
}
