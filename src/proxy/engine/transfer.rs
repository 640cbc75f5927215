//! One attempt on an established connection: the request to the backend, and its response to the client, in one
//! task.
//!
//! Both directions move at the same time: a backend may respond before it has read the whole request, and a
//! client may send while it reads.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use pingora::Error;
use pingora_http::ResponseHeader;

use super::backend::Backend;
use super::client::Client;
use crate::http::trailers;
use crate::proxy::exchange::Exchange;
use crate::proxy::{body_filters, phases};

/// One attempt.
pub(super) struct Transfer<'a, C, B> {
    client: &'a mut C,
    exchange: &'a mut Exchange,
    backend: B,
    upload: Upload,
    download: Download,
    /// A part of the body of the response that was not sent yet.
    data: Bytes,
    /// Whether it is the last part.
    last: bool,
    /// Whether something was written to the client since the last flush.
    must_flush: bool,
}

/// The state of the request.
enum Upload {
    /// Sending; first what an earlier attempt has received.
    Sending { replay: Option<Bytes> },
    /// The end was added.
    Ending,
    /// The protocol was switched: bytes in both directions, until one side closes.
    Tunnel,
    /// Sent.
    Complete,
    /// The backend does not read it. It may have responded nevertheless.
    Failed(Box<Error>),
}

/// The state of the response.
enum Download {
    Head,
    Body,
    Ending,
}

impl<'a, C: Client, B: Backend> Transfer<'a, C, B> {
    pub(super) fn new(client: &'a mut C, exchange: &'a mut Exchange, mut backend: B) -> Self {
        let replay = client.replay();
        let upload = if client.is_request_complete() && replay.is_none() {
            backend.push_end(client.request_trailers().cloned().and_then(trailers::allowed));
            Upload::Ending
        } else {
            Upload::Sending { replay }
        };
        Self {
            client,
            exchange,
            backend,
            upload,
            download: Download::Head,
            data: Bytes::new(),
            last: false,
            must_flush: false,
        }
    }

    /// The exchange with the backend, and whether the whole request was sent.
    pub(super) fn into_backend(self) -> (B, bool) {
        (self.backend, matches!(self.upload, Upload::Complete))
    }

    /// Ready when the response was sent. What is left of the request then does not matter.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        if matches!(self.upload, Upload::Sending { .. } | Upload::Ending) {
            match self.poll_upload(cx) {
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if matches!(self.upload, Upload::Tunnel) {
            return self.poll_tunnel(cx);
        }
        let can_disconnect = self.client.is_http2() || self.client.is_request_complete();
        if can_disconnect && let Poll::Ready(e) = self.client.poll_disconnected(cx) {
            return Poll::Ready(Err(e));
        }
        match self.poll_download(cx) {
            // The response has just switched the protocol; the client's bytes may have arrived already.
            Poll::Pending if matches!(self.upload, Upload::Tunnel) => self.poll_tunnel(cx),
            polled => polled,
        }
    }

    /// Passes bytes in both directions until one side closes.
    fn poll_tunnel(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        if let Poll::Ready(closed) = self.poll_tunnel_upload(cx) {
            return Poll::Ready(closed);
        }
        self.poll_download(cx)
    }

    fn poll_tunnel_upload(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        loop {
            ready!(self.backend.poll_write(cx))?;
            match self.client.poll_tunnel(cx)? {
                Poll::Ready(Some(data)) => {
                    phases::request_body(self.client, data.len(), false, self.exchange)?;
                    self.backend.push_body(data);
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    ready!(self.backend.poll_flush(cx))?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Sends the request. An error is one of the client, or of the request itself.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        loop {
            if let Err(e) = ready!(self.backend.poll_write(cx)) {
                self.upload = Upload::Failed(e);
                return Poll::Ready(Ok(()));
            }
            let Upload::Sending { replay } = &mut self.upload else { break };
            if let Some(replayed) = replay.take() {
                self.backend.push_body(replayed);
            } else {
                match self.client.poll_request_body(cx) {
                    Poll::Ready(data) => self.push(data?)?,
                    Poll::Pending => {
                        // What was received so far must not wait for the rest.
                        if let Poll::Ready(Err(e)) = self.backend.poll_flush(cx) {
                            self.upload = Upload::Failed(e);
                            return Poll::Ready(Ok(()));
                        }
                        return Poll::Pending;
                    }
                }
            }
            if self.client.is_request_complete() {
                self.backend.push_end(self.client.request_trailers().cloned().and_then(trailers::allowed));
                self.upload = Upload::Ending;
            }
        }
        self.upload = match ready!(self.backend.poll_flush(cx)) {
            Ok(()) => Upload::Complete,
            Err(e) => Upload::Failed(e),
        };
        Poll::Ready(Ok(()))
    }

    /// Adds a part of the request body.
    fn push(&mut self, data: Option<Bytes>) -> pingora::Result<()> {
        let data = data.unwrap_or_default();
        let last = self.client.is_request_complete();
        phases::request_body(self.client, data.len(), last, self.exchange)?;
        if let Some(mirroring) = &mut self.exchange.mirroring {
            mirroring.receive(&data, last);
        }
        self.backend.push_body(data);
        Ok(())
    }

    fn poll_download(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        loop {
            match self.download {
                Download::Head => match self.backend.poll_head(cx) {
                    Poll::Ready(Ok(head)) => self.start_response(head)?,
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(self.backend_error(e))),
                    Poll::Pending => return self.poll_flush(cx).and_pending(),
                },
                Download::Body => {
                    ready!(self.client.poll_send(cx, &mut self.data, self.last))?;
                    if self.backend.is_complete() {
                        if self.exchange.body_filters.is_some() {
                            self.data = body_filters::transform(self.exchange, Bytes::new(), true)?;
                            continue;
                        }
                        phases::response_body_to_client(self.client, true, self.exchange);
                        let trailers = self.backend.take_trailers();
                        if let Some(trailers) = &trailers {
                            phases::trailers_received(trailers, self.exchange);
                        }
                        self.client.end_response(trailers.and_then(trailers::allowed))?;
                        self.download = Download::Ending;
                        continue;
                    }
                    match self.backend.poll_body(cx) {
                        Poll::Ready(Ok(data)) => {
                            phases::response_body_received(self.exchange)?;
                            self.data = body_filters::transform(self.exchange, data.unwrap_or_default(), false)?;
                            self.last = self.backend.is_complete() && self.exchange.body_filters.is_none();
                            phases::response_body_to_client(self.client, false, self.exchange);
                            self.must_flush = true;
                        }
                        // An HTTP/2 backend may reset its stream after the announced length; nothing is missing.
                        Poll::Ready(Err(e)) if self.client.has_whole_response() => {
                            log::debug!("after the response: {e}");
                            phases::response_body_to_client(self.client, true, self.exchange);
                            self.download = Download::Ending;
                        }
                        Poll::Ready(Err(e)) => return Poll::Ready(Err(self.backend_error(e))),
                        Poll::Pending => return self.poll_flush(cx).and_pending(),
                    }
                }
                Download::Ending => return self.client.poll_flush(cx),
            }
        }
    }

    /// Lets the client see what was written so far.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<()>> {
        if self.must_flush {
            ready!(self.client.poll_flush(cx))?;
            self.must_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The head of a response has arrived, which may be an interim one.
    fn start_response(&mut self, mut head: ResponseHeader) -> pingora::Result<()> {
        let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let interim = head.status.is_informational() && !switched;
        phases::response_received(self.client, &mut head, self.exchange)?;
        self.must_flush = true;
        if !interim {
            self.download = Download::Body;
        }
        let Some(mut head) = self.client.take_original(head, self.exchange) else { return Ok(()) };
        let open = !interim && !switched && !self.client.is_http2() && self.backend.ends_with_connection();
        if open && !head.headers.contains_key(header::TRANSFER_ENCODING) {
            // The client's connection can then stay open.
            head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
        }
        phases::response_to_client(self.client, &mut head, self.exchange)?;
        self.client.start_response(head)?;
        if switched {
            self.upload = Upload::Tunnel;
        }
        Ok(())
    }

    /// The error of the backend. If it did not read the request, that came first.
    fn backend_error(&mut self, e: Box<Error>) -> Box<Error> {
        match std::mem::replace(&mut self.upload, Upload::Complete) {
            Upload::Failed(first) => first.into_up(),
            before => {
                self.upload = before;
                e.into_up()
            }
        }
    }
}

/// A wait that goes on, unless something failed.
trait AndPending {
    fn and_pending(self) -> Self;
}

impl AndPending for Poll<pingora::Result<()>> {
    fn and_pending(self) -> Self {
        match self {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }
}
