//! The `docker:` block of a source: the socket, and which containers are backends.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};

/// The socket of the Docker Engine.
const SOCKET: &str = "/var/run/docker.sock";
/// The longest path of a socket in bytes (unix(7)).
const PATH_MAX: usize = 107;

/// Configuration of containers as backends.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The Unix domain socket of the Docker Engine.
    #[serde(default = "socket")]
    pub socket: String,
    /// The labels that a container must have, as `NAME=VALUE`, or as `NAME` for any value. `l7lb.pool=POOL` by default.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The network whose addresses are used, for containers without the label `l7lb.network`.
    #[serde(default)]
    pub network: Option<String>,
    /// The TCP port, for containers without the label `l7lb.port`. By default, their only exposed port.
    #[serde(default)]
    pub port: Option<u16>,
}

fn socket() -> String {
    SOCKET.to_owned()
}

/// A checked source.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The socket; an absolute path.
    pub(super) socket: PathBuf,
    /// As in the configuration; empty for the label of the pool.
    pub(super) labels: Vec<String>,
    pub(super) network: Option<String>,
    pub(super) port: Option<u16>,
}

impl Config {
    /// Checks the block. The engine may start later.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        let socket = self.check_socket(&place.key("socket"), faults);
        for (index, label) in self.labels.iter().enumerate() {
            if label.is_empty() || label.starts_with('=') || label.chars().any(char::is_control) {
                let problem = format!("{label:?} is not a label");
                faults.add(place.key("labels").index(index), problem, "write for example app=shop");
            }
        }
        if self.network.as_deref() == Some("") {
            faults.add(place.key("network"), "the name is empty", "write a name that `docker network ls` lists");
        }
        if self.port == Some(0) {
            faults.add(place.key("port"), "port 0 is not the port of a backend", "write 1 to 65535");
        }
        Some(Spec { socket: socket?, labels: self.labels.clone(), network: self.network.clone(), port: self.port })
    }

    fn check_socket(&self, place: &Place, faults: &mut Faults) -> Option<PathBuf> {
        let path = self.socket.strip_prefix("unix://").unwrap_or(&self.socket);
        let problem = if path.contains("://") {
            format!("`{path}` is not a Unix domain socket, and others are not supported")
        } else if !path.starts_with('/') {
            format!("`{path}` is not an absolute path")
        } else if path.len() > PATH_MAX {
            format!("the path of a socket has at most {PATH_MAX} bytes, and this one has {}", path.len())
        } else {
            return Some(path.into());
        };
        faults.add(place.clone(), problem, "write for example /var/run/docker.sock");
        None
    }
}

impl Spec {
    /// The name of the source: the socket and the labels.
    #[must_use]
    pub fn name(&self) -> String {
        let labels: String = self.labels.iter().map(|label| format!(" {label}")).collect();
        format!("docker {}{labels}", self.socket.display())
    }
}
