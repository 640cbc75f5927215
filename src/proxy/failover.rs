//! Failures of attempts, and whether the request is retried on another backend.
//!
//! [`crate::retry`] decides what may be retried; this file translates Pingora's errors for it. There is no
//! retry once a response has started, and none for failures that the client caused.

use http::StatusCode;
use pingora::{Error, ErrorSource, ErrorType, RetryType};
use pingora_http::ResponseHeader;

use super::client_side::ClientSide;
use super::exchange::Exchange;
use crate::base::cause::Cause;
use crate::http::grpc_status::GrpcStatus;
use crate::http::rejection::Rejection;
use crate::pool::passive_health::Outcome;
use crate::retry::AttemptOutcome;

/// Decides whether to retry after the connection could not be established.
pub(super) fn after_connect(client: &impl ClientSide, exchange: &mut Exchange, mut e: Box<Error>) -> Box<Error> {
    let rejection = classify(exchange, &e);
    exchange.rejection = Some(rejection);
    exchange.failed_attempts.push(rejection.cause());
    exchange.backend_not_at_fault = false;
    if !matches!(rejection, Rejection::DeadlineExpired | Rejection::Internal) {
        exchange.record(AttemptOutcome::Connect);
    }
    e.set_retry(exchange.retry_elsewhere(client, AttemptOutcome::Connect));
    e
}

/// The outcome in the header of a response: its status code, or the gRPC status of a trailers-only response if `grpc`.
pub(super) fn verdict(response: &ResponseHeader, grpc: bool) -> AttemptOutcome {
    let call = grpc.then(|| GrpcStatus::of(&response.headers)).flatten();
    call.map_or(AttemptOutcome::Status(response.status.as_u16()), AttemptOutcome::Grpc)
}

/// What the header of a response implies for the health of the backend.
fn outcome(verdict: AttemptOutcome) -> Outcome {
    match verdict {
        AttemptOutcome::Status(status) => Outcome::of_status(status),
        AttemptOutcome::Grpc(status) => Outcome::of_status(status.http()),
        _ => Outcome::GatewayFailure,
    }
}

/// Decides about a retry when the header has arrived. For a response that is to be retried, returns the error that
/// makes Pingora start the next attempt.
pub(super) fn after_header(
    client: &impl ClientSide,
    exchange: &mut Exchange,
    status: StatusCode,
    failure: AttemptOutcome,
) -> pingora::Result<()> {
    let failed_trial = exchange.is_trial() && outcome(failure) != Outcome::Success;
    if !failed_trial && !exchange.route.as_ref().is_some_and(|route| route.retry.covers(failure)) {
        return Ok(());
    }
    exchange.backend_not_at_fault = false;
    if client.has_response() || !exchange.retry_elsewhere(client, failure) {
        return Ok(());
    }
    exchange.record(failure);
    exchange.failed_attempts.push(Cause::RetriedResponse);
    let mut e = Error::explain(ErrorType::HTTPStatus(status.as_u16()), "retried on another backend").into_up();
    e.set_retry(true);
    Err(e)
}

/// Decides whether to retry after an established connection failed.
pub(super) fn after_broken_connection(
    client: &impl ClientSide,
    exchange: &mut Exchange,
    mut e: Box<Error>,
    reused: bool,
) -> Box<Error> {
    if exchange.next.is_some() {
        // `after_header` has already decided to retry.
        e.set_retry(true);
        return e;
    }
    let upstream = *e.esource() == ErrorSource::Upstream;
    if exchange.rejection.is_none() && upstream {
        exchange.rejection = Some(classify(exchange, &e));
    }
    // Pingora marks errors safe for any method: a refused HTTP/2 stream, and a connection that the backend was
    // closing.
    let refused = matches!(e.retry, RetryType::Decided(true));
    exchange.backend_not_at_fault = refused || (matches!(e.retry, RetryType::ReusedOnly) && reused);
    if (upstream || refused) && !exchange.has_ended_early() {
        note_failure(exchange, &e, refused);
    }
    e.set_retry(false);
    if exchange.has_response() && upstream && is_truncated_by_backend(exchange) {
        exchange.response_failed(Outcome::GatewayFailure);
    }
    let begun = exchange.has_response() || client.has_response();
    if begun || !(upstream || refused) {
        return e;
    }
    let failure = match has_timed_out(exchange, &e) {
        _ if exchange.ended_as_unresponsive() => AttemptOutcome::Unresponsive,
        true => AttemptOutcome::Timeout,
        false if refused => AttemptOutcome::RefusedStream,
        false => AttemptOutcome::Reset,
    };
    let clients = matches!(exchange.rejection, Some(Rejection::BodyTimeout | Rejection::DeadlineExpired));
    if clients {
        return e;
    }
    if exchange.backend_not_at_fault {
        exchange.note_outcome_now(failure);
    } else {
        exchange.record(failure);
    }
    e.set_retry(exchange.retry_elsewhere(client, failure));
    e
}

/// Adds the cause of a failed attempt, unless the client is the reason.
fn note_failure(exchange: &mut Exchange, e: &Error, refused: bool) {
    let cause = match classify(exchange, e) {
        Rejection::BodyTimeout | Rejection::BadRequest | Rejection::DeadlineExpired => return,
        _ if exchange.ended_as_unresponsive() => Cause::Unresponsive,
        _ if refused => Cause::RefusedStream,
        _ if exchange.backend_not_at_fault => Cause::StaleConnection,
        rejection => rejection.cause(),
    };
    exchange.failed_attempts.push(cause);
}

/// Whether the backend caused the truncation of a response. With HTTP/1 an idle timeout counts as its fault;
/// with HTTP/2 it does not, because the client may have read too slowly.
fn is_truncated_by_backend(exchange: &Exchange) -> bool {
    match exchange.rejection {
        Some(Rejection::BackendFailed) => !exchange.has_ended_early(),
        Some(Rejection::IdleTimeout) => !exchange.http2,
        _ => false,
    }
}

/// Whether the attempt timed out. The backend may still be working on the request, so a retry doubles the work.
fn has_timed_out(exchange: &Exchange, e: &Error) -> bool {
    exchange.expired_timeout().is_some() || matches!(e.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout)
}

/// Whether the client has closed the connection.
pub(super) fn client_has_disconnected(e: &Error) -> bool {
    *e.esource() == ErrorSource::Downstream
        && matches!(
            e.etype(),
            ErrorType::ConnectionClosed
                | ErrorType::ReadError
                | ErrorType::WriteError
                | ErrorType::WriteTimedout
                | ErrorType::H2Error
        )
}

/// The cause of a Pingora error.
pub(super) fn classify(exchange: &Exchange, e: &Error) -> Rejection {
    if let Some(rejection) = exchange.rejection {
        return rejection;
    }
    if let Some(rejection) = exchange.expired_timeout() {
        return rejection;
    }
    match (e.etype(), e.esource()) {
        (ErrorType::ReadTimedout, ErrorSource::Downstream) if exchange.switched => Rejection::IdleTimeout,
        (ErrorType::ReadTimedout, ErrorSource::Downstream) => Rejection::BodyTimeout,
        (_, ErrorSource::Downstream) => Rejection::BadRequest,
        (
            ErrorType::ConnectTimedout
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout,
            _,
        ) if let Some(rejection) = exchange.expired_deadline() => rejection,
        (ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout, _) => Rejection::ConnectTimeout,
        (ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError, _) => {
            Rejection::BackendTlsFailed
        }
        (
            ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::BindError
            | ErrorType::SocketError,
            _,
        ) => Rejection::ConnectFailed,
        (ErrorType::ReadTimedout, _) if exchange.has_response() => Rejection::IdleTimeout,
        (ErrorType::ReadTimedout, _) => Rejection::FirstByteTimeout,
        (ErrorType::WriteTimedout, _) => Rejection::IdleTimeout,
        (_, ErrorSource::Upstream) => Rejection::BackendFailed,
        _ => Rejection::Internal,
    }
}
