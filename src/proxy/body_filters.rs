//! Passes response bodies through the body filters of their response.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Version, header};
use pingora_http::ResponseHeader;

use super::client_side::ClientSide;
use super::exchange::Exchange;
use crate::base::cause::Cause;

/// Transforms a part of the response body; `end` if nothing follows. Without body filters it stays as it is.
pub(super) fn transform(exchange: &mut Exchange, data: Bytes, end: bool) -> pingora::Result<Bytes> {
    let Some(filters) = &mut exchange.body_filters else { return Ok(data) };
    let data = filters.transform(data, end)?;
    if end {
        exchange.body_filters = None;
    }
    Ok(data)
}

/// Adapts the framing to a transformed body. A response without a body gets the same fields, and nothing is transformed.
pub(super) fn reframe(
    client: &mut impl ClientSide,
    head: &mut ResponseHeader,
    exchange: &mut Exchange,
) -> pingora::Result<()> {
    if exchange.body_filters.is_none() {
        return Ok(());
    }
    if !has_body(client, head.status) {
        exchange.body_filters = None;
    }
    if head.headers.contains_key(header::CONTENT_LENGTH) {
        head.remove_header(&header::TRANSFER_ENCODING);
    } else if client.request().version == Version::HTTP_10 {
        // The end of the connection ends the body.
        client.disable_keepalive();
    } else if !client.is_http2() {
        head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    Ok(())
}

/// Writes a complete response of l7lb itself, for this cause. The body is transformed as a whole, so its length is known.
pub(super) async fn respond(
    client: &mut impl ClientSide,
    exchange: &mut Exchange,
    (cause, mut head, body): (Cause, ResponseHeader, Option<Bytes>),
) -> pingora::Result<()> {
    exchange.own_cause = Some(cause);
    exchange.note_response(&head.headers);
    let Some(mut filters) = exchange.body_filters.take() else { return client.respond(head, body).await };
    if !has_body(client, head.status) {
        return client.respond(head, None).await;
    }
    let body = filters.transform(body.unwrap_or_default(), true)?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    client.respond(head, (!body.is_empty()).then_some(body)).await
}

fn has_body(client: &impl ClientSide, status: StatusCode) -> bool {
    let without = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    client.request().method != Method::HEAD && !without && !status.is_informational()
}
