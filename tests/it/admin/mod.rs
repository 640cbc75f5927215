//! The API at the control socket: the real process, asked as its commands and as scripts ask it.

mod protocol;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use http::{Method, StatusCode};
use l7lb::admin::Client;
use serde_json::Value;

use crate::lab::{Lab, PATIENCE};

pub fn socket(lab: &Lab) -> PathBuf {
    lab.folder().join("control.sock")
}

/// What is answered, and its status.
pub fn ask(lab: &Lab, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
    let (status, answer) = Client::new(socket(lab)).exchange(method, path, body.to_owned().into()).unwrap();
    (status, serde_json::from_slice(&answer).unwrap())
}

/// What is answered to these bytes, as it is on the wire.
fn raw(lab: &Lab, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket(lab)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
