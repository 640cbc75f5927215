//! Where lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use super::config::Output;
use super::syslog::Syslog;

/// The destination of lines.
pub(super) enum Destination {
    Stdout,
    File { path: PathBuf, file: File },
    Syslog(Box<Syslog>),
}

impl Destination {
    #[expect(clippy::disallowed_methods, reason = "the connection to a receiver has no progress before now")]
    pub(super) fn open(output: &Output) -> io::Result<Self> {
        let path = match output {
            Output::Stdout => return Ok(Self::Stdout),
            Output::Syslog(spec) => return Ok(Self::Syslog(Box::new(Syslog::new(spec.clone(), Instant::now())))),
            Output::File(path) => path.clone(),
        };
        let named =
            |e: io::Error| io::Error::new(e.kind(), format!("cannot open the access log {}: {e}", path.display()));
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(named)?;
        Ok(Self::File { path, file })
    }

    /// Writes lines to standard output or a file.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File { file, .. } => file.write_all(bytes),
            Self::Syslog(_) => Ok(()),
        }
    }
}
