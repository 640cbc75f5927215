//! The complete files in conf/examples.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::lab::run;

/// The files that a reader starts from.
const EXPECTED: [&str; 6] =
    ["canary.yaml", "grpc-and-rest.yaml", "production.yaml", "single-page-app.yaml", "tenants.yaml", "wordpress.yaml"];

/// A folder as the files expect it: with `conf`, and with the certificates of both domains in `certs`.
pub(super) fn folder() -> Arc<tempfile::TempDir> {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(root().join("conf"), folder.path().join("conf")).unwrap();
    let certificates = folder.path().join("certs").display().to_string();
    for domain in ["example.com", "example.org"] {
        let wildcard = format!("*.{domain}");
        let output = run(&["cert", "--folder", &certificates, "--name", domain, "--name", &wildcard]);
        assert!(output.status.success(), "{output:?}");
    }
    folder
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The example files.
fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("conf/examples")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

#[test]
fn every_example_file_has_tests_and_passes_check() {
    let folder = folder();
    let names: Vec<String> =
        files().iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    for expected in EXPECTED {
        assert!(names.iter().any(|name| name == expected), "{expected} is missing in {names:?}");
    }
    for name in names {
        let text = std::fs::read_to_string(root().join("conf/examples").join(&name)).unwrap();
        let yaml: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        let tests = yaml["tests"].as_sequence().map_or(0, Vec::len);
        assert!(tests >= 5, "{name} has {tests} tests");
        let file = format!("conf/examples/{name}");
        let output = Command::new(env!("CARGO_BIN_EXE_l7lb"))
            .args(["check", "--strict", &file])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
