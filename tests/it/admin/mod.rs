//! The admin API over TCP: real processes, raw sockets and commands.

mod attacks;
mod commands;
mod login;
mod roles;
mod tls;
mod upgrade;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::lab::client::{self, Response};
use crate::lab::{Backend, Lab, free_port};
use crate::one_pool;

/// The tokens of the roles.
pub(crate) const READER: &str = "reader-0123456789abcdef0123456789abcdef";
pub(crate) const OPERATOR: &str = "operator-0123456789abcdef0123456789abcdef";
pub(crate) const OWNER: &str = "owner-0123456789abcdef0123456789abcdef";

/// The three tokens, in files of the lab's folder.
pub(crate) const TOKENS: &str = "tokens: [{ name: reader, file: '{folder}/reader.token', role: read }, \
    { name: operator, file: '{folder}/operator.token', role: operate }, { name: owner, file: '{folder}/owner.token', role: admin }]";

/// A process with an admin API.
pub(crate) struct Admin {
    pub lab: Lab,
    pub port: u16,
    pub backend: Backend,
}

pub(crate) fn write_token(folder: &Path, name: &str, content: &str) {
    use std::os::unix::fs::PermissionsExt;
    let new = folder.join(format!("{name}.new"));
    std::fs::write(&new, content).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&new, folder.join(format!("{name}.token"))).unwrap();
}

/// A folder with the token files.
pub(crate) fn folder() -> Arc<tempfile::TempDir> {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    for (name, token) in [("reader", READER), ("operator", OPERATOR), ("owner", OWNER)] {
        write_token(folder.path(), name, &format!("{token}\n"));
    }
    folder
}

impl Admin {
    /// Starts a process whose `admin` block has these keys besides `listen`.
    pub(crate) fn start(keys: &str) -> Self {
        Self::start_in(folder(), keys, "")
    }

    /// [`Admin::start`] with further blocks.
    pub(crate) fn start_with(keys: &str, more: &str) -> Self {
        Self::start_in(folder(), keys, more)
    }

    pub(crate) fn start_in(folder: Arc<tempfile::TempDir>, keys: &str, more: &str) -> Self {
        let (backend, port) = (Backend::start("one"), free_port());
        let admin = format!("admin: {{ listen: '127.0.0.1:{port}', {keys} }}\n{more}");
        let lab = Lab::start_in(folder, &one_pool(free_port(), &[&backend], &admin));
        Self { lab, port, backend }
    }

    /// A call without TLS.
    pub(crate) fn call(&self, token: Option<&str>, call: &str, body: &str) -> Response {
        let headers = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        self.call_with(&format!("Host: localhost\r\n{headers}"), call, body)
    }

    /// A call with these header lines, each ended by CRLF.
    pub(crate) fn call_with(&self, headers: &str, call: &str, body: &str) -> Response {
        client::exchange(self.port, request(headers, call, body).as_bytes())
    }

    /// The events of a kind.
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        let (_, events) = crate::control::call(&self.lab, http::Method::GET, "/events", "");
        events["events"].as_array().unwrap().iter().filter(|event| event["event"] == kind).cloned().collect()
    }
}

/// The bytes of a request such as `GET /pools`.
pub(crate) fn request(headers: &str, call: &str, body: &str) -> String {
    let content = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    format!("{call} HTTP/1.1\r\n{headers}{content}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

/// The cause in a problem document.
pub(crate) fn cause(response: &Response) -> String {
    assert_eq!(response.header("content-type"), "application/problem+json", "{response:?}");
    let problem: Value = serde_json::from_str(&response.body).unwrap();
    assert_eq!(problem["status"], response.status);
    problem["cause"].as_str().unwrap().to_owned()
}
