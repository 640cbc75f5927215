//! `l7lb cert`: writes a development certificate and its key.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Failure;
use crate::tls::development;

/// The names and the folder.
#[derive(Args)]
pub(super) struct Arguments {
    /// The folder to write to.
    #[arg(long, default_value = "certs", value_name = "FOLDER")]
    folder: PathBuf,
    /// A DNS name or IP address of the certificate; may be repeated.
    #[arg(long = "name", value_name = "NAME", default_values = ["localhost", "127.0.0.1", "::1"])]
    names: Vec<String>,
    /// Replace existing files.
    #[arg(long)]
    force: bool,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let (pem, _) = development::certificate(&arguments.names).map_err(Failure::usage)?;
    std::fs::create_dir_all(&arguments.folder)
        .map_err(|e| Failure::runtime(format!("cannot create {}: {e}", arguments.folder.display())))?;
    // The star of a wildcard is not used in the file name.
    let stem = arguments.names.first().map_or("localhost", String::as_str).trim_start_matches("*.");
    let certificate = arguments.folder.join(format!("{stem}.pem"));
    let key = arguments.folder.join(format!("{stem}-key.pem"));
    if !arguments.force {
        reject_existing(&[&certificate, &key])?;
    }
    write(&key, &pem.key, 0o600)?;
    write(&certificate, &pem.certificate, 0o644)?;
    eprintln!("certificate for {}: {}", arguments.names.join(", "), certificate.display());
    eprintln!("key (mode 0600, do not commit it): {}", key.display());
    Ok(())
}

/// Both files are checked before one is written, so that a pair is never half new.
fn reject_existing(files: &[&Path]) -> Result<(), Failure> {
    match files.iter().find(|file| file.exists()) {
        Some(file) => Err(Failure::usage(format!("{} exists already; use --force to replace it", file.display()))),
        None => Ok(()),
    }
}

/// Writes a new file with its mode from the start, so that a key is never readable by other users.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::runtime(format!("cannot write {}: {e}", path.display()));
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
