//! A connection that sends one request after the other, and reads the whole response.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection to a proxy.
pub(crate) struct Connection {
    stream: TcpStream,
    received: BytesMut,
    is_usable: bool,
}

/// A complete response.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: BytesMut,
}

/// Why there is no complete response.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No byte of a response arrived: the connection was closed, so a client may repeat the request (RFC 9112 §9.3.1).
    Unanswered(io::Error),
    /// The response is incomplete or invalid.
    Cut(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered(error) => write!(f, "no response: {error}"),
            Self::Cut(error) => write!(f, "an incomplete response: {error}"),
        }
    }
}

/// How the end of a body is found.
enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: BytesMut::with_capacity(128 * 1024), is_usable: true })
    }

    /// Whether another request may follow.
    pub(crate) fn is_usable(&self) -> bool {
        self.is_usable
    }

    /// Sends a GET request with further header lines, and reads the response.
    pub(crate) async fn get(&mut self, path: &str, lines: &str) -> Result<Response, Failure> {
        self.is_usable = false;
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: cache\r\n{lines}\r\n");
        self.stream.write_all(request.as_bytes()).await.map_err(Failure::Unanswered)?;
        let (status, framing, closes) = loop {
            match head(&self.received).map_err(Failure::Cut)? {
                Some((length, head)) => {
                    self.received.advance(length);
                    break head;
                }
                None if self.received.is_empty() => self.receive().await.map_err(Failure::Unanswered)?,
                None => self.receive().await.map_err(Failure::Cut)?,
            }
        };
        let body = match framing {
            Framing::Length(length) => self.take(length).await,
            Framing::Chunked => self.chunked().await,
        };
        let body = body.map_err(Failure::Cut)?;
        self.is_usable = !closes;
        Ok(Response { status, body })
    }

    async fn receive(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<BytesMut> {
        self.received.reserve(length.saturating_sub(self.received.len()));
        while self.received.len() < length {
            self.receive().await?;
        }
        Ok(self.received.split_to(length))
    }

    async fn chunked(&mut self) -> io::Result<BytesMut> {
        let mut body = BytesMut::new();
        loop {
            let size = loop {
                match httparse::parse_chunk_size(&self.received).map_err(|_| io::Error::other("chunk size"))? {
                    httparse::Status::Complete((used, size)) => {
                        self.received.advance(used);
                        break usize::try_from(size).map_err(io::Error::other)?;
                    }
                    httparse::Status::Partial => self.receive().await?,
                }
            };
            let chunk = self.take(size + 2).await?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(chunk.get(..size).unwrap_or_default());
        }
    }
}

type Head = (u16, Framing, bool);

/// The head of a response and its length; none if it has not arrived.
fn head(received: &[u8]) -> io::Result<Option<(usize, Head)>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(received).map_err(io::Error::other)? else { return Ok(None) };
    let field = |name: &str| {
        let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(field.value).ok()
    };
    let framing = match (field("content-length").and_then(|length| length.parse().ok()), field("transfer-encoding")) {
        (Some(length), None) => Framing::Length(length),
        (None, Some(_)) => Framing::Chunked,
        _ => return Err(io::Error::other("a response without or with two framings")),
    };
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some((length, (head.code.unwrap_or(0), framing, closes))))
}
