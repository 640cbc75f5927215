//! An origin whose responses are computed by a closure, one call for each request.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::time::SystemTime;

use super::wire::{Kind, Message, read};
use crate::lab::scripted::Scripted;

/// The origin. Its threads end with the test process.
pub struct Origin {
    pub port: u16,
    _backend: Scripted,
}

impl Origin {
    /// Calls `respond` for each request, with the connection. The connection is closed if it returns an error.
    pub fn start(respond: impl Fn(Message, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let backend = Scripted::start(move |mut stream| {
            stream.set_nodelay(true).unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Some(request) = read(&mut reader, Kind::Request) {
                if respond(request, &mut stream).is_err() {
                    return;
                }
            }
        });
        Self { port: backend.port, _backend: backend }
    }

    /// Responds with these complete bytes, computed for each request.
    pub fn responding(respond: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        Self::start(move |request, stream| stream.write_all(respond(&request).as_bytes()))
    }
}

/// A complete 200 response with the current Date, these field lines (each ended by CRLF) and this body.
pub fn ok(fields: &str, body: &str) -> String {
    let date = httpdate::fmt_http_date(SystemTime::now());
    format!("HTTP/1.1 200 OK\r\nDate: {date}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}
