//! A backend that treats each request as its case says.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::case::{Attempt, Case, End};
use super::client::{reset_on_close, summary};
use crate::lab::scripted::Scripted;

/// A request as the backend received it.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Request line and fields, in lower case and sorted, without the request id.
    pub head: Vec<String>,
    /// The body, if the backend has read it; its end may be missing.
    pub body: Option<(String, bool)>,
}

/// A case, and what was received for it.
type Known = (Arc<Case>, Vec<Received>);

/// The cases that the backend knows, and what it received for them.
#[derive(Default)]
pub struct Cases {
    pub(super) known: Mutex<HashMap<usize, Known>>,
}

impl Cases {
    pub fn insert(&self, number: usize, case: &Arc<Case>) {
        self.known.lock().unwrap().insert(number, (Arc::clone(case), Vec::new()));
    }

    /// What was received for the case.
    pub fn take(&self, number: usize, case: &Case) -> Vec<Received> {
        if case.request.abort.is_some() {
            // Whether an incomplete request has arrived before its connection was closed is a matter of time.
            return Vec::new();
        }
        self.known.lock().unwrap().remove(&number).map(|(_, received)| received).unwrap_or_default()
    }

    /// Starts a backend; returns its port.
    pub fn start(self: &Arc<Self>) -> u16 {
        let cases = Arc::clone(self);
        Scripted::start(move |stream| {
            // A connection that the balancer closes ends the script.
            let _ = cases.serve(stream);
        })
        .port
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut writer = stream.try_clone().ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let head = read_head(&mut reader)?;
            let number = head.iter().find_map(|line| line.strip_prefix("x-case: ")?.parse().ok())?;
            let attempt = self.attempt(number)?;
            let mut received = Received { head, body: None };
            if attempt.reads_body {
                received.body = Some(read_body(&mut reader, &received.head));
            }
            let head = received.head.clone();
            if self.repeats_without_body(number) {
                received.head.retain(|line| line != "transfer-encoding: chunked");
            }
            let complete = received.body.as_ref().is_none_or(|(_, complete)| *complete);
            self.known.lock().unwrap().get_mut(&number)?.1.push(received);
            if !complete {
                return None;
            }
            write_split(&mut writer, &attempt.response, &attempt.splits)?;
            match attempt.end {
                End::Keep if attempt.reads_body => {}
                End::Keep => drop(read_body(&mut reader, &head)),
                End::Close => {
                    writer.shutdown(std::net::Shutdown::Write).ok()?;
                    if !attempt.reads_body {
                        // Closing with unread bytes would reset the connection.
                        read_body(&mut reader, &head);
                    }
                    return None;
                }
                End::Reset => {
                    // What was sent must be read before the reset discards it.
                    std::thread::sleep(Duration::from_millis(10));
                    reset_on_close(&writer);
                    return None;
                }
            }
        }
    }

    /// Whether Pingora's loop may repeat the request without a body: it forgets an empty chunked one.
    fn repeats_without_body(&self, number: usize) -> bool {
        self.known.lock().unwrap().get(&number).is_some_and(|(case, _)| case.has_empty_body())
    }

    fn attempt(&self, number: usize) -> Option<Attempt> {
        let known = self.known.lock().unwrap();
        let (case, received) = known.get(&number)?;
        case.attempts.get(received.len()).or(case.attempts.last()).cloned()
    }
}

pub fn write_split(stream: &mut TcpStream, bytes: &[u8], splits: &[usize]) -> Option<()> {
    let mut at = 0;
    for split in splits.iter().filter(|split| **split < bytes.len()) {
        stream.write_all(&bytes[at..*split]).ok()?;
        at = *split;
        std::thread::sleep(Duration::from_millis(1));
    }
    stream.write_all(&bytes[at..]).ok()
}

fn read_head(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).ok().filter(|length| *length > 0)?;
        let line = String::from_utf8_lossy(&line).trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if !line.starts_with("x-request-id") {
            lines.push(line);
        }
    }
    lines.sort_unstable();
    Some(lines)
}

/// Reads the body, without its trailers. Returns whether it was complete.
fn read_body(reader: &mut impl BufRead, head: &[String]) -> (String, bool) {
    let value = |name: &str| head.iter().find_map(|line| line.strip_prefix(name));
    let mut body = Vec::new();
    if value("transfer-encoding: ").is_some() {
        let complete = read_chunks(reader, &mut body).is_some();
        return (summary(&body), complete);
    }
    let length: u64 = value("content-length: ").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_end(&mut body).ok();
    let complete = body.len() as u64 == length;
    (summary(&body), complete)
}

/// Reads a chunked body and skips its trailers.
pub fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|_| line.ends_with("\r\n"))?;
        let size = usize::from_str_radix(line.trim(), 16).ok()?;
        if size == 0 {
            break;
        }
        let start = body.len();
        reader.take(size as u64).read_to_end(body).ok()?;
        let mut end = [0; 2];
        reader.read_exact(&mut end).ok().filter(|()| &end == b"\r\n" && body.len() == start + size)?;
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|_| line.ends_with("\r\n"))?;
        if line == "\r\n" {
            return Some(());
        }
    }
}
