//! Error responses: the only place that defines bodies and keep-alive of responses by l7lb itself.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora::{Error, ErrorSource};
use pingora_http::{RequestHeader, ResponseHeader};

use super::client_side::ClientSide;
use super::exchange::Exchange;
use super::{body_filters, failover, framing, headers};
use crate::base::cause::Cause;
use crate::base::lifecycle::Lifecycle;
use crate::decision::host;
use crate::decision::own_response::{MAX_FORWARDS, OwnResponse, max_forwards};
use crate::http::grpc_status::is_grpc;
use crate::http::rejection::Rejection;

/// Responds to a request that was rejected before any attempt.
pub(super) async fn reject(
    client: &mut impl ClientSide,
    exchange: &mut Exchange,
    rejection: Rejection,
) -> pingora::Result<()> {
    exchange.rejection = Some(rejection);
    if !rejection.keeps_connection() {
        client.disable_keepalive();
    }
    write(client, exchange, rejection).await?;
    exchange.response_complete(client);
    Ok(())
}

/// Responds to a health check of the balancer itself; returns whether the request was one. Such requests use no
/// route and no limit, and are not counted.
pub(super) async fn balancer_health(
    client: &mut impl ClientSide,
    exchange: &mut Exchange,
    lifecycle: &Lifecycle,
) -> pingora::Result<bool> {
    let paths = exchange.policy().map(|policy| &policy.health);
    let check = paths.and_then(|paths| OwnResponse::to_health_check(paths, client.request()));
    let (status, body) = match check {
        Some(OwnResponse::Live) => (StatusCode::OK, "live\n"),
        Some(OwnResponse::Ready) if lifecycle.is_ready() => (StatusCode::OK, "ready\n"),
        Some(OwnResponse::Ready) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        None | Some(OwnResponse::LastRecipient) => return Ok(false),
    };
    let head = client.request().method == Method::HEAD;
    exchange.uncounted = true;
    framing::decide_on_unread_body(client);
    let mut response = ResponseHeader::build(status, Some(4))?;
    response.insert_header(header::CONTENT_TYPE, "text/plain; charset=utf-8")?;
    response.insert_header(header::CONTENT_LENGTH, body.len())?;
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    exchange.own_cause = Some(Cause::Health);
    headers::proxy_status(&mut response, exchange)?;
    let body = (!head).then_some(Bytes::from_static(body.as_bytes()));
    body_filters::respond(client, exchange, (Cause::Health, response, body)).await?;
    exchange.response_complete(client);
    Ok(true)
}

/// Responds to an admitted request that must not be forwarded any further; returns whether it was one. Otherwise its
/// Max-Forwards is decremented (RFC 9110 §7.6.2).
pub(super) async fn last_recipient(client: &mut impl ClientSide, exchange: &mut Exchange) -> pingora::Result<bool> {
    if client.request().method != Method::OPTIONS {
        return Ok(false);
    }
    if OwnResponse::to_last_recipient(client.request()).is_none() {
        if let Some(left) = max_forwards(&client.request().headers) {
            client.request_mut().insert_header(MAX_FORWARDS, left.saturating_sub(1))?;
        }
        return Ok(false);
    }
    exchange.own_cause = Some(Cause::LastRecipient);
    framing::decide_on_unread_body(client);
    let mut response = ResponseHeader::build(StatusCode::OK, Some(4))?;
    response.insert_header(header::CONTENT_LENGTH, 0)?;
    headers::to_client(client, &mut response, exchange)?;
    body_filters::respond(client, exchange, (Cause::LastRecipient, response, None)).await?;
    exchange.response_complete(client);
    Ok(true)
}

/// Responds to a request whose attempts failed, if the client is still connected. Returns the status code of the
/// error, or 0 if nothing was sent.
pub(super) async fn failure(client: &mut impl ClientSide, exchange: &mut Exchange, e: &Error) -> u16 {
    if let Some(fault) = exchange.fault() {
        exchange.rejection = Some(fault.rejection);
    }
    if exchange.rejection.is_none() && failover::client_has_disconnected(e) {
        return 0;
    }
    let rejection = failover::classify(exchange, e);
    exchange.rejection = Some(rejection);
    if client.has_response() {
        // The response has started and can only be truncated. On HTTP/2 that ends the stream; an HTTP/1.1
        // connection is closed by the listener, because the response is not marked as complete.
        client.truncate().await;
        return rejection.status();
    }
    if *e.esource() == ErrorSource::Downstream || !rejection.keeps_connection() {
        client.disable_keepalive();
    }
    match write(client, exchange, rejection).await {
        Ok(()) => {
            exchange.response_complete(client);
            exchange.keep_connection(client);
            rejection.status()
        }
        Err(e) => {
            log::debug!("cannot respond to the client: {e}");
            0
        }
    }
}

async fn write(client: &mut impl ClientSide, exchange: &mut Exchange, rejection: Rejection) -> pingora::Result<()> {
    framing::decide_on_unread_body(client);
    if is_grpc_request(client.request()) {
        return write_grpc(client, exchange, rejection).await;
    }
    let (content_type, body) = rejection.page(wants_json(client.request()), exchange.request_id.as_str());
    let mut response = ResponseHeader::build(rejection.status(), Some(8))?;
    response.insert_header(header::CONTENT_TYPE, content_type)?;
    response.insert_header(header::CONTENT_LENGTH, body.len())?;
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    if rejection == Rejection::HttpsRequired
        && let Some(location) = https_location(client.request(), exchange)
    {
        response.insert_header(header::LOCATION, location)?;
    }
    finish_head(client, &mut response, exchange, rejection)?;
    let has_body = client.request().method != http::Method::HEAD;
    body_filters::respond(client, exchange, (rejection.cause(), response, has_body.then(|| Bytes::from(body)))).await
}

/// Writes a gRPC error: gRPC clients expect status code 200, and read the gRPC status from the trailers, or
/// from the header if there is no message.
async fn write_grpc(
    client: &mut impl ClientSide,
    exchange: &mut Exchange,
    rejection: Rejection,
) -> pingora::Result<()> {
    let mut response = ResponseHeader::build(http::StatusCode::OK, Some(8))?;
    response.insert_header(header::CONTENT_TYPE, "application/grpc")?;
    response.insert_header("grpc-status", u16::from(rejection.grpc_status()))?;
    response.insert_header("grpc-message", rejection.cause().as_str())?;
    finish_head(client, &mut response, exchange, rejection)?;
    body_filters::respond(client, exchange, (rejection.cause(), response, None)).await
}

fn finish_head(
    client: &impl ClientSide,
    response: &mut ResponseHeader,
    exchange: &mut Exchange,
    rejection: Rejection,
) -> pingora::Result<()> {
    if let Some(retry_after) = rejection.retry_after() {
        // "0" would make the client retry immediately.
        response.insert_header(header::RETRY_AFTER, headers::whole_seconds(retry_after).max(1))?;
    }
    headers::to_client(client, response, exchange)
}

/// Whether the request is a gRPC call. gRPC needs HTTP/2; gRPC-Web has its own media type and uses HTTP status
/// codes.
fn is_grpc_request(request: &RequestHeader) -> bool {
    request.version == http::Version::HTTP_2 && is_grpc(&request.headers)
}

/// The same URL with HTTPS; `None` if the request has no host.
fn https_location(request: &RequestHeader, exchange: &Exchange) -> Option<String> {
    let port = exchange.policy()?.redirect_to_https?;
    let authority: http::uri::Authority = host(request)?.parse().ok()?;
    let host = authority.host();
    let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Some(match port {
        443 => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    })
}

fn wants_json(request: &RequestHeader) -> bool {
    let mut accepted = request.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("application/json") || value.contains("+json"))
}
