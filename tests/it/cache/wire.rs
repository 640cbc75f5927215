//! HTTP/1.1 messages on raw sockets, for the client and the origin: repeated fields, HEAD, ranges and truncated bodies
//! stay visible.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::lab::PATIENCE;

/// One request or response.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Request line or status line.
    pub start: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body arrived as announced.
    pub is_complete: bool,
    /// The statuses of the interim responses before it.
    pub interim: Vec<u16>,
}

impl Message {
    /// All values of a field, joined by `, `. `None` if the message has no such field.
    pub fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self.values(name);
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.as_str()).collect()
    }

    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    pub fn status(&self) -> u16 {
        self.target().parse().unwrap_or(0)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether Cache-Status says that l7lb served it from its cache.
    pub fn is_hit(&self) -> bool {
        self.field("cache-status").is_some_and(|status| status.contains(super::HIT))
    }
}

/// What delimits the body of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Request,
    /// The response to this request has a body if its status allows one.
    Response,
    ResponseToHead,
}

/// Reads one message; interim responses are collected. `None` if the connection ends before its header section.
pub fn read(reader: &mut BufReader<TcpStream>, kind: Kind) -> Option<Message> {
    let mut message = read_head(reader)?;
    let mut interim = Vec::new();
    while kind != Kind::Request && (100..200).contains(&message.status()) {
        interim.push(message.status());
        message = read_head(reader)?;
    }
    message.interim = interim;
    let without_body =
        kind == Kind::ResponseToHead || (kind == Kind::Response && matches!(message.status(), 204 | 304));
    message.is_complete = if without_body {
        true
    } else if message.field("transfer-encoding").is_some() {
        read_chunks(reader, &mut message.body).is_some()
    } else if let Some(length) = message.field("content-length") {
        let length: u64 = length.parse().unwrap();
        reader.take(length).read_to_end(&mut message.body).is_ok() && message.body.len() as u64 == length
    } else {
        kind == Kind::Request || reader.read_to_end(&mut message.body).is_ok()
    };
    Some(message)
}

fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    let line = line.strip_suffix(b"\r\n")?;
    Some(String::from_utf8_lossy(line).into_owned())
}

/// Reads request line or status line, and the fields.
pub fn read_head(reader: &mut BufReader<TcpStream>) -> Option<Message> {
    let mut message = Message { start: line(reader)?, ..Message::default() };
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            return Some(message);
        }
        let (name, value) = line.split_once(':')?;
        message.fields.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_chunks(reader: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let size = usize::from_str_radix(line(reader)?.trim(), 16).ok()?;
        if size == 0 {
            while !line(reader)?.is_empty() {}
            return Some(());
        }
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..]).ok()?;
        line(reader)?;
    }
}

/// A connection of a client.
pub struct Client {
    pub reader: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
    }

    /// Sends a request with these fields and without a body, and reads the response.
    pub fn ask(&mut self, method: &str, target: &str, fields: &[(&str, &str)]) -> Message {
        self.send(&head(method, target, fields));
        let kind = if method == "HEAD" { Kind::ResponseToHead } else { Kind::Response };
        read(&mut self.reader, kind).unwrap_or_else(|| panic!("no response to {method} {target} {fields:?}"))
    }
}

/// A request without a body. Host is added if it is missing.
pub fn head(method: &str, target: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str("Host: cache.test\r\n");
    }
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// A GET on a new connection.
pub fn get(port: u16, target: &str, fields: &[(&str, &str)]) -> Message {
    Client::connect(port).ask("GET", target, fields)
}
