//! `--server` and its files: the admin API of a process on another machine.
//!
//! The environment variables are defaults of the flags. They do not conflict with `--conf` and `--socket`, which name a
//! process of this machine and come first.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use crate::control::api::Client;
use crate::control::api::remote::{ClientFiles, Remote};

/// The variable with the server.
const SERVER: &str = "L7LB_SERVER";
/// The variable with the token file.
const TOKEN_FILE: &str = "L7LB_TOKEN_FILE";
/// The variable with the file of authorities.
const CA: &str = "L7LB_CA";

/// A server, and the files to authenticate to it.
#[derive(Args)]
pub(super) struct ServerArguments {
    /// The URL of the admin API of a process [env: L7LB_SERVER].
    #[arg(long, value_name = "URL", conflicts_with_all = ["conf", "socket"])]
    server: Option<String>,
    /// The file with the token for the server [env: L7LB_TOKEN_FILE].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["conf", "socket"])]
    token_file: Option<PathBuf>,
    /// PEM file with the authorities of the server's certificate; by default those of the system [env: L7LB_CA].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["conf", "socket"])]
    ca: Option<PathBuf>,
    /// PEM file with a client certificate for the server.
    #[arg(long, value_name = "FILE", requires = "client_key", conflicts_with_all = ["conf", "socket"])]
    client_cert: Option<PathBuf>,
    /// PEM file with its private key.
    #[arg(long, value_name = "FILE", requires = "client_cert", conflicts_with_all = ["conf", "socket"])]
    client_key: Option<PathBuf>,
}

impl ServerArguments {
    /// Whether `--server` is given.
    pub(super) fn is_given(&self) -> bool {
        self.server.is_some()
    }

    /// A client of the server; `None` if there is none. With `--conf` (`has_conf`), the variables do not count.
    pub(super) fn client(&self, has_conf: bool) -> Result<Option<Client>, Failure> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !has_conf && !value.is_empty());
        let from_variable = || variable(SERVER).map(|value| value.to_string_lossy().into_owned());
        let Some(server) = self.server.clone().or_else(from_variable) else {
            if [&self.token_file, &self.ca, &self.client_cert].into_iter().any(Option::is_some) {
                return Err(Failure::usage(format!("name the server with `--server URL` or {SERVER}")));
            }
            return Ok(None);
        };
        let file = |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| variable(name).map(PathBuf::from));
        let (token, ca) = (file(&self.token_file, TOKEN_FILE), file(&self.ca, CA));
        // A variable for other servers does not concern one without TLS.
        let ca = ca.filter(|_| self.ca.is_some() || server.starts_with("https:"));
        let files = ClientFiles {
            token: token.as_deref(),
            ca: ca.as_deref(),
            certificate: self.client_cert.as_deref().zip(self.client_key.as_deref()),
        };
        Remote::new(&server, files).map(|remote| Some(Client::remote(remote))).map_err(Failure::usage)
    }
}
