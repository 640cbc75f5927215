//! The API on the control socket of a running process, called as commands and scripts call it.

mod backends;
pub mod commands;
mod openapi;
mod protocol;
mod state_file;
mod inspection;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use http::{Method, StatusCode};
use l7lb::control::api::Client;
use serde_json::Value;

use crate::lab::{Lab, PATIENCE};

pub fn socket(lab: &Lab) -> PathBuf {
    lab.folder().join("control.sock")
}

/// Calls an endpoint; returns the status code and the JSON body of the response.
pub fn call(lab: &Lab, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
    let (status, response) = Client::new(socket(lab)).exchange(method, path, body.to_owned().into()).unwrap();
    (status, serde_json::from_slice(&response).unwrap())
}

/// Sends these bytes and returns the response as it is on the wire. The process may respond before it has read the
/// whole request, so a thread of its own writes.
pub fn raw_exchange(lab: &Lab, request: impl Into<Vec<u8>>) -> String {
    let mut stream = UnixStream::connect(socket(lab)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut writer, request) = (stream.try_clone().unwrap(), request.into());
    let writing = std::thread::spawn(move || writer.write_all(&request).ok());
    let mut response = Vec::new();
    let mut buffer = [0; 4096];
    // Reading fails if the process closes the connection before it has read everything.
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        response.extend_from_slice(&buffer[..read]);
    }
    drop(stream);
    writing.join().unwrap();
    String::from_utf8(response).unwrap()
}
