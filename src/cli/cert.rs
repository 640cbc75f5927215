//! `l7lb cert`: a development certificate and its key as files.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use crate::tls::development;

/// What to write, and where.
#[derive(Args)]
pub(super) struct Arguments {
    /// The folder to write to.
    #[arg(long, default_value = "certs", value_name = "FOLDER")]
    folder: PathBuf,
    /// A DNS name or IP address that the certificate is for; may be repeated.
    #[arg(long = "name", value_name = "NAME", default_values = ["localhost", "127.0.0.1", "::1"])]
    names: Vec<String>,
    /// Replace files that are there already.
    #[arg(long)]
    force: bool,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let (pem, _) = development::certificate(&arguments.names).map_err(Failure::usage)?;
    std::fs::create_dir_all(&arguments.folder)
        .map_err(|e| Failure::runtime(format!("cannot make {}: {e}", arguments.folder.display())))?;
    // A wildcard's star is no part of a file name.
    let stem = arguments.names.first().map_or("localhost", String::as_str).trim_start_matches("*.");
    let certificate = arguments.folder.join(format!("{stem}.pem"));
    let key = arguments.folder.join(format!("{stem}-key.pem"));
    if !arguments.force {
        refuse_to_replace(&[&certificate, &key])?;
    }
    write(&key, &pem.key, 0o600)?;
    write(&certificate, &pem.certificate, 0o644)?;
    eprintln!("certificate for {}: {}", arguments.names.join(", "), certificate.display());
    eprintln!("key (mode 0600, not to be committed): {}", key.display());
    Ok(())
}

/// Both files are looked at before one is written, so that no pair is half new.
fn refuse_to_replace(files: &[&Path]) -> Result<(), Failure> {
    match files.iter().find(|file| file.exists()) {
        Some(file) => Err(Failure::usage(format!("{} exists already; use --force to replace it", file.display()))),
        None => Ok(()),
    }
}

/// Writes a new file with its mode from the start, so that a key is never readable by others.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::runtime(format!("cannot write {}: {e}", path.display()));
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
