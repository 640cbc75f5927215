//! One exchange on an HTTP/2 connection to a backend.

use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use pingora::{Error, ErrorType, RetryType};
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::time::Instant;

use super::backend::Backend;
use super::websocket;
use crate::base::timeouts::Timeouts;
use crate::listener::inactivity_timer::InactivityTimer;

/// The timeouts of an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The timeouts of the route.
    pub(super) timeouts: Timeouts,
    /// The deadline of the attempt.
    pub(super) end: Option<Instant>,
}

/// One exchange.
pub(super) struct Http2Backend {
    session: Http2Session,
    send: Option<SendStream<Bytes>>,
    method: Method,
    limits: Limits,
    /// A part of the request body that was not sent yet.
    unsent: Bytes,
    trailers_to_send: Option<HeaderMap>,
    /// Whether the end of the request was added, and whether it was sent.
    must_end: bool,
    ended: bool,
    /// For a WebSocket: what proves to the client that the backend knows it.
    tunnel: Option<Option<HeaderValue>>,
    has_response: bool,
    complete: bool,
    trailers: Option<HeaderMap>,
    reading: InactivityTimer,
    writing: InactivityTimer,
}

impl Http2Backend {
    /// Starts an exchange with the head of a request; `end` if it has no body.
    ///
    /// # Errors
    /// If the connection does not accept it.
    pub(super) fn start(
        mut session: Http2Session,
        request: RequestHeader,
        end: bool,
        limits: Limits,
    ) -> (Self, pingora::Result<()>) {
        let method = request.method.clone();
        let started = session.write_request_header(Box::new(request), end).map_err(Error::into_up);
        let send = session.take_request_body_writer();
        let backend = Self {
            session,
            send,
            method,
            limits,
            unsent: Bytes::new(),
            trailers_to_send: None,
            must_end: end,
            ended: end,
            tunnel: None,
            has_response: false,
            complete: false,
            trailers: None,
            reading: InactivityTimer::default(),
            writing: InactivityTimer::default(),
        };
        (backend, started)
    }

    /// Expects a WebSocket instead of a response with a body.
    pub(super) fn expect_tunnel(&mut self, accept: Option<HeaderValue>) {
        self.tunnel = Some(accept);
    }

    /// The stream, to be released.
    pub(super) fn into_session(self) -> Http2Session {
        self.session
    }

    /// `limit`, or what is left until the deadline of the attempt.
    fn limited(&self, limit: Duration) -> Duration {
        self.limits.end.map_or(limit, |end| limit.min(end.saturating_duration_since(Instant::now())))
    }

    /// Ready with an error when the backend has sent nothing for too long.
    fn poll_read_timeout(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        let timeouts = self.limits.timeouts;
        if self.tunnel.is_some() && self.has_response {
            // The client side enforces the timeout of a tunnel.
            return Poll::Pending;
        }
        let limit = match (self.has_response, self.ended) {
            (true, _) => timeouts.idle,
            (false, _) if self.ended || self.tunnel.is_some() => timeouts.first_byte,
            // The request is still being sent.
            (false, _) => timeouts.first_byte.max(timeouts.idle),
        };
        let limit = self.limited(limit);
        ready!(self.reading.poll(cx, limit));
        Poll::Ready(Error::explain(ErrorType::ReadTimedout, "waiting for a response").into_up())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        let limit = self.limited(self.limits.timeouts.idle);
        let Some(send) = &mut self.send else { return Poll::Ready(Ok(())) };
        while !self.unsent.is_empty() {
            send.reserve_capacity(self.unsent.len());
            let mut capacity = send.capacity();
            if capacity == 0 {
                capacity = match send.poll_capacity(cx) {
                    Poll::Ready(Some(capacity)) => capacity.map_err(write_error)?,
                    Poll::Ready(None) => {
                        let closed = Error::explain(ErrorType::WriteError, "the backend has closed the stream");
                        return Poll::Ready(Err(closed.into_up()));
                    }
                    Poll::Pending => {
                        ready!(self.writing.poll(cx, limit));
                        let late = Error::explain(ErrorType::WriteTimedout, "the backend does not read the request");
                        return Poll::Ready(Err(late.into_up()));
                    }
                };
            }
            let part = self.unsent.split_to(capacity.min(self.unsent.len()));
            let end = self.must_end && self.unsent.is_empty() && self.trailers_to_send.is_none();
            send.send_data(part, end).map_err(write_error)?;
            self.ended |= end;
            self.writing.reset();
            self.reading.reset();
        }
        if self.must_end && !self.ended {
            match self.trailers_to_send.take() {
                Some(trailers) => send.send_trailers(trailers),
                None => send.send_data(Bytes::new(), true),
            }
            .map_err(write_error)?;
            self.ended = true;
            self.reading.reset();
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a response with this status code has no body.
    fn is_without_body(&self, status: StatusCode) -> bool {
        self.method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }

    /// Checks the head of a response; `end` if it ends the response.
    fn check_head(&self, head: &ResponseHeader, end: bool) -> pingora::Result<()> {
        let without_body = self.is_without_body(head.status);
        let length = head.headers.get(header::CONTENT_LENGTH);
        // The h2 crate does not check this case.
        if end && !without_body && length.is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0')) {
            return Err(Error::explain(ErrorType::H2Error, "a response ends before its body").into_up());
        }
        Ok(())
    }
}

impl Backend for Http2Backend {
    fn push_body(&mut self, data: Bytes) {
        self.unsent = data;
    }

    fn push_end(&mut self, trailers: Option<HeaderMap>) {
        // The request of a WebSocket is complete, but its stream stays open.
        self.must_end = self.tunnel.is_none();
        self.trailers_to_send = trailers;
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        self.poll_send(cx)
    }

    /// The task of the connection sends what was written.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<ResponseHeader>> {
        match self.session.poll_read_response_header(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(e)) => return Poll::Ready(Err(head_error(e))),
            Poll::Pending => return self.poll_read_timeout(cx).map(Err),
        }
        self.reading.reset();
        self.has_response = true;
        let head = self.session.response_header().cloned();
        let mut head = head.ok_or_else(|| Error::explain(ErrorType::InternalError, "no response header"))?;
        if let Some(accept) = self.tunnel.as_ref().filter(|_| head.status.is_success()) {
            websocket::to_switch(&mut head, accept.as_ref())?;
            return Poll::Ready(Ok(head));
        }
        if !head.status.is_informational() {
            // A refusal is a response with a body.
            self.tunnel = None;
        }
        self.complete = self.session.check_response_end_or_error()?;
        self.check_head(&head, self.complete)?;
        Poll::Ready(Ok(head))
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    /// HTTP/2 frames the body, but an HTTP/1.1 client does not know its length.
    fn ends_with_connection(&self) -> bool {
        let head = self.session.response_header();
        head.is_some_and(|head| {
            !self.is_without_body(head.status) && !head.headers.contains_key(header::CONTENT_LENGTH)
        })
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Option<Bytes>>> {
        loop {
            match self.session.poll_read_response_body(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    self.reading.reset();
                    if !data.is_empty() {
                        return Poll::Ready(Ok(Some(data)));
                    }
                }
                Poll::Ready(Some(Err(e))) => {
                    return Poll::Ready(Err(Error::because(ErrorType::ReadError, "reading the body of a response", e)));
                }
                Poll::Ready(None) => break,
                Poll::Pending => return self.poll_read_timeout(cx).map(Err),
            }
        }
        // The future has no state of its own, so it can be created for each poll.
        let trailers = pin!(self.session.read_trailers()).poll(cx);
        match trailers {
            Poll::Ready(trailers) => {
                self.trailers = trailers?;
                self.complete = true;
                Poll::Ready(Ok(None))
            }
            Poll::Pending => self.poll_read_timeout(cx).map(Err),
        }
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }
}

fn write_error(e: h2::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "sending a request", e).into_up()
}

/// An error before the response, with whether another connection or HTTP/1.1 may help. The cases are those of Pingora
/// (`v2/client.rs`, `handle_read_header_error`).
fn head_error(e: h2::Error) -> Box<Error> {
    let (remote, reason) = (e.is_remote(), e.reason());
    let broken = e.get_io().is_some_and(|io| {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut};
        io.raw_os_error().is_some() || matches!(io.kind(), ConnectionReset | TimedOut | BrokenPipe)
    });
    let refused = e.is_reset() && reason == Some(Reason::REFUSED_STREAM);
    let (kind, retry) = if remote && reason == Some(Reason::HTTP_1_1_REQUIRED) {
        (ErrorType::H2Downgrade, RetryType::Decided(true))
    } else if e.is_go_away() && e.is_library() && reason == Some(Reason::PROTOCOL_ERROR) {
        (ErrorType::InvalidH2, RetryType::Decided(true))
    } else if remote && (e.is_go_away() && reason == Some(Reason::NO_ERROR) || refused) {
        (ErrorType::H2Error, RetryType::Decided(true))
    } else if broken {
        (ErrorType::ReadError, RetryType::ReusedOnly)
    } else if e.is_io() {
        (ErrorType::ReadError, RetryType::Decided(false))
    } else {
        (ErrorType::H2Error, RetryType::Decided(false))
    };
    let mut error = Error::because(kind, "waiting for a response", e);
    error.retry = retry;
    error
}
