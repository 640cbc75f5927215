//! Changing the configuration of a running process: what changes, what stays, who notices.

mod applied;
mod large;
mod removed;
mod state;
mod streams;
mod systemd;
mod told;
mod upgrade;

use std::path::PathBuf;
use std::process::Output;

use crate::lab::{Lab, run};

/// Puts another configuration in the place of the lab's, as editors do: written aside and renamed.
pub fn replace(lab: &Lab, yaml: &str) {
    let aside = tempfile::tempdir_in(lab.folder()).unwrap();
    // The certificate is in the lab's folder already.
    std::fs::write(aside.path().join("localhost.pem"), "").unwrap();
    let whole = Lab::configure(aside.path(), yaml);
    let text = std::fs::read_to_string(&whole).unwrap();
    // The server block must stay what it was.
    let text = text.replace(&aside.path().display().to_string(), &lab.folder().display().to_string());
    std::fs::write(&whole, text).unwrap();
    std::fs::rename(whole, file(lab)).unwrap();
}

pub fn file(lab: &Lab) -> PathBuf {
    lab.folder().join("l7lb.yaml")
}

/// `l7lb reload`.
fn reload(lab: &Lab) -> Output {
    run(&["reload", "--conf", file(lab).to_str().unwrap()])
}

/// A reload that must succeed; what it said.
pub fn reloaded(lab: &Lab) -> String {
    let ended = reload(lab);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}\n{}", lab.log());
    said
}

/// Configurations without looking at the file, so that a test decides when it is read.
pub const UNWATCHED: &str = "reload: { watch: false }\n";
