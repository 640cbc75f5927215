//! The origin: `GET …/KIND/NUMBER/SIZE` returns an object. KIND is `o`, or `slow` for one that arrives in parts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::object::{self, Filling};
use crate::process::{LOAD_CORE, pin};

/// How long a slow object takes until its header, and then between its parts.
const SLOW_HEAD: Duration = Duration::from_millis(50);
const SLOW_PART: Duration = Duration::from_millis(10);
/// The parts of a slow object.
const SLOW_PARTS: usize = 8;
/// How long a slow object takes at least.
pub(crate) const SLOW: Duration = Duration::from_millis(50 + 7 * 10);

/// A running origin. It ends with the process.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    served: Arc<AtomicU64>,
}

/// A requested object.
struct Wanted {
    is_slow: bool,
    number: u64,
    size: usize,
    /// The validator that the request has.
    known: Option<u64>,
}

impl Origin {
    /// Starts it in a thread of its own.
    pub(crate) fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let (address, served) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&served);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            pin(LOAD_CORE);
            runtime.block_on(accept(listener, count)).ok();
        });
        Ok(Self { address, served })
    }

    /// The number of responses so far.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

async fn accept(listener: std::net::TcpListener, served: Arc<AtomicU64>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let filling = Arc::new(Filling::new());
    loop {
        let (stream, _) = listener.accept().await?;
        let (filling, served) = (Arc::clone(&filling), Arc::clone(&served));
        tokio::spawn(async move { serve(stream, &filling, &served).await.ok() });
    }
}

async fn serve(mut stream: TcpStream, filling: &Filling, served: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = BytesMut::with_capacity(8 * 1024);
    loop {
        let wanted = loop {
            if let Some((wanted, length)) = parse(&received) {
                drop(received.split_to(length));
                break wanted;
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        };
        served.fetch_add(1, Ordering::Relaxed);
        respond(&mut stream, filling, &wanted).await?;
    }
}

/// The first request, and its length; none if it has not arrived. An unknown path is object 0.
fn parse(received: &[u8]) -> Option<(Wanted, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = head.parse(received) else { return None };
    let mut segments = head.path.unwrap_or_default().rsplit('/');
    let size = segments.next().and_then(|size| size.parse().ok()).unwrap_or(object::SMALLEST);
    let number = segments.next().and_then(|number| number.parse().ok()).unwrap_or(0);
    let is_slow = segments.next() == Some("slow");
    let condition = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("if-none-match"));
    let known = condition.and_then(|field| str::from_utf8(field.value).ok()?.trim_matches('"').parse().ok());
    Some((Wanted { is_slow, number, size, known }, length))
}

async fn respond(stream: &mut TcpStream, filling: &Filling, wanted: &Wanted) -> io::Result<()> {
    let now = SystemTime::now();
    let version = object::version_at(wanted.number, now);
    let ttl = if object::is_changing(wanted.number) { object::CHANGING_TTL } else { 3600 };
    let common =
        format!("Date: {}\r\nCache-Control: max-age={ttl}\r\nETag: \"{version}\"\r\n", httpdate::fmt_http_date(now));
    if wanted.known == Some(version) {
        return stream.write_all(format!("HTTP/1.1 304 Not Modified\r\n{common}\r\n").as_bytes()).await;
    }
    let body = filling.body(wanted.number, version, wanted.size);
    let is_chunked = object::is_chunked(wanted.number) && wanted.size == object::size(wanted.number);
    let framing =
        if is_chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {}", body.len()) };
    let mut out = format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n{common}{framing}\r\n\r\n");
    if wanted.is_slow {
        tokio::time::sleep(SLOW_HEAD).await;
        stream.write_all(out.as_bytes()).await?;
        for (number, part) in body.chunks(body.len().div_ceil(SLOW_PARTS)).enumerate() {
            if number > 0 {
                tokio::time::sleep(SLOW_PART).await;
            }
            stream.write_all(part).await?;
        }
        return Ok(());
    }
    if is_chunked {
        out.push_str(&format!("{:x}\r\n", body.len()));
    }
    let mut bytes = out.into_bytes();
    bytes.extend_from_slice(&body);
    if is_chunked {
        bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    }
    stream.write_all(&bytes).await
}
