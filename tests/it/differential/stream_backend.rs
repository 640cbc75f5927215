//! An HTTP/2 backend that treats each stream as its case says.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};

use super::backend::{Cases, Received};
use super::case::{StreamAttempt, StreamEnd, filler};
use super::client::summary;
use crate::lab::grpc::send;
use crate::lab::scripted::Scripted;

impl Cases {
    /// Starts an HTTP/2 backend; returns its port.
    pub fn start_http2(self: &Arc<Self>) -> u16 {
        let cases = Arc::clone(self);
        Scripted::start_http2(move |_, connection, (request, respond)| {
            let number = request.headers().get("x-case").and_then(|number| number.to_str().ok()?.parse().ok());
            let Some((number, attempt)) = number.and_then(|number| Some((number, cases.next_stream(number)?))) else {
                return;
            };
            if attempt.end == StreamEnd::Goaway {
                connection.graceful_shutdown();
            }
            // The balancer may end the stream at any point.
            tokio::spawn(Arc::clone(&cases).serve_stream(number, attempt, request, respond));
        })
        .port
    }

    /// What to do with the next stream of the case.
    fn next_stream(&self, number: usize) -> Option<StreamAttempt> {
        let mut known = self.known.lock().unwrap();
        let (case, received) = known.get_mut(&number)?;
        let attempt = case.streams.get(received.len()).or(case.streams.last()).cloned();
        received.push(Received { head: Vec::new(), body: None });
        attempt
    }

    async fn serve_stream(
        self: Arc<Self>,
        number: usize,
        attempt: StreamAttempt,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Option<()> {
        let head = describe(&request);
        // Held until the end, because dropping it stops the client.
        let mut body = request.into_body();
        let read = if attempt.reads_body { Some(read(&mut body).await) } else { None };
        if let Some((_, received)) = self.known.lock().unwrap().get_mut(&number) {
            *received.iter_mut().find(|received| received.head.is_empty())? = Received { head, body: read };
        }
        if let StreamEnd::Refuse(reason) = attempt.end {
            respond.send_reset(reason.into());
            return None;
        }
        let mut response = Response::builder().status(attempt.status);
        for (name, value) in &attempt.fields {
            response = response.header(*name, value);
        }
        let only_head = attempt.data.is_empty() && !attempt.trailers && !matches!(attempt.end, StreamEnd::Reset(_));
        let stream = respond.send_response(response.body(()).unwrap(), only_head).ok()?;
        if !only_head {
            send_body(stream, &attempt).await?;
        }
        if !attempt.reads_body {
            read_rest(&mut body).await;
        }
        Some(())
    }
}

async fn send_body(mut stream: SendStream<Bytes>, attempt: &StreamAttempt) -> Option<()> {
    for size in &attempt.data {
        send(&mut stream, filler(*size).collect::<Vec<u8>>().into()).await.ok()?;
    }
    if let StreamEnd::Reset(reason) = attempt.end {
        // What was sent must be read before the reset discards it.
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        stream.send_reset(reason.into());
        return Some(());
    }
    if attempt.trailers {
        let trailer = (HeaderName::from_static("x-trailer"), HeaderValue::from_static("t"));
        return stream.send_trailers(HeaderMap::from_iter([trailer])).ok();
    }
    stream.send_data(Bytes::new(), true).ok()
}

/// Method, path and headers, sorted, without the request id.
fn describe(request: &Request<RecvStream>) -> Vec<String> {
    let mut lines = vec![format!("{} {}", request.method(), request.uri())];
    for (name, value) in request.headers() {
        if name != "x-request-id" {
            lines.push(format!("{name}: {}", value.as_bytes().escape_ascii()));
        }
    }
    lines.sort_unstable();
    lines
}

async fn read(body: &mut RecvStream) -> (String, bool) {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return (summary(&bytes), false) };
        bytes.extend_from_slice(&data);
        // The connection may have ended.
        let _ = body.flow_control().release_capacity(data.len());
    }
    (summary(&bytes), true)
}

async fn read_rest(body: &mut RecvStream) {
    // An unread body is none of the case's observations.
    let _ = read(body).await;
}
