//! The client of a case: sends its bytes and records the responses.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::time::Duration;

use super::backend::{read_chunks, write_split};
use super::case::Case;
use crate::lab::client::connect;

/// One response, or the end of the connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A response.
    Response {
        status: String,
        /// The interim responses before it.
        interim: String,
        /// The fields in lower case and sorted, without date and request id.
        fields: Vec<String>,
        framing: &'static str,
        body: String,
        /// Whether its end was seen.
        complete: bool,
    },
    /// The connection was closed.
    Closed,
    /// Nothing happened for too long.
    Timeout,
    /// The response to a stream.
    Stream {
        status: u16,
        /// As above.
        fields: Vec<String>,
        body: String,
        /// Empty, or the reason of a reset.
        end: String,
    },
}

/// How long nothing may happen.
pub const PATIENCE: Duration = Duration::from_secs(8);

pub fn run(port: u16, number: usize, case: &Case) -> Vec<Seen> {
    let stream = connect(port);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = case.request.bytes(&case.path(number), number);
    let mut writer = stream.try_clone().unwrap();
    if let Some(abort) = case.request.abort {
        bytes.truncate(abort.min(bytes.len() - 1));
        write_split(&mut writer, &bytes, &case.request.splits);
        std::thread::sleep(Duration::from_millis(3));
        reset_on_close(&stream);
        return Vec::new();
    }
    let mut methods = vec![case.request.method];
    if case.pipelined {
        bytes.extend_from_slice(
            format!("GET {}?2 HTTP/1.1\r\nHost: x\r\nX-Case: {number}\r\n\r\n", case.path(number)).as_bytes(),
        );
        methods.push("GET");
    }
    let splits = case.request.splits.clone();
    // The balancer may respond before it has read everything.
    let sending = std::thread::spawn(move || write_split(&mut writer, &bytes, &splits));
    let mut reader = BufReader::new(stream);
    let mut seen = Vec::new();
    for method in methods {
        let response = read_response(&mut reader, method);
        let goes_on = matches!(&response, Seen::Response { complete: true, fields, framing, .. } if !closes(fields) && *framing != "close");
        seen.push(response);
        if !goes_on {
            break;
        }
    }
    if let Some(Seen::Response { fields, complete: true, .. }) = seen.last()
        && closes(fields)
    {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).ok();
        assert!(rest.is_empty(), "case {number}: bytes after the last response: {}", rest.escape_ascii());
        seen.push(Seen::Closed);
    }
    drop(reader);
    sending.join().unwrap();
    seen
}

fn closes(fields: &[String]) -> bool {
    fields.iter().any(|field| field == "connection: close")
}

/// Makes closing the connection reset it.
pub fn reset_on_close(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn read_response(reader: &mut BufReader<TcpStream>, method: &str) -> Seen {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(_) if line.ends_with("\r\n") => {}
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return Seen::Timeout;
            }
            _ => return Seen::Closed,
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status = lines.remove(0).split_once(' ').unwrap().1.to_lowercase();
    if status.starts_with('1') {
        // Interim responses are compared as part of the next one.
        let mut next = read_response(reader, method);
        if let Seen::Response { interim, .. } = &mut next {
            *interim = format!("{status} {lines:?}, {interim}").to_lowercase();
        }
        return next;
    }
    let fields = lines.iter().map(|line| line.to_ascii_lowercase());
    let mut fields: Vec<String> =
        fields.filter(|line| !line.starts_with("date:") && !line.starts_with("x-request-id:")).collect();
    fields.sort_unstable();
    let (framing, body, complete) =
        read_body(reader, &fields, method == "HEAD" || status.starts_with("204") || status.starts_with("304"));
    if framing == "close" {
        // Pingora's loop promises keep-alive before such a body, and closes nevertheless.
        fields.retain(|field| !field.starts_with("connection:"));
    }
    Seen::Response { status, interim: String::new(), fields, framing, body: summary(&body), complete }
}

/// A short text that identifies a body. Error pages contain the request id, which differs.
pub fn summary(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.split("Request id: ").next().unwrap().split("request_id").next().unwrap();
    if text.len() <= 100 {
        return text.to_owned();
    }
    let hash = body.iter().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    format!("{}... {} bytes, hash {hash:x}", &text[..20], body.len())
}

fn read_body(reader: &mut BufReader<TcpStream>, fields: &[String], bodiless: bool) -> (&'static str, Vec<u8>, bool) {
    let mut body = Vec::new();
    if bodiless {
        return ("none", body, true);
    }
    if fields.iter().any(|field| field.starts_with("transfer-encoding:") && field.ends_with("chunked")) {
        let complete = read_chunks(reader, &mut body).is_some();
        return ("chunked", body, complete);
    }
    let length = fields.iter().find_map(|field| field.strip_prefix("content-length: ")?.parse::<u64>().ok());
    match length {
        Some(length) => {
            reader.take(length).read_to_end(&mut body).ok();
            let complete = body.len() as u64 == length;
            ("length", body, complete)
        }
        None => {
            let complete = reader.read_to_end(&mut body).is_ok();
            ("close", body, complete)
        }
    }
}
