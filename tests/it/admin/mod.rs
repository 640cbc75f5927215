//! The API at the control socket: the real process, asked as its commands and as scripts ask it.

mod backends;
mod commands;
mod openapi;
mod protocol;
mod told;

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

/// What is answered to these bytes, as it is on the wire. It may come before all of them are taken.
fn raw(lab: &Lab, request: impl Into<Vec<u8>>) -> String {
    let mut stream = UnixStream::connect(socket(lab)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut writer, request) = (stream.try_clone().unwrap(), request.into());
    let writing = std::thread::spawn(move || writer.write_all(&request).ok());
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // A connection that is closed with bytes unread ends with an error.
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..read]);
    }
    drop(stream);
    writing.join().unwrap();
    String::from_utf8(answer).unwrap()
}
