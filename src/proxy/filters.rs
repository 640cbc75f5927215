//! Applies what the filters of a request decide: waits, responses and rewritten targets.

use http::request::Parts;
use http::{Method, StatusCode, header};
use pingora_http::ResponseHeader;

use super::client_side::ClientSide;
use super::exchange::Exchange;
use super::origin::origin;
use super::requested_target::RequestedTarget;
use super::subrequests::{Forwarder, OnBehalf};
use super::{body_filters, framing, headers, respond as responses};
use crate::decision::check_forwardable;
use crate::decision::filtering::resume;
use crate::filter::LocalResponse;
use crate::http::rejection::DetailedRejection;
use crate::observe::recent_requests::Recorder;

/// Waits for what the filters wait for, and sends their response or rejection; returns whether one was sent.
pub(super) async fn respond(
    client: &mut impl ClientSide,
    exchange: &mut Exchange,
    recorder: &Recorder,
    forwarder: Option<&dyn Forwarder>,
) -> pingora::Result<bool> {
    if exchange.filtered.is_none() {
        return Ok(false);
    }
    if let Err(rejection) = wait(client, exchange, forwarder).await {
        let rejection = exchange.explain_rejection(client, rejection);
        exchange.note(client, recorder);
        responses::reject(client, exchange, rejection).await?;
        return Ok(true);
    }
    let Some(response) = exchange.filtered.as_mut().and_then(|filtered| filtered.response.take()) else {
        return Ok(false);
    };
    exchange.note(client, recorder);
    send(client, exchange, *response).await?;
    Ok(true)
}

/// Waits until all filters have decided.
async fn wait(
    client: &impl ClientSide,
    exchange: &mut Exchange,
    forwarder: Option<&dyn Forwarder>,
) -> Result<(), DetailedRejection> {
    let mut waited = false;
    while let Some((pending, next)) = exchange.filtered.as_mut().and_then(|filtered| filtered.pending.take()) {
        waited = true;
        let subrequests = OnBehalf::of(exchange, forwarder);
        let resolution = pending.resolve(&subrequests).await;
        let Some(mut filtered) = exchange.filtered.take() else { break };
        let who = (exchange.client, exchange.trusted);
        let origin = origin(exchange.connection.as_deref(), who, exchange.request_id.as_str());
        let about = (client.request(), &origin, exchange.route.as_ref());
        let resumed = resume(&mut filtered, &exchange.snapshot, about, (resolution, next));
        exchange.filtered = Some(filtered);
        resumed?;
    }
    let responds = exchange.filtered.as_ref().is_some_and(|filtered| filtered.response.is_some());
    if !waited || responds {
        return Ok(());
    }
    check_forwardable(client.request(), exchange.route.as_deref(), exchange.body_size())
}

/// Sends the response of a filter.
async fn send(client: &mut impl ClientSide, exchange: &mut Exchange, local: LocalResponse) -> pingora::Result<()> {
    exchange.own_cause = Some(local.cause);
    framing::decide_on_unread_body(client);
    let mut response = ResponseHeader::build_no_case(local.status, Some(local.headers.len().saturating_add(4)))?;
    for (name, value) in &local.headers {
        response.append_header(name, value)?;
    }
    let may_have_body = !matches!(local.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if may_have_body {
        response.insert_header(header::CONTENT_LENGTH, local.body.len())?;
    }
    headers::to_client(client, &mut response, exchange)?;
    let has_body = may_have_body && client.request().method != Method::HEAD && !local.body.is_empty();
    body_filters::respond(client, exchange, (local.cause, response, has_body.then_some(local.body))).await?;
    exchange.response_complete(client);
    Ok(())
}

/// Rewrites the target and Host of a request for backends, once.
pub(super) fn rewrite(client: &mut impl ClientSide, exchange: &mut Exchange) {
    let Some(filtered) = exchange.filtered.as_mut().filter(|filtered| filtered.changes.rewrites()) else {
        return;
    };
    let mut changes = std::mem::take(&mut filtered.changes);
    // They apply until the request ends.
    filtered.changes.body_size = changes.body_size;
    filtered.changes.timeouts = changes.timeouts;
    // The response names them.
    filtered.changes.quotas = std::mem::take(&mut changes.quotas);
    exchange.requested = Some(Box::new(RequestedTarget::of(client.request())));
    let nothing = http::Request::new(()).into_parts().0.into();
    let mut request: Parts = std::mem::replace(client.request_mut(), nothing).into();
    changes.apply_target(&mut request.uri, &mut request.headers);
    *client.request_mut() = request.into();
}
