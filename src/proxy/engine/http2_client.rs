//! The client side of one stream of an HTTP/2 client.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Response, StatusCode, header};
use pingora::{Error, ErrorType};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::time::Instant;

use super::client::Client;
use super::replay::Replay;
use super::websocket;
use crate::http::grpc_status::is_grpc;
use crate::listener::client_timeouts::ClientTimeouts;
use crate::listener::connection::Connection;
use crate::listener::engine::Http2Stream;
use crate::listener::inactivity_timer::InactivityTimer;
use crate::listener::minimum_rate::{ClientRate, RateLimit};
use crate::proxy::client_side::ClientSide;

/// The client side of one stream.
pub(super) struct Http2Client {
    connection: Arc<Connection>,
    request: RequestHeader,
    body: RequestBody,
    expects_continue: bool,
    /// Whether the client wants a WebSocket.
    tunnel: bool,
    respond: SendResponse<Bytes>,
    /// The head of the response, until it is known whether a body follows.
    head: Option<ResponseHeader>,
    send: Option<SendStream<Bytes>>,
    ended: bool,
    status: Option<StatusCode>,
    sent: u64,
    write_timeout: Duration,
    write_timer: InactivityTimer,
    tunnel_timeout: Duration,
    tunnel_timer: InactivityTimer,
    minimum_rate: RateLimit,
    sending_rate: ClientRate,
}

/// The request body as far as it was read.
struct RequestBody {
    stream: RecvStream,
    complete: bool,
    received: u64,
    replay: Replay,
    rate: ClientRate,
    trailers: Option<HeaderMap>,
}

impl Http2Client {
    /// The client side of `stream`.
    pub(super) fn new(stream: Http2Stream) -> Self {
        let Http2Stream { connection, mut request, body, respond } = stream;
        let expects_continue = request.headers.contains_key(header::EXPECT);
        let tunnel = websocket::is_extended_connect(&request) && websocket::to_upgrade(&mut request).is_ok();
        // The bytes of a tunnel are not a body.
        let complete = tunnel || body.is_end_stream();
        let body = RequestBody {
            stream: body,
            complete,
            received: 0,
            replay: Replay::default(),
            rate: ClientRate::default(),
            trailers: None,
        };
        Self {
            connection,
            request,
            body,
            expects_continue,
            tunnel,
            respond,
            head: None,
            send: None,
            ended: false,
            status: None,
            sent: 0,
            write_timeout: Duration::MAX,
            write_timer: InactivityTimer::default(),
            tunnel_timeout: Duration::MAX,
            tunnel_timer: InactivityTimer::default(),
            minimum_rate: RateLimit { bytes_per_second: 0, period: Duration::MAX },
            sending_rate: ClientRate::default(),
        }
    }

    /// Sends the head if it waits; `end` if nothing follows.
    fn send_head(&mut self, end: bool) -> pingora::Result<()> {
        let Some(head) = self.head.take() else { return Ok(()) };
        let parts: http::response::Parts = head.into();
        let sent = self.respond.send_response(Response::from_parts(parts, ()), end);
        self.send = Some(sent.map_err(write_error)?);
        self.ended = end;
        Ok(())
    }

    /// Sends data with `end`, which must fit into the window.
    fn send_data(&mut self, data: Bytes, end: bool) -> pingora::Result<()> {
        let Some(send) = &mut self.send else { return Ok(()) };
        send.send_data(data, end).map_err(write_error)?;
        self.ended |= end;
        Ok(())
    }

    /// The bytes that may be sent now of those that remain.
    fn poll_capacity(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<pingora::Result<usize>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Ok(0)) };
        send.reserve_capacity(wanted);
        let available = send.capacity();
        if available > 0 {
            return Poll::Ready(Ok(available));
        }
        match send.poll_capacity(cx) {
            Poll::Ready(Some(Ok(available))) => {
                self.write_timer.reset();
                if self.sending_rate.progress(available, self.minimum_rate, Instant::now) {
                    let slow = Error::explain(ErrorType::WriteTimedout, "the client reads its response too slowly");
                    return Poll::Ready(Err(slow.into_down()));
                }
                Poll::Ready(Ok(available))
            }
            Poll::Ready(Some(Err(e))) => Poll::Ready(Err(write_error(e))),
            Poll::Ready(None) => {
                Poll::Ready(Err(Error::explain(ErrorType::H2Error, "the stream is closed").into_down()))
            }
            Poll::Pending => {
                self.sending_rate.wait(Instant::now);
                ready!(self.write_timer.poll(cx, self.write_timeout));
                Poll::Ready(Err(Error::explain(ErrorType::WriteTimedout, "the client does not read").into_down()))
            }
        }
    }
}

fn write_error(e: h2::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "sending a response", e).into_down()
}

impl ClientSide for Http2Client {
    fn request(&self) -> &RequestHeader {
        &self.request
    }

    fn request_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        Some(&self.connection)
    }

    fn is_http2(&self) -> bool {
        true
    }

    fn is_request_complete(&mut self) -> bool {
        self.body.complete
    }

    fn body_received(&self) -> u64 {
        self.body.received
    }

    fn is_replayable(&self) -> bool {
        self.body.replay.is_complete()
    }

    fn response_status(&self) -> Option<StatusCode> {
        self.status
    }

    fn body_sent(&self) -> u64 {
        self.sent
    }

    /// The connection does not depend on its streams.
    fn is_keepalive(&self) -> bool {
        false
    }

    fn disable_keepalive(&mut self) {}

    fn set_close_if_request_incomplete(&mut self, _close: bool) {}

    fn suppress_interim(&mut self) {}

    fn set_timeouts(&mut self, timeouts: &ClientTimeouts) {
        (self.write_timeout, self.tunnel_timeout) = (timeouts.write, timeouts.tunnel);
        if !self.tunnel {
            self.minimum_rate = timeouts.minimum_rate;
        }
    }

    async fn respond(&mut self, head: ResponseHeader, body: Option<Bytes>) -> pingora::Result<()> {
        self.start_response(head)?;
        if let Some(mut body) = body {
            std::future::poll_fn(|cx| self.poll_send(cx, &mut body, true)).await?;
        }
        self.end_response(None)
    }

    async fn write_continue(&mut self) -> pingora::Result<()> {
        self.start_response(ResponseHeader::build_no_case(StatusCode::CONTINUE, None)?)
    }

    async fn truncate(&mut self) {
        if self.ended {
            return;
        }
        self.head = None;
        match &mut self.send {
            Some(send) => send.send_reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

impl Client for Http2Client {
    fn poll_request_body(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Option<Bytes>>> {
        let body = &mut self.body;
        if body.complete {
            return Poll::Ready(Ok(None));
        }
        let failed = |e| Error::because(ErrorType::ReadError, "reading the request body", e).into_down();
        let Poll::Ready(data) = body.stream.poll_data(cx) else {
            body.rate.wait(Instant::now);
            return Poll::Pending;
        };
        let Some(data) = data.transpose().map_err(failed)? else {
            body.trailers = ready!(body.stream.poll_trailers(cx)).map_err(failed)?;
            body.complete = true;
            return Poll::Ready(Ok(None));
        };
        body.stream.flow_control().release_capacity(data.len()).map_err(failed)?;
        body.complete = body.stream.is_end_stream();
        // A length in memory fits into 64 bits.
        body.received += data.len() as u64;
        // A stream of messages may be quiet.
        if body.rate.progress(data.len(), self.minimum_rate, Instant::now) && !is_grpc(&self.request.headers) {
            let slow = Error::explain(ErrorType::ReadTimedout, "the body was sent too slowly");
            return Poll::Ready(Err(slow.into_down()));
        }
        body.replay.record(&data);
        Poll::Ready(Ok(Some(data)))
    }

    fn replay(&self) -> Option<Bytes> {
        self.body.replay.bytes()
    }

    fn keep_request_body(&mut self, size: usize) {
        self.body.replay.keep(size);
    }

    fn request_trailers(&self) -> Option<&HeaderMap> {
        self.body.trailers.as_ref()
    }

    fn poll_tunnel(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Option<Bytes>>> {
        let failed = |e| Error::because(ErrorType::ReadError, "reading from a tunnel", e).into_down();
        let stream = &mut self.body.stream;
        let Poll::Ready(data) = stream.poll_data(cx) else {
            ready!(self.tunnel_timer.poll(cx, self.tunnel_timeout));
            let idle = Error::explain(ErrorType::ReadTimedout, "the tunnel was idle for too long");
            return Poll::Ready(Err(idle.into_down()));
        };
        self.tunnel_timer.reset();
        let data = data.transpose().map_err(failed)?;
        if let Some(data) = &data {
            stream.flow_control().release_capacity(data.len()).map_err(failed)?;
        }
        Poll::Ready(Ok(data))
    }

    fn poll_disconnected(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        if self.ended {
            return Poll::Pending;
        }
        let reset = match &mut self.send {
            Some(send) => ready!(send.poll_reset(cx)),
            None => ready!(self.respond.poll_reset(cx)),
        };
        Poll::Ready(match reset {
            Ok(reason) => {
                Error::explain(ErrorType::H2Error, format!("the client has closed the stream: {reason}")).into_down()
            }
            Err(e) => Error::because(ErrorType::H2Error, "the client has closed the connection", e).into_down(),
        })
    }

    fn start_response(&mut self, mut head: ResponseHeader) -> pingora::Result<()> {
        if self.tunnel && head.status == StatusCode::SWITCHING_PROTOCOLS {
            websocket::to_success(&mut head)?;
        } else if self.tunnel && head.status.is_success() {
            // The client would take it for a tunnel.
            let e = "a response with success instead of a switch of protocols";
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, e).into_up());
        }
        if head.status.is_informational() {
            if head.status != StatusCode::CONTINUE || self.expects_continue {
                self.status = Some(head.status);
                remove_connection_headers(&mut head);
                let parts: http::response::Parts = head.into();
                self.respond.send_informational(Response::from_parts(parts, ())).map_err(write_error)?;
            }
            return Ok(());
        }
        self.status = Some(head.status);
        // The Date of a backend stays (RFC 9110 §6.6.1).
        if !remove_connection_headers(&mut head) {
            head.insert_header(header::DATE, get_cached_date())?;
        }
        self.head = Some(head);
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes, last: bool) -> Poll<pingora::Result<()>> {
        if data.is_empty() || self.ended {
            data.clear();
            return Poll::Ready(Ok(()));
        }
        self.send_head(false)?;
        while !data.is_empty() {
            let capacity = ready!(self.poll_capacity(cx, data.len()))?;
            let part = data.split_to(capacity.min(data.len()));
            self.tunnel_timer.reset();
            // A length in memory fits into 64 bits.
            self.sent += part.len() as u64;
            self.send_data(part, last && data.is_empty())?;
        }
        Poll::Ready(Ok(()))
    }

    fn end_response(&mut self, trailers: Option<HeaderMap>) -> pingora::Result<()> {
        if let Some(trailers) = trailers {
            self.send_head(false)?;
            if let Some(send) = self.send.as_mut().filter(|_| !self.ended) {
                send.send_trailers(trailers).map_err(write_error)?;
                self.ended = true;
            }
            return Ok(());
        }
        self.send_head(true)?;
        if self.ended { Ok(()) } else { self.send_data(Bytes::new(), true) }
    }

    /// A stream ends with END_STREAM or a reset, whatever length was announced.
    fn has_whole_response(&self) -> bool {
        false
    }

    /// The task of the connection sends what was written.
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        Poll::Ready(self.send_head(false))
    }

    fn is_half_closed(&self) -> bool {
        false
    }

    async fn confirm_delivery(&mut self) -> pingora::Result<()> {
        Ok(())
    }
}

/// Removes headers that HTTP/2 does not have (RFC 9113 §8.2.2). Returns whether there is a Date.
fn remove_connection_headers(head: &mut ResponseHeader) -> bool {
    let (mut has_date, mut has_connection, mut others) = (false, false, Vec::new());
    // One pass costs less than a lookup for each name.
    for name in head.headers.keys() {
        if *name == header::DATE {
            has_date = true;
        } else if *name == header::CONNECTION {
            has_connection = true;
        } else if is_connection_header(name.as_str()) {
            others.push(name.clone());
        }
    }
    if has_connection {
        head.remove_header(&header::CONNECTION);
    }
    for name in others {
        head.remove_header(&name);
    }
    has_date
}

/// Whether it is a header of the connection other than Connection itself.
fn is_connection_header(name: &str) -> bool {
    matches!(name, "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection")
}
