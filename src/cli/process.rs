//! The process that a command connects to, and failures of calls.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::{EXIT_RUNTIME, EXIT_USAGE, Failure};
use super::server;
use crate::config::load;
use crate::control::api::client::CallError;
use crate::control::api::{Client, socket_path};

/// The selection of a process.
#[derive(Args)]
pub(super) struct ProcessSelector {
    /// The configuration file of the running process, whose `server` block contains the path of its socket;
    /// without it the default path is used.
    #[arg(short, long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// The path of the control socket.
    #[arg(long, value_name = "PATH", conflicts_with = "conf")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    server: server::ServerArguments,
}

impl ProcessSelector {
    /// A client of the process.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(Client::new(socket.clone()));
        }
        if let Some(client) = self.server.client(self.conf.is_some())? {
            return Ok(client);
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

/// The process and the output format.
#[derive(Args)]
pub(super) struct ProcessArguments {
    #[command(flatten)]
    which: ProcessSelector,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl ProcessArguments {
    /// The configuration file, if given.
    pub(super) fn conf(&self) -> Option<&Path> {
        self.which.conf.as_deref()
    }

    /// Whether `--server` is given.
    pub(super) fn has_server(&self) -> bool {
        self.which.server.is_given()
    }

    /// A client of the process.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        self.which.client()
    }
}

/// A call that the process rejects because of its input is a usage fault.
impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let code = match &error {
            CallError::Problem(problem) if (400..500).contains(&problem.status) => EXIT_USAGE,
            _ => EXIT_RUNTIME,
        };
        Self { code, message: error.to_string() }
    }
}
