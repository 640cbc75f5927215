//! One generated exchange: what the client sends, and how the backend responds.

use fastrand::Rng;

/// One exchange. It depends on its number only.
#[derive(Clone, Debug)]
pub struct Case {
    pub request: Request,
    /// Whether a second request follows on the same connection, without waiting for the response.
    pub pipelined: bool,
    /// What the backend does with each attempt; the last one repeats.
    pub attempts: Vec<Attempt>,
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
        write!(f, "{} bytes: {}", self.response.len(), shown.escape_ascii())
    }
}

/// How the backend treats its connection after the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Keep,
    Close,
    Reset,
}

impl Case {
    /// Whether the backend may respond before it has read the whole request.
    pub fn responds_early(&self) -> bool {
        self.attempts.iter().any(|attempt| !attempt.reads_body)
    }

    pub fn generate(number: u64) -> Self {
        let rng = &mut Rng::with_seed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let request = Request::generate(rng);
        let has_body = !matches!(request.body, Body::None);
        let pipelined = request.abort.is_none() && rng.u8(..5) == 0;
        let mut attempts = vec![Attempt::generate(rng, request.method, has_body)];
        if rng.u8(..3) == 0 {
            attempts.push(Attempt::plain());
        }
        if request.abort.is_some() {
            // The backend would see an incomplete body at different times.
            attempts = vec![Attempt::plain()];
        }
        let mut case = Self { request, pipelined, attempts };
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

    /// The bytes of the request for the case with this number.
    pub fn bytes(&self, number: usize) -> Vec<u8> {
        let mut bytes = format!("{} /c/{number}?q HTTP/1.", self.method).into_bytes();
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
    fn plain() -> Self {
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
        Self { reads_body: true, response, splits: Vec::new(), end: End::Keep }
    }

    /// The head without its framing, and its status.
    fn head(rng: &mut Rng) -> (Vec<u8>, &'static str) {
        let mut response = Vec::new();
        if rng.u8(..10) == 0 {
            response.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n");
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
        let reads_body = !has_body || end == End::Reset || rng.u8(..6) != 0;
        let splits = splits(rng, response.len());
        Self { reads_body, response, splits, end }
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
