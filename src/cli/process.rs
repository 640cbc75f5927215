//! Which process a command asks, and what comes of an answer that does not come.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{EXIT_RUNTIME, EXIT_USAGE, Failure};
use crate::config::load;
use crate::control::api::client::Unanswered;
use crate::control::api::{Client, socket_path};

/// Which process.
#[derive(Args)]
pub(super) struct Which {
    /// The configuration file of the running process, whose `server` block says where to find it;
    /// without it, where a process without such a block is.
    #[arg(short, long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// The control socket itself.
    #[arg(long, value_name = "PATH", conflicts_with = "conf")]
    socket: Option<PathBuf>,
}

impl Which {
    /// Somebody to ask.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(Client::new(socket.clone()));
        }
        let server = load::server(self.conf.as_deref()).map_err(|diagnostics| {
            Failure::usage(format!(
                "nothing was changed\n\n{}",
                diagnostics.iter().map(ToString::to_string).collect::<String>()
            ))
        })?;
        Ok(Client::new(socket_path(&server.upgrade_sock)))
    }
}

/// Which process is asked, and for whom.
#[derive(Args)]
pub(super) struct Asked {
    #[command(flatten)]
    which: Which,
    /// Print JSON for programs.
    #[arg(long)]
    pub(super) json: bool,
}

impl Asked {
    /// The configuration file, where one is given.
    pub(super) fn conf(&self) -> Option<&Path> {
        self.which.conf.as_deref()
    }

    /// Somebody to ask.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        self.which.client()
    }
}

/// What the process refuses because of what it was asked is the asker's fault.
impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        let code = match &unanswered {
            Unanswered::Problem(problem) if (400..500).contains(&problem.status) => EXIT_USAGE,
            _ => EXIT_RUNTIME,
        };
        Self { code, message: unanswered.to_string() }
    }
}
