//! The open-loop client: it sends when a request is due, whatever became of those before.
//!
//! A thread of its own keeps the time, because timers of a runtime are rounded to milliseconds. Each
//! request takes a connection that is free or opens one, so that no answer is ever waited for.
//! Latency is counted from when the request was due: whoever makes the client wait pays for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::measure::{self, Sample};

const REQUEST: &[u8] = b"GET /work HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bad_day\r\nAccept: */*\r\n\r\n";

/// What is sent, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) proxy: SocketAddr,
    /// Requests a second.
    pub(crate) rate: u64,
    /// Sent before the measurement begins, and not measured.
    pub(crate) warm_up: Duration,
    /// How long the measurement takes.
    pub(crate) length: Duration,
    /// After so long an answer is no longer waited for.
    pub(crate) timeout: Duration,
}

/// An answer that has arrived whole.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    /// Whether the connection may be used again.
    keep: bool,
}

type Idle = Arc<Mutex<Vec<TcpStream>>>;

/// Sends the load and returns what became of each measured request; `begin` is when measuring begins.
pub(crate) async fn run(load: Load, begin: Instant) -> Vec<Sample> {
    let (pace, mut paced) = mpsc::unbounded_channel();
    let first = begin - load.warm_up;
    std::thread::spawn(move || {
        for due in (0..).map(|number| measure::due(number, load.rate)) {
            if due >= load.warm_up + load.length {
                return;
            }
            std::thread::sleep((first + due).saturating_duration_since(Instant::now()));
            if pace.send(due).is_err() {
                return;
            }
        }
    });
    let idle = Idle::default();
    let mut requests = JoinSet::new();
    while let Some(due) = paced.recv().await {
        let idle = Arc::clone(&idle);
        let measured = due.checked_sub(load.warm_up);
        let due = first + due;
        requests.spawn(async move {
            let late = due.elapsed();
            let answered = tokio::time::timeout_at((due + load.timeout).into(), exchange(load.proxy, &idle)).await;
            let failure = match answered {
                Ok(Ok(200)) => None,
                Ok(Ok(status)) => Some(status.to_string()),
                Ok(Err(error)) => Some(format!("{:?}", error.kind())),
                Err(_) => Some("timeout".to_owned()),
            };
            measured.map(|from_begin| Sample { due: from_begin, latency: due.elapsed(), late, failure })
        });
    }
    // Who is not answered yet may take until the time-out.
    requests.join_all().await.into_iter().flatten().collect()
}

/// One request and its answer; the connection goes back to the idle ones where it may.
async fn exchange(proxy: SocketAddr, idle: &Idle) -> io::Result<u16> {
    let mut stream = match take(idle) {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(proxy).await?;
            stream.set_nodelay(true)?;
            stream
        }
    };
    stream.write_all(REQUEST).await?;
    let mut received = Vec::with_capacity(1024);
    loop {
        let ended = stream.read_buf(&mut received).await? == 0;
        if let Some(answer) = parse(&received, ended)? {
            if answer.keep && !ended {
                idle.lock().push(stream);
            }
            return Ok(answer.status);
        }
    }
}

/// An idle connection that the proxy has not closed meanwhile.
fn take(idle: &Idle) -> Option<TcpStream> {
    loop {
        let stream = idle.lock().pop()?;
        let would_block = stream.try_read(&mut [0; 1]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if would_block {
            return Some(stream);
        }
    }
}

/// The answer, if it is whole; `ended` when nothing more will come.
fn parse(received: &[u8], ended: bool) -> io::Result<Option<Answer>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let length = match head.parse(received).map_err(io::Error::other)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if ended => return Err(io::ErrorKind::UnexpectedEof.into()),
        httparse::Status::Partial => return Ok(None),
    };
    let body = received.get(length..).unwrap_or_default();
    let field = |name: &str| {
        let found = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.and_then(|field| str::from_utf8(field.value).ok())
    };
    let closing = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let answer = |keep| Ok(Some(Answer { status: head.code.unwrap_or(0), keep }));
    let announced = field("content-length").and_then(|value| value.parse::<usize>().ok());
    let chunked = field("transfer-encoding").is_some();
    match announced {
        Some(announced) if body.len() >= announced => answer(!closing),
        _ if chunked && body.ends_with(b"0\r\n\r\n") => answer(!closing),
        None if !chunked && ended => answer(false),
        _ if ended => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(None),
    }
}
