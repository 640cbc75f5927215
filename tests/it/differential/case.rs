//! One generated exchange: what the client sends, and how the backend responds.

use fastrand::Rng;

/// The protocol of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

const INTERIM: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n";

/// One exchange. It depends on its number only.
#[derive(Clone, Debug)]
pub struct Case {
    pub client: Protocol,
    pub backend: Protocol,
    pub request: Request,
    /// Whether a second request follows on the same connection, without waiting for the response.
    pub pipelined: bool,
    /// What the backend does with each attempt; the last one repeats.
    pub attempts: Vec<Attempt>,
    /// The same for an HTTP/2 backend.
    pub streams: Vec<StreamAttempt>,
}

/// The request of the client.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    pub version: &'static str,
    pub fields: Vec<&'static str>,
    pub body: Body,
    /// Positions between which the bytes are sent separately.
    pub splits: Vec<usize>,
    /// After how many bytes the client resets the connection.
    pub abort: Option<usize>,
}

/// A request body.
#[derive(Clone, Debug)]
pub enum Body {
    None,
    Length(usize),
    Chunked(Vec<usize>, Vec<&'static str>),
}

/// What the backend does.
#[derive(Clone)]
pub struct Attempt {
    /// Whether it reads the body before it responds.
    pub reads_body: bool,
    pub response: Vec<u8>,
    pub splits: Vec<usize>,
    pub end: End,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.response[..self.response.len().min(600)];
        write!(f, "reads_body: {}, splits: {:?}, end: {:?}, ", self.reads_body, self.splits, self.end)?;
        write!(f, "{} bytes: {}", self.response.len(), shown.escape_ascii())?;
        let rest = &self.response[self.response.len().saturating_sub(40).max(shown.len())..];
        write!(f, "...{}", rest.escape_ascii())
    }
}

/// How the backend treats its connection after the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Keep,
    Close,
    Reset,
}

/// What an HTTP/2 backend does with a stream.
#[derive(Clone, Debug)]
pub struct StreamAttempt {
    pub reads_body: bool,
    pub status: u16,
    pub fields: Vec<(&'static str, String)>,
    /// The sizes of the DATA frames.
    pub data: Vec<usize>,
    pub trailers: bool,
    pub end: StreamEnd,
}

/// How an HTTP/2 backend ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// With END_STREAM.
    Complete,
    /// With RST_STREAM instead of the response.
    Refuse(u32),
    /// With RST_STREAM after the last DATA frame.
    Reset(u32),
    /// With END_STREAM, and GOAWAY for the connection.
    Goaway,
}

impl Case {
    /// The path of its requests, without the query.
    pub fn path(&self, number: usize) -> String {
        match self.backend {
            Protocol::Http1 => format!("/c/{number}"),
            Protocol::Http2 => format!("/h2/{number}"),
        }
    }

    /// Whether the body has no byte, but no announced length either.
    pub fn has_empty_body(&self) -> bool {
        match &self.request.body {
            Body::None => false,
            Body::Length(length) => *length == 0 && self.client == Protocol::Http2,
            Body::Chunked(chunks, _) => chunks.is_empty(),
        }
    }

    /// Whether the backend may respond before it has read the whole request.
    pub fn responds_early(&self) -> bool {
        match self.backend {
            Protocol::Http1 => self.attempts.iter().any(|attempt| !attempt.reads_body),
            Protocol::Http2 => self.streams.iter().any(|attempt| !attempt.reads_body),
        }
    }

    pub fn generate(number: u64) -> Self {
        let rng = &mut Rng::with_seed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let request = Request::generate(rng);
        let has_body = !matches!(request.body, Body::None);
        let pipelined = request.abort.is_none() && rng.u8(..5) == 0;
        let mut attempts = vec![Attempt::generate(rng, request.method, has_body)];
        if rng.u8(..3) == 0 {
            attempts.push(Attempt::plain(request.method));
        }
        if request.abort.is_some() {
            // The backend would see an incomplete body at different times.
            attempts = vec![Attempt::plain(request.method)];
        }
        let mut streams = vec![StreamAttempt::generate(rng, request.method, has_body)];
        if rng.u8(..3) == 0 {
            streams.push(StreamAttempt::plain(request.method));
        }
        if request.abort.is_some() {
            streams = vec![StreamAttempt::plain(request.method)];
        }
        let (client, backend) = pick(
            rng,
            &[
                (Protocol::Http1, Protocol::Http1),
                (Protocol::Http2, Protocol::Http1),
                (Protocol::Http1, Protocol::Http2),
                (Protocol::Http2, Protocol::Http2),
            ],
        );
        let mut case = Self { client, backend, request, pipelined, attempts, streams };
        if client == Protocol::Http2 {
            // Pingora's loop resets a stream if the backend closes its connection before the client has read a response
            // that is larger than the window.
            for attempt in
                case.attempts.iter_mut().filter(|attempt| attempt.end == End::Close && attempt.response.len() > 60_000)
            {
                *attempt = Attempt::plain(case.request.method);
            }
        }
        if backend == Protocol::Http2 && case.request.version == "HTTP/1.0" {
            // Pingora's loop sends chunked coding to an HTTP/1.0 client if the backend announces no length.
            case.request.version = "HTTP/1.1";
        }
        // How much of the request has arrived by then decides whether the connection is kept for the next one.
        case.pipelined &= !case.responds_early();
        case
    }
}

impl Request {
    fn generate(rng: &mut Rng) -> Self {
        let method = pick(rng, &["GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS"]);
        let version = pick(rng, &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
        let body = match rng.u8(..4) {
            0 => Body::Length(size(rng)),
            1 if version == "HTTP/1.1" => {
                let chunks = (0..rng.usize(..5)).map(|_| size(rng).max(1)).collect();
                Body::Chunked(chunks, if rng.bool() { vec!["X-Trailer: t"] } else { Vec::new() })
            }
            _ if matches!(method, "POST" | "PUT") => Body::Length(size(rng)),
            _ => Body::None,
        };
        let mut fields = Vec::new();
        for field in [
            "Connection: close",
            "Connection: keep-alive",
            "Connection: X-Secret",
            "X-Secret: s",
            "Keep-Alive: timeout=5",
            "TE: trailers",
            "Trailer: X-Trailer",
            "Proxy-Connection: keep-alive",
            "Upgrade: h2c",
            "Accept: application/json",
            "Cookie: a=b",
            "Cookie: c=d",
            "X-Forwarded-For: 1.2.3.4",
            "X-Empty:",
            "Accept-Encoding:  gzip , br ",
        ] {
            if rng.u8(..8) == 0
                && !(field.starts_with("Connection") && fields.iter().any(|f: &&str| f.starts_with("Connection")))
            {
                fields.push(field);
            }
        }
        if !matches!(body, Body::None) && rng.u8(..6) == 0 {
            fields.push("Expect: 100-continue");
        }
        let splits = splits(rng, 600);
        let abort = (matches!(body, Body::Length(2000..)) && rng.u8(..6) == 0).then(|| rng.usize(200..1500));
        Self { method, version, fields, body, splits, abort }
    }

    /// The bytes of the request for `path` and the case with this number.
    pub fn bytes(&self, path: &str, number: usize) -> Vec<u8> {
        let mut bytes = format!("{} {path}?q HTTP/1.", self.method).into_bytes();
        bytes.extend_from_slice(self.version.strip_prefix("HTTP/1.").unwrap().as_bytes());
        bytes.extend_from_slice(format!("\r\nHost: example.test\r\nX-Case: {number}\r\n").as_bytes());
        for field in &self.fields {
            bytes.extend_from_slice(format!("{field}\r\n").as_bytes());
        }
        match &self.body {
            Body::None => bytes.extend_from_slice(b"\r\n"),
            Body::Length(length) => {
                bytes.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
                bytes.extend(filler(*length));
            }
            Body::Chunked(chunks, trailers) => {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                bytes.extend_from_slice(&chunked(chunks, trailers));
            }
        }
        bytes
    }
}

impl Attempt {
    /// An attempt that responds correctly.
    fn plain(method: &str) -> Self {
        let mut response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_vec();
        if method != "HEAD" {
            response.extend_from_slice(b"ok");
        }
        Self { reads_body: true, response, splits: Vec::new(), end: End::Keep }
    }

    /// The head without its framing, and its status.
    fn head(rng: &mut Rng) -> (Vec<u8>, &'static str) {
        let mut response = Vec::new();
        if rng.u8(..10) == 0 {
            response.extend_from_slice(INTERIM);
        }
        let status = pick(
            rng,
            &[
                "200 OK",
                "200 OK",
                "200 OK",
                "200 Fine",
                "204 No Content",
                "304 Not Modified",
                "404 Not Found",
                "500 Oops",
                "503 Busy",
                "299 ",
            ],
        );
        let version = pick(rng, &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
        response.extend_from_slice(format!("{version} {status}\r\n").as_bytes());
        for field in [
            "Content-Type: text/plain",
            "Connection: close",
            "Connection: keep-alive",
            "Connection: X-Hop",
            "X-Hop: h",
            "Keep-Alive: timeout=9",
            "Set-Cookie: a=b",
            "Set-Cookie: c=d; Path=/",
            "Upgrade: h2c",
            "Trailer: X-Trailer",
            "X-Folded: a\r\n b",
            "X-Space : y",
            "Date: Thu, 01 Jan 1970 00:00:00 GMT",
            "Server: old/1.0",
            "X-Empty:",
            "Proxy-Authenticate: Basic",
        ] {
            if rng.u8(..8) == 0 {
                response.extend_from_slice(format!("{field}\r\n").as_bytes());
            }
        }
        (response, status)
    }

    /// Adds framing and body; returns whether the end of the connection ends the body.
    fn body(rng: &mut Rng, response: &mut Vec<u8>, bodiless: bool) -> bool {
        let length = size(rng);
        match rng.u8(..10) {
            0..=4 => {
                response.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
                if !bodiless {
                    response.extend(filler(length));
                }
            }
            5..=7 => {
                response.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                if !bodiless {
                    let chunks: Vec<usize> = (0..rng.usize(..5)).map(|_| size(rng).max(1)).collect();
                    response.extend(chunked(&chunks, if rng.bool() { &["X-Trailer: t"] } else { &[] }));
                }
            }
            8 => {
                response.extend_from_slice(b"\r\n");
                if !bodiless {
                    response.extend(filler(length));
                    return true;
                }
            }
            _ => response.extend_from_slice(pick(
                rng,
                &[
                    &b"Content-Length: x\r\n\r\n"[..],
                    b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
                    b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
                    b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                    b"no colon\r\n\r\n",
                    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
                    b"Transfer-Encoding: gzip\r\n\r\nabc",
                ],
            )),
        }
        response.ends_with(b"abc") || response.ends_with(b"no colon\r\n\r\n")
    }

    fn generate(rng: &mut Rng, method: &str, has_body: bool) -> Self {
        let (mut response, status) = Self::head(rng);
        let bodiless = method == "HEAD" || status.starts_with("204") || status.starts_with("304");
        let mut end = pick(rng, &[End::Keep, End::Keep, End::Keep, End::Close]);
        if Self::body(rng, &mut response, bodiless) {
            end = End::Close;
        }
        if rng.u8(..8) == 0 {
            response.truncate(rng.usize(..response.len()));
            end = if rng.bool() { End::Close } else { End::Reset };
        }
        // How much of the body has arrived decides whether the request can be repeated.
        let is_retried = status.starts_with('5') || end == End::Reset;
        let reads_body = !has_body || is_retried || rng.u8(..6) != 0;
        let splits = splits(rng, response.len());
        Self { reads_body, response, splits, end }
    }
}

impl StreamAttempt {
    /// A stream with a correct response.
    fn plain(method: &str) -> Self {
        let fields = vec![("content-length", "2".to_owned())];
        let data = if method == "HEAD" { Vec::new() } else { vec![2] };
        Self { reads_body: true, status: 200, fields, data, trailers: false, end: StreamEnd::Complete }
    }

    fn generate(rng: &mut Rng, method: &str, has_body: bool) -> Self {
        let status = pick(rng, &[200, 200, 200, 204, 304, 404, 500, 503]);
        let bodiless = method == "HEAD" || status == 204 || status == 304;
        let data: Vec<usize> = if bodiless { Vec::new() } else { (0..rng.usize(..5)).map(|_| size(rng)).collect() };
        let mut fields = Vec::new();
        for (name, value) in [
            ("content-type", "text/plain"),
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d; Path=/"),
            ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("server", "old/1.0"),
            ("x-empty", ""),
            ("trailer", "x-trailer"),
            ("te", "trailers"),
        ] {
            if rng.u8(..8) == 0 {
                fields.push((name, value.to_owned()));
            }
        }
        let length: usize = data.iter().sum();
        if rng.u8(..3) == 0 && status != 204 {
            let length = if bodiless { 7 } else { length };
            fields.push(("content-length", length.to_string()));
        }
        let reason = pick(rng, &[0x2, 0x7, 0x8, 0xb]);
        let end = match rng.u8(..12) {
            0 => StreamEnd::Refuse(reason),
            // A reset after the end that the client knows is complete for l7lb's engine, whatever its timing.
            1 if !bodiless => {
                fields.retain(|(name, _)| *name != "content-length");
                StreamEnd::Reset(reason)
            }
            2 => StreamEnd::Goaway,
            _ => StreamEnd::Complete,
        };
        // How much of the body has arrived decides whether the request can be repeated.
        let is_retried = status >= 500 || matches!(end, StreamEnd::Refuse(_));
        let reads_body = !has_body || is_retried || rng.u8(..6) != 0;
        Self { reads_body, status, fields, data, trailers: !bodiless && rng.u8(..4) == 0, end }
    }
}

fn pick<T: Copy>(rng: &mut Rng, values: &[T]) -> T {
    values[rng.usize(..values.len())]
}

/// A body size: often small, sometimes larger than any buffer.
fn size(rng: &mut Rng) -> usize {
    match rng.u8(..10) {
        0 => 0,
        1..=5 => rng.usize(1..100),
        6 | 7 => rng.usize(1..5000),
        8 => rng.usize(1..70_000),
        _ => rng.usize(1..200_000),
    }
}

fn splits(rng: &mut Rng, length: usize) -> Vec<usize> {
    if rng.u8(..3) != 0 || length == 0 {
        return Vec::new();
    }
    let mut splits: Vec<usize> = (0..rng.usize(1..4)).map(|_| rng.usize(..length)).collect();
    splits.sort_unstable();
    splits
}

/// Bytes of a body: no two neighbouring ones are equal, so that a shift is noticed.
pub fn filler(length: usize) -> impl Iterator<Item = u8> {
    (0..length).map(|at| b'a' + (at % 23) as u8)
}

fn chunked(chunks: &[usize], trailers: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for size in chunks {
        bytes.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        bytes.extend(filler(*size));
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n");
    for trailer in trailers {
        bytes.extend_from_slice(format!("{trailer}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}
