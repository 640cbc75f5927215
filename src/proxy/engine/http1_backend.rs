//! One exchange on an HTTP/1.1 connection to a backend: the bytes of the request, and the response.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, StatusCode, Version, header};
use httparse::Status;
use pingora::{Error, ErrorType, OrErr, RetryType};
use pingora_core::protocols::Stream;
use pingora_http::{ResponseHeader, header_value_from_raw};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::backend::Backend;
use super::chunked::{Decoder, Piece, SizeLine, write_end};
use super::framing::{ConnectionOptions, Framing};
use super::request_head::RequestKind;

/// Bytes per read. Pingora's stream has a buffer of this size and bypasses it for reads that are as large, which
/// saves a copy.
const READ_SIZE: usize = 64 << 10;
/// A part of the request body smaller than this is copied behind what waits to be sent, to leave in one write.
const COPY_MAX: usize = 4 << 10;
/// The largest head of a response in bytes, and the most fields; as in Pingora.
const HEAD_SIZE_MAX: usize = 1 << 20;
const FIELDS_MAX: usize = 256;
/// Room for the fields that are added to a response.
const ADDED_FIELDS: usize = 8;

/// One exchange on a connection.
pub(super) struct Http1Backend {
    stream: Stream,
    /// Received bytes that were not used yet.
    received: BytesMut,
    /// Bytes to be sent, followed by `body`.
    unsent: BytesMut,
    body: Bytes,
    /// Whether something was written since the last flush.
    must_flush: bool,
    /// The framing of the request body, and of the response body.
    request: RequestKind,
    to_head_request: bool,
    framing: Framing,
    decoder: Decoder,
    trailers: Option<HeaderMap>,
    keepalive: bool,
}

impl Http1Backend {
    /// An exchange on `stream` whose request has the bytes of `head`.
    pub(super) fn new(stream: Stream, head: BytesMut, request: RequestKind, to_head_request: bool) -> Self {
        Self {
            stream,
            received: BytesMut::new(),
            unsent: head,
            body: Bytes::new(),
            must_flush: true,
            request,
            to_head_request,
            framing: Framing::None,
            decoder: Decoder::default(),
            trailers: None,
            keepalive: false,
        }
    }

    /// The connection if it can be used again.
    pub(super) fn into_reusable(self) -> Option<Stream> {
        let unused = self.received.is_empty() && self.unsent.is_empty() && self.body.is_empty();
        (self.keepalive && self.framing == Framing::None && unused).then_some(self.stream)
    }
}

impl Backend for Http1Backend {
    fn push_body(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        if self.request == RequestKind::Chunked {
            self.unsent.extend_from_slice(SizeLine::new(data.len()).as_bytes());
            self.unsent.extend_from_slice(&data);
            self.unsent.extend_from_slice(b"\r\n");
        } else if data.len() <= COPY_MAX {
            self.unsent.extend_from_slice(&data);
        } else {
            self.body = data;
        }
    }

    fn push_end(&mut self, trailers: Option<HeaderMap>) {
        if self.request == RequestKind::Chunked {
            write_end(&mut self.unsent, trailers.as_ref());
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        let mut stream = Pin::new(&mut self.stream);
        while !self.unsent.is_empty() {
            let written = ready!(stream.as_mut().poll_write(cx, &self.unsent)).map_err(write_error)?;
            self.must_flush = true;
            self.unsent.advance(written);
        }
        while !self.body.is_empty() {
            let written = ready!(stream.as_mut().poll_write(cx, &self.body)).map_err(write_error)?;
            self.must_flush = true;
            self.body.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        if self.must_flush {
            ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(write_error)?;
            self.must_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<ResponseHeader>> {
        loop {
            if !self.received.is_empty()
                && let Some(head) = parse_head(&mut self.received)?
            {
                if head.status == StatusCode::SWITCHING_PROTOCOLS {
                    // The phase `response_received` rejects one that was not requested.
                    self.framing = Framing::Close;
                } else if !head.status.is_informational() {
                    let (framing, stays_open) = end_of_message(&head, self.to_head_request)?;
                    self.framing = framing;
                    self.keepalive = framing != Framing::Close && stays_open;
                }
                return Poll::Ready(Ok(head));
            }
            if self.received.len() > HEAD_SIZE_MAX {
                return Poll::Ready(Error::e_explain(ErrorType::InvalidHTTPHeader, "the response header is too large"));
            }
            let mut space = [MaybeUninit::uninit(); READ_SIZE];
            let mut buffer = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if let Err(e) = read {
                return Poll::Ready(Err(broken(Error::because(ErrorType::ReadError, "reading a response", e))));
            }
            if buffer.filled().is_empty() {
                let closed = Error::explain(ErrorType::ConnectionClosed, "before the response");
                return Poll::Ready(Err(broken(closed)));
            }
            if self.received.capacity() == 0 {
                // Costs less than growing an empty buffer.
                self.received = BytesMut::from(buffer.filled());
            } else {
                self.received.extend_from_slice(buffer.filled());
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.framing == Framing::None
    }

    fn ends_with_connection(&self) -> bool {
        self.framing == Framing::Close
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Option<Bytes>>> {
        loop {
            match (self.framing, self.received.is_empty()) {
                (Framing::None, _) => return Poll::Ready(Ok(None)),
                (Framing::Length(missing), false) => {
                    let length = usize::try_from(missing).unwrap_or(usize::MAX).min(self.received.len());
                    self.framing.consume(length);
                    if self.framing == Framing::Length(0) {
                        self.framing = Framing::None;
                        if length == self.received.len() {
                            // Nothing more is read, so that the buffer need not be shared.
                            return Poll::Ready(Ok(Some(std::mem::take(&mut self.received).freeze())));
                        }
                    }
                    return Poll::Ready(Ok(Some(self.received.split_to(length).freeze())));
                }
                (Framing::Close, false) => return Poll::Ready(Ok(Some(self.received.split().freeze()))),
                (Framing::Chunked, false) => match self.decoder.next(&mut self.received) {
                    Ok(Piece::Data(data)) => return Poll::Ready(Ok(Some(data))),
                    Ok(Piece::End(trailers)) => {
                        (self.framing, self.trailers) = (Framing::None, trailers);
                        return Poll::Ready(Ok(None));
                    }
                    Ok(Piece::Incomplete) => {}
                    Err(e) => return Poll::Ready(Error::e_explain(ErrorType::new("InvalidChunk"), e)),
                },
                (_, true) => {}
            }
            self.received.reserve(READ_SIZE);
            let read = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.received));
            match read {
                Ok(0) if self.framing == Framing::Close => {
                    self.framing = Framing::None;
                    self.keepalive = false;
                }
                Ok(0) => {
                    return Poll::Ready(Error::e_explain(ErrorType::ConnectionClosed, "in the body of a response"));
                }
                Ok(_) => {}
                Err(e) => {
                    let e = Error::because(ErrorType::ReadError, "reading the body of a response", e);
                    return Poll::Ready(Err(e));
                }
            }
        }
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }
}

fn write_error(e: io::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "sending a request", e).into_up()
}

/// An error before the response. On a reused connection the backend was probably closing it.
fn broken(mut e: Box<Error>) -> Box<Error> {
    e.retry = RetryType::ReusedOnly;
    e
}

/// The framing of the body, and whether the backend keeps the connection open after the response.
fn end_of_message(head: &ResponseHeader, to_head_request: bool) -> pingora::Result<(Framing, bool)> {
    let (mut options, mut coded) = (ConnectionOptions::default(), false);
    let framing = Framing::of_response(head, to_head_request, |name, value| {
        if *name == header::CONNECTION {
            options.add(value);
        } else if *name == header::TRANSFER_ENCODING {
            coded = true;
        }
    })?;
    // RFC 9112 §6.1: HTTP/1.0 has no transfer codings, so the end of such a body is not reliable.
    let unreliable = coded && head.version == Version::HTTP_10;
    Ok((framing, !unreliable && options.keepalive(head.version)))
}

/// Parses a head and takes it from `bytes`; `None` if it is incomplete. The values share one copy of the head: the body
/// stays where it is.
fn parse_head(bytes: &mut BytesMut) -> pingora::Result<Option<ResponseHeader>> {
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    config.allow_obsolete_multiline_headers_in_responses(true);
    let invalid = |e| Error::because(ErrorType::InvalidHTTPHeader, "invalid response header", e);
    let mut fields = [MaybeUninit::uninit(); FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
    let Status::Complete(length) = parsed.map_err(invalid)? else { return Ok(None) };
    let copy = Bytes::copy_from_slice(bytes.get(..length).unwrap_or_default());
    let start = bytes.as_ptr().addr();
    let mut parts = http::Response::new(()).into_parts().0;
    let status = StatusCode::from_u16(response.code.unwrap_or_default());
    parts.status = status.or_err(ErrorType::InvalidHTTPHeader, "invalid status code")?;
    parts.version = if response.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    parts.headers = HeaderMap::with_capacity(response.headers.len() + ADDED_FIELDS);
    let mut coded = false;
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.or_err(ErrorType::InvalidHTTPHeader, "invalid name of a response header")?;
        coded |= name == header::TRANSFER_ENCODING;
        // A value is a part of the head, unless it is empty.
        let offset = field.value.as_ptr().addr().saturating_sub(start);
        let part = if field.value.is_empty() { 0..0 } else { offset..offset + field.value.len() };
        parts.headers.append(name, header_value_from_raw(copy.slice(part)));
    }
    let mut head = ResponseHeader::from(parts);
    head.set_reason_phrase(response.reason)?;
    if coded {
        // It overrides Content-Length (RFC 9112 §6.3).
        head.remove_header(&header::CONTENT_LENGTH);
    }
    bytes.advance(length);
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<(ResponseHeader, BytesMut)> {
        let mut bytes = BytesMut::from(text);
        let head = parse_head(&mut bytes).ok()??;
        Some((head, bytes))
    }

    #[test]
    fn response_head_is_parsed_and_taken_from_the_bytes() {
        let text = "HTTP/1.1 299 Very Fine\r\nA: 1\r\na:2 \r\nB : x\r\n y\r\nC:\r\nD: \r\n\r\nbody";
        let (head, rest) = parse(text).unwrap();
        assert_eq!((head.status.as_u16(), head.get_reason_phrase()), (299, Some("Very Fine")));
        let values = |name: &str| head.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((values("a"), values("b")), (vec!["1", "2"], vec!["x y"]));
        assert_eq!((values("c"), values("d")), (vec![""], vec![""]));
        assert_eq!(&rest[..], b"body");
        assert_eq!(parse("HTTP/1.0 200\r\n\r\n").unwrap().0.version, Version::HTTP_10);
    }

    #[test]
    fn incomplete_response_head_leaves_the_bytes() {
        let text = "HTTP/1.1 200 OK\r\nA: 1\r\n\r\n";
        for length in 0..text.len() {
            let mut bytes = BytesMut::from(&text[..length]);
            assert!(length == 0 || parse_head(&mut bytes).unwrap().is_none());
            assert_eq!(bytes, &text[..length]);
        }
    }

    #[test]
    fn invalid_response_head_is_an_error() {
        for text in [
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(parse_head(&mut BytesMut::from(text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn transfer_encoding_overrides_content_length() {
        let (head, _) =
            parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n").unwrap();
        assert!(!head.headers.contains_key("content-length"));
        assert_eq!(end_of_message(&head, false).unwrap(), (Framing::Chunked, true));
        let (head, _) =
            parse("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n").unwrap();
        assert_eq!(end_of_message(&head, false).unwrap(), (Framing::Chunked, false));
    }
}
