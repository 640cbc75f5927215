//! A backend that records the exact bytes that it receives, and responds to each complete request.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use super::scripted::Scripted;

/// One request as received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Request line and header fields, without the empty line.
    pub head: String,
    /// The body, without chunk framing.
    pub body: Vec<u8>,
}

impl Received {
    /// The request line without the version, and the body if there is one: `POST /x|body`.
    pub fn brief(&self) -> String {
        let line = self.head.lines().next().unwrap_or_default();
        let line = line.strip_suffix(" HTTP/1.1").unwrap_or(line);
        if self.body.is_empty() { line.to_owned() } else { format!("{line}|{}", self.body.escape_ascii()) }
    }

    /// All values of a field.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

/// The backend.
pub struct Recorder {
    pub port: u16,
    all: Arc<Mutex<Vec<Received>>>,
    _backend: Scripted,
}

impl Recorder {
    /// A backend that responds to every request with `answer`.
    pub fn answering(answer: &'static [u8]) -> Self {
        Self::responding(move |_| answer.to_vec())
    }

    /// A backend that responds to each request with the bytes for it.
    pub fn responding(respond: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let all = Arc::<Mutex<Vec<Received>>>::default();
        let record = Arc::clone(&all);
        let backend = Scripted::start(move |mut stream| {
            while let Some(received) = read(&mut stream) {
                let response = respond(&received);
                record.lock().unwrap().push(received);
                if stream.write_all(&response).is_err() {
                    return;
                }
            }
        });
        Self { port: backend.port, all, _backend: backend }
    }

    /// A backend that responds to every request with 200 and `ok`.
    pub fn start() -> Self {
        Self::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    }

    /// The requests received since the last call. An incomplete request is recorded without its body.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut *self.all.lock().unwrap())
    }
}

/// Reads one request as a naive server would. `None` at the end of the connection.
fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match byte(stream) {
            Some(byte) => head.push(byte),
            None if head.is_empty() => return None,
            None => break,
        }
    }
    let head = String::from_utf8_lossy(&head).trim_end().to_owned();
    let mut received = Received { head, body: Vec::new() };
    let chunked = !received.values("transfer-encoding").is_empty();
    let length = received.values("content-length").first().and_then(|value| value.parse().ok()).unwrap_or(0);
    if chunked {
        read_chunks(stream, &mut received.body);
    } else {
        stream.take(length).read_to_end(&mut received.body).ok();
    }
    Some(received)
}

fn read_chunks(stream: &mut TcpStream, body: &mut Vec<u8>) {
    loop {
        let line = line(stream);
        let Ok(size) = u64::from_str_radix(line.trim_end(), 16) else { return };
        if size == 0 {
            while line_is_field(stream) {}
            return;
        }
        stream.take(size).read_to_end(body).ok();
        stream.read_exact(&mut [0; 2]).ok();
    }
}

fn line_is_field(stream: &mut TcpStream) -> bool {
    !line(stream).trim_end().is_empty()
}

fn line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        match byte(stream) {
            Some(byte) => line.push(byte),
            None => break,
        }
    }
    String::from_utf8_lossy(&line).into_owned()
}

fn byte(stream: &mut TcpStream) -> Option<u8> {
    let mut byte = [0];
    (stream.read(&mut byte).ok()? == 1).then_some(byte[0])
}
