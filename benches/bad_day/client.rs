//! The open-loop client: it sends each request at its scheduled time, independent of earlier responses.
//!
//! A separate thread keeps the schedule, because the timers of the runtime are rounded to milliseconds.
//! Each request uses an idle connection or opens a new one, so it never waits for another response.
//! Latency is measured from the scheduled time, so delays before sending are included.

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

/// The request rate and the phases of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) proxy: SocketAddr,
    /// Requests per second.
    pub(crate) rate: u64,
    /// The load before the measurement starts; it is not measured.
    pub(crate) warm_up: Duration,
    /// The length of the measurement.
    pub(crate) length: Duration,
    /// The client aborts a request after this time.
    pub(crate) timeout: Duration,
}

/// A completely received response.
#[derive(Debug, PartialEq, Eq)]
struct Response {
    status: u16,
    /// Whether the connection can be reused.
    keep_alive: bool,
    /// The name of the backend that sent it.
    backend: Option<String>,
}

type IdleConnections = Arc<Mutex<Vec<TcpStream>>>;

/// Sends the load and returns a sample for each measured request. The measurement starts at `begin`.
pub(crate) async fn run(load: Load, begin: Instant) -> Vec<Sample> {
    let (schedule, mut scheduled) = mpsc::unbounded_channel();
    let first = begin - load.warm_up;
    std::thread::spawn(move || {
        for due in (0..).map(|number| measure::due(number, load.rate)) {
            if due >= load.warm_up + load.length {
                return;
            }
            std::thread::sleep((first + due).saturating_duration_since(Instant::now()));
            if schedule.send(due).is_err() {
                return;
            }
        }
    });
    let idle = IdleConnections::default();
    let mut requests = JoinSet::new();
    while let Some(due) = scheduled.recv().await {
        let idle = Arc::clone(&idle);
        let measured = due.checked_sub(load.warm_up);
        let due = first + due;
        requests.spawn(async move {
            let send_delay = due.elapsed();
            let result = tokio::time::timeout_at((due + load.timeout).into(), exchange(load.proxy, &idle)).await;
            let latency = due.elapsed();
            let (failure, backend) = match result {
                Ok(Ok(response)) => ((response.status != 200).then(|| response.status.to_string()), response.backend),
                Ok(Err(error)) => (Some(format!("{:?}", error.kind())), None),
                Err(_) => (Some("timeout".to_owned()), None),
            };
            measured.map(|from_begin| Sample { due: from_begin, latency, send_delay, failure, backend })
        });
    }
    // Requests in flight complete or reach their timeout.
    requests.join_all().await.into_iter().flatten().collect()
}

/// Sends one request and returns the response. A reusable connection becomes idle again.
async fn exchange(proxy: SocketAddr, idle: &IdleConnections) -> io::Result<Response> {
    let mut stream = match take_idle(idle) {
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
        if let Some(response) = parse(&received, ended)? {
            if response.keep_alive && !ended {
                idle.lock().push(stream);
            }
            return Ok(response);
        }
    }
}

/// An idle connection that the proxy has not closed.
fn take_idle(idle: &IdleConnections) -> Option<TcpStream> {
    loop {
        let stream = idle.lock().pop()?;
        let would_block = stream.try_read(&mut [0; 1]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if would_block {
            return Some(stream);
        }
    }
}

/// The response, if it is complete; `ended` means that the connection is closed.
fn parse(received: &[u8], ended: bool) -> io::Result<Option<Response>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let length = match head.parse(received).map_err(io::Error::other)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if ended => return Err(io::ErrorKind::UnexpectedEof.into()),
        httparse::Status::Partial => return Ok(None),
    };
    let body = received.get(length..).unwrap_or_default();
    let field = |name: &str| {
        let matching = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        matching.and_then(|field| str::from_utf8(field.value).ok())
    };
    let closing = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let backend = || field("x-backend").map(str::to_owned);
    let response = |keep_alive| Ok(Some(Response { status: head.code.unwrap_or(0), keep_alive, backend: backend() }));
    let content_length = field("content-length").and_then(|value| value.parse::<usize>().ok());
    let chunked = field("transfer-encoding").is_some();
    match content_length {
        Some(content_length) if body.len() >= content_length => response(!closing),
        _ if chunked && body.ends_with(b"0\r\n\r\n") => response(!closing),
        None if !chunked && ended => response(false),
        _ if ended => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(None),
    }
}
