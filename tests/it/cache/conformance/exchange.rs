//! Runs the exchanges of one case, and responds in the role of the origin.

use std::collections::HashMap;
use std::io::{Error, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::super::wire::{Client, Kind, Message, read};
use super::fields::{Check, Dates};
use super::table::{Answer, Body, Case, Exchange, Step};

/// What the origin sends to the next request of a case, and what it has received.
#[derive(Default)]
pub struct Slot {
    /// The responses to the first requests; the last one repeats.
    replies: Vec<Reply>,
    received: Vec<Message>,
}

/// The slots of all cases by their number.
pub type Slots = Arc<HashMap<usize, Mutex<Slot>>>;

#[derive(Clone)]
struct Reply {
    head: Vec<u8>,
    body: Vec<u8>,
    delay: Duration,
    closes: bool,
}

/// The origin: finds the case by the path and sends its response.
pub fn respond(slots: &Slots, request: Message, stream: &mut TcpStream) -> std::io::Result<()> {
    let number = request.target().split(['/', '?']).nth(2).and_then(|number| number.parse::<usize>().ok());
    let Some(slot) = number.and_then(|number| slots.get(&number)) else {
        return stream.write_all(b"HTTP/1.1 500 Unknown Case\r\nContent-Length: 0\r\n\r\n");
    };
    let is_head = request.method() == "HEAD";
    let reply = {
        let mut slot = slot.lock().unwrap();
        slot.received.push(request);
        slot.replies.get(slot.received.len() - 1).or(slot.replies.last()).cloned()
    };
    let Some(reply) = reply else {
        return stream.write_all(b"HTTP/1.1 500 Unexpected\r\nContent-Length: 0\r\nCache-Control: no-store\r\n\r\n");
    };
    std::thread::sleep(reply.delay);
    let body: &[u8] = if is_head { &[] } else { &reply.body };
    stream.write_all(&[&reply.head, body].concat())?;
    if reply.closes { Err(Error::other("closed")) } else { Ok(()) }
}

/// The bytes of a response. `own` is the body if the table has none.
fn reply(answer: &Answer, own: &str, dates: &Dates) -> Reply {
    let closes = ["close", "truncated", "cutchunks", "drop"].iter().any(|flag| answer.has(flag));
    if answer.has("drop") {
        return Reply { head: Vec::new(), body: Vec::new(), delay: answer.delay, closes };
    }
    let body = content(answer, own);
    let mut head = String::new();
    if answer.has("interim") {
        head.push_str("HTTP/1.1 103 Early Hints\r\nLink: </early>\r\nCache-Control: max-age=1000\r\n\r\n");
    }
    head.push_str(&format!("HTTP/1.1 {} Status\r\n", answer.status));
    for (name, value) in &answer.fields {
        head.push_str(&format!("{name}: {}\r\n", dates.fill(value)));
    }
    if !answer.has("nodate") && !answer.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("date")) {
        head.push_str(&format!("Date: {}\r\n", httpdate::fmt_http_date(SystemTime::now())));
    }
    let (last, body) = if answer.has("chunked") || answer.has("trailer") || answer.has("cutchunks") {
        let trailer = if answer.has("trailer") { "X-Trailer: late\r\nCache-Control: no-store\r\n" } else { "" };
        let end = if answer.has("cutchunks") { String::new() } else { format!("0\r\n{trailer}\r\n") };
        ("Transfer-Encoding: chunked".to_owned(), format!("{:x}\r\n{body}\r\n{end}", body.len()))
    } else if answer.has("close") {
        ("Connection: close".to_owned(), body)
    } else if matches!(answer.status, 204 | 304) {
        ("Server: origin".to_owned(), String::new())
    } else {
        let missing = if answer.has("truncated") { 5 } else { 0 };
        (format!("Content-Length: {}", body.len() + missing), body)
    };
    Reply { head: format!("{head}{last}\r\n\r\n").into_bytes(), body: body.into_bytes(), delay: answer.delay, closes }
}

/// The body that the origin sends.
fn content(answer: &Answer, own: &str) -> String {
    if answer.has("empty") || matches!(answer.status, 204 | 304) {
        return String::new();
    }
    match &answer.body {
        // A number of bytes, for large bodies.
        Some(text) if text.starts_with("x*") => "x".repeat(text[2..].parse().unwrap()),
        Some(text) => text.clone(),
        None => own.to_owned(),
    }
}

/// Limits the exchanges at one time, so that they do not exceed the accept queue of the origin.
pub struct Turns {
    free: Mutex<usize>,
    returned: Condvar,
}

impl Turns {
    pub fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), returned: Condvar::new() }
    }

    /// Runs `exchange` when its turn comes.
    fn take<T>(&self, exchange: impl FnOnce() -> T) -> T {
        let mut free = self.returned.wait_while(self.free.lock().unwrap(), |free| *free == 0).unwrap();
        *free -= 1;
        drop(free);
        let result = exchange();
        *self.free.lock().unwrap() += 1;
        self.returned.notify_one();
        result
    }
}

/// Runs a case. The error has its exchanges up to the failed one.
pub fn run(case: &Case, slot: &Mutex<Slot>, port: u16, turns: &Turns) -> Result<(), String> {
    let dates = Dates { start: SystemTime::now(), path: format!("/{}/{}", case.route, case.number) };
    let mut history = History::default();
    let mut log = String::new();
    for step in &case.steps {
        let exchange = match step {
            Step::Wait(duration) => {
                std::thread::sleep(*duration);
                continue;
            }
            Step::Exchange(exchange) => exchange,
        };
        let own = format!("body-{}-{}", case.number, history.bodies.len() + 1);
        let last = exchange.second.as_ref().or(exchange.origin.as_ref());
        history.bodies.push(last.map(|answer| content(answer, &own)));
        let (response, received) = turns.take(|| perform(exchange, slot, port, &own, &dates));
        log.push_str(&transcript(exchange, response.as_ref(), &received));
        let faults = match &response {
            None => vec!["the connection ended without a response".to_owned()],
            Some(response) => faults(exchange, response, &received, &history, &dates),
        };
        if !faults.is_empty() {
            return Err(format!("{log}    FAULT {}", faults.join("\n    FAULT ")));
        }
        if let Some(answer) = last {
            history.remember(exchange, answer);
        }
    }
    Ok(())
}

/// The responses of the origin so far.
#[derive(Default)]
struct History {
    /// The body of each exchange.
    bodies: Vec<Option<String>>,
    /// Suffix, number and status of the full responses.
    full: Vec<(String, usize, u16)>,
}

impl History {
    fn remember(&mut self, exchange: &Exchange, answer: &Answer) {
        let is_error = answer.status >= 500 && !self.full.is_empty();
        if exchange.method == "GET" && ![206, 304].contains(&answer.status) && !is_error {
            self.full.push((exchange.suffix.clone(), self.bodies.len(), answer.status));
        }
    }

    /// Status and body of the last full response to this target, before this exchange.
    fn stored(&self, suffix: &str) -> Option<(u16, String)> {
        let (_, number, status) = self.full.iter().rfind(|(known, ..)| known == suffix).or(self.full.last())?;
        Some((*status, self.bodies[number - 1].clone()?))
    }
}

fn perform(
    exchange: &Exchange,
    slot: &Mutex<Slot>,
    port: u16,
    own: &str,
    dates: &Dates,
) -> (Option<Message>, Vec<Message>) {
    let background = exchange.origin.as_ref().is_some_and(|answer| answer.is_background);
    let replies = exchange.origin.iter().chain(&exchange.second).map(|answer| reply(answer, own, dates)).collect();
    *slot.lock().unwrap() = Slot { replies, received: Vec::new() };
    let mut text = format!("{} {}{} HTTP/1.1\r\n", exchange.method, dates.path, exchange.suffix);
    if !exchange.fields.iter().any(|(name, _)| name == "Host") {
        text.push_str("Host: cache.test\r\n");
    }
    for (name, value) in &exchange.fields {
        text.push_str(&format!("{name}: {}\r\n", dates.fill(value)));
    }
    let body = exchange.body.as_deref().unwrap_or_default();
    if exchange.body.is_some() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    let mut client = Client::connect(port);
    client.send(format!("{text}Connection: close\r\n\r\n{body}").as_bytes());
    let kind = if exchange.method == "HEAD" { Kind::ResponseToHead } else { Kind::Response };
    let mut response = read(&mut client.reader, kind);
    // Bytes behind the response would be the next response for the client.
    let surplus = response.is_some() && client.reader.read(&mut [0]).is_ok_and(|count| count > 0);
    response.iter_mut().for_each(|response| response.is_complete &= !surplus);
    if background {
        let until = Instant::now() + Duration::from_secs(5);
        while slot.lock().unwrap().received.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    (response, std::mem::take(&mut slot.lock().unwrap().received))
}

/// What is wrong with one exchange.
fn faults(
    exchange: &Exchange,
    response: &Message,
    received: &[Message],
    history: &History,
    dates: &Dates,
) -> Vec<String> {
    let mut faults = Vec::new();
    let answer = exchange.origin.as_ref();
    let requests = 1 + usize::from(exchange.second.is_some());
    // A failing origin may get more than one attempt.
    let is_failing = answer.is_some_and(|answer| answer.has("drop"));
    match answer {
        None if !received.is_empty() => faults.push("the request reached the origin".to_owned()),
        Some(_) if received.len() < requests => faults.push("the request did not reach the origin".to_owned()),
        Some(_) if received.len() > requests && !is_failing => {
            faults.push(format!("the origin received {} requests", received.len()));
        }
        _ => {}
    }
    if let Some(request) = received.first() {
        faults.extend(exchange.received.iter().filter_map(|check| check.fault(request, dates)));
    }
    let (status, body) = expected(exchange, history);
    if response.status() != status {
        faults.push(format!("expected status {status}, received {}", response.status()));
    }
    let is_body = match &body {
        None => true,
        Some(Body::Contains(part)) => response.text().contains(part),
        Some(Body::Text(text)) => response.text() == *text,
        Some(Body::Of(number)) => Some(response.text()) == history.bodies[number - 1],
    };
    if !is_body {
        faults.push(format!(
            "expected body {body:?}, received {:?}",
            response.text().get(..200).unwrap_or(&response.text())
        ));
    }
    if answer.is_none_or(|answer| !answer.has("truncated") && !answer.has("cutchunks")) && !response.is_complete {
        faults.push("the body is incomplete, or bytes follow it".to_owned());
    }
    faults.extend(exchange.expected.iter().filter_map(|check| check.fault(response, dates)));
    faults.extend(cache_status(exchange, response, dates));
    faults
}

/// Cache-Status of a response whose exchange states nothing about it.
fn cache_status(exchange: &Exchange, response: &Message, dates: &Dates) -> Option<String> {
    let name = "Cache-Status".to_owned();
    let is_stated = exchange.expected.iter().any(|check| check.name() == name);
    if is_stated || !["GET", "HEAD"].contains(&exchange.method.as_str()) || matches!(exchange.status, Some(502 | 504)) {
        return None;
    }
    let is_forwarded = exchange.origin.as_ref().is_some_and(|answer| !answer.is_background);
    let part = if is_forwarded { "l7lb; fwd=" } else { super::super::HIT };
    Check::Contains(name, part.to_owned()).fault(response, dates)
}

/// Status and body that the client expects.
fn expected(exchange: &Exchange, history: &History) -> (u16, Option<Body>) {
    let stored = history.stored(&exchange.suffix);
    let last = exchange.second.as_ref().or(exchange.origin.as_ref());
    let fresh = last.filter(|answer| answer.status != 304 && !answer.is_background);
    let default = match fresh {
        Some(answer) => Some((answer.status, history.bodies.last().cloned().flatten().unwrap_or_default())),
        None => stored,
    };
    let status = exchange.status.or(default.as_ref().map(|(status, _)| *status)).unwrap_or(200);
    let is_cut = fresh.is_some_and(|answer| answer.has("truncated") || answer.has("cutchunks") || answer.has("drop"));
    let body = if exchange.method == "HEAD" || status == 304 {
        Some(Body::Text(String::new()))
    } else if exchange.expected_body.is_some() {
        exchange.expected_body.clone()
    } else if is_cut || default.as_ref().is_none_or(|(known, _)| *known != status) {
        None
    } else {
        default.map(|(_, body)| Body::Text(body))
    };
    (status, body)
}

/// One exchange in readable form.
fn transcript(exchange: &Exchange, response: Option<&Message>, received: &[Message]) -> String {
    let mut text = format!("    {} {} {:?}\n", exchange.method, exchange.suffix, exchange.fields);
    for request in received {
        text.push_str(&format!("      origin received {:?}\n", request.fields));
    }
    if let Some(answer) = &exchange.origin {
        text.push_str(&format!("      origin sent {} {:?} {:?}\n", answer.status, answer.flags, answer.fields));
    }
    if let Some(response) = response {
        text.push_str(&format!("      client received {} {:?}\n", response.start, response.fields));
    }
    text
}
