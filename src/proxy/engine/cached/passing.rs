//! Sends a response that is not stored: its parts come from the fetch.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use pingora::{Error, ErrorType};
use pingora_http::ResponseHeader;
use tokio::sync::mpsc;

use super::sink::Event;
use crate::proxy::engine::client::Client;
use crate::proxy::exchange::Exchange;
use crate::proxy::{body_filters, phases};

/// The next event of a fetch.
///
/// # Errors
/// If the client disconnects, or if the fetch ended without an event.
pub(super) async fn next(client: &mut impl Client, events: &mut mpsc::Receiver<Event>) -> pingora::Result<Event> {
    tokio::select! {
        event = events.recv() => event.ok_or_else(incomplete),
        gone = std::future::poll_fn(|cx| client.poll_disconnected(cx)) => Err(gone),
    }
}

/// Sends a response that is not stored.
pub(super) async fn pass_on(
    client: &mut impl Client,
    exchange: &mut Exchange,
    mut head: ResponseHeader,
    mut events: mpsc::Receiver<Event>,
) -> pingora::Result<()> {
    let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let unframed = !bodiless && !client.is_http2() && !head.headers.contains_key(header::CONTENT_LENGTH);
    if unframed && !head.headers.contains_key(header::TRANSFER_ENCODING) {
        head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    phases::response_to_client(client, &mut head, exchange)?;
    client.start_response(head)?;
    let trailers = send_body(client, exchange, &mut events).await?;
    client.end_response(trailers)?;
    phases::response_body_to_client(client, true, exchange);
    std::future::poll_fn(|cx| client.poll_flush(cx)).await
}

/// Sends the body of a response that is not stored. Returns its trailers.
async fn send_body(
    client: &mut impl Client,
    exchange: &mut Exchange,
    events: &mut mpsc::Receiver<Event>,
) -> pingora::Result<Option<HeaderMap>> {
    loop {
        let event = match events.try_recv() {
            Ok(event) => event,
            Err(_) => {
                std::future::poll_fn(|cx| client.poll_flush(cx)).await?;
                next(client, events).await?
            }
        };
        match event {
            Event::Data(data) => send(client, exchange, data).await?,
            Event::End(trailers) => {
                end_body(client, exchange).await?;
                return Ok(trailers);
            }
            event => return Err(failure(exchange, event)),
        }
    }
}

/// Sends a part of the body.
pub(super) async fn send(client: &mut impl Client, exchange: &mut Exchange, part: Bytes) -> pingora::Result<()> {
    phases::response_body_to_client(client, false, exchange);
    let mut part = body_filters::transform(exchange, part, false)?;
    std::future::poll_fn(|cx| client.poll_send(cx, &mut part, false)).await
}

/// Sends what the body filters still have at the end of the body.
pub(super) async fn end_body(client: &mut impl Client, exchange: &mut Exchange) -> pingora::Result<()> {
    if exchange.body_filters.is_none() {
        return Ok(());
    }
    let mut rest = body_filters::transform(exchange, Bytes::new(), true)?;
    std::future::poll_fn(|cx| client.poll_send(cx, &mut rest, false)).await
}

/// The error of a response after which this event came, instead of its rest.
pub(super) fn failure(exchange: &mut Exchange, event: Event) -> Box<Error> {
    let Event::Failed(failed) = event else { return incomplete() };
    let (error, report) = *failed;
    report.apply(exchange);
    error.unwrap_or_else(incomplete)
}

/// The error of a response that is not complete.
pub(super) fn incomplete() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "the fetch ended before the response").into_up()
}
