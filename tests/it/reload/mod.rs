//! Reloads and upgrades of a running process: what they change, what they keep and what they report.

mod applied;
mod large;
mod removed;
mod state;
mod streams;
mod systemd;
mod reports;
mod upgrade;

use std::path::PathBuf;
use std::process::Output;

use crate::lab::{Lab, run};

/// Replaces the configuration file as editors do: writes a new file and renames it.
pub fn replace(lab: &Lab, yaml: &str) {
    let other = tempfile::tempdir_in(lab.folder()).unwrap();
    // Keeps `configure` from creating a certificate; the lab's folder has one.
    std::fs::write(other.path().join("localhost.pem"), "").unwrap();
    let new = Lab::configure(other.path(), yaml);
    let text = std::fs::read_to_string(&new).unwrap();
    // The `server` block stays unchanged.
    let text = text.replace(&other.path().display().to_string(), &lab.folder().display().to_string());
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file(lab)).unwrap();
}

pub fn file(lab: &Lab) -> PathBuf {
    lab.folder().join("l7lb.yaml")
}

/// Runs `l7lb reload`.
pub fn reload(lab: &Lab) -> Output {
    run(&["reload", "--conf", file(lab).to_str().unwrap()])
}

/// Runs `l7lb reload`, which must succeed; returns its standard error.
pub fn reloaded(lab: &Lab) -> String {
    let output = reload(lab);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}\n{}", lab.log());
    stderr
}

/// Turns the file watch off, so that a test decides when the file is read.
pub const UNWATCHED: &str = "reload: { watch: false }\n";
