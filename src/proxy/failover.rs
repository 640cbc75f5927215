//! What went wrong between us and a backend, and whether another one may be tried.
//!
//! Two rules. A connection that never came about carried nothing, so any request may go elsewhere.
//! A request that may have reached a backend goes elsewhere only if doing it twice does no harm
//! (RFC 9110 §9.2.2), its body can still be sent again, and no answer has begun.

use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use super::exchange::Exchange;
use crate::rejection::Rejection;

/// How many backends a request is sent to at most.
const TRIES_MAX: usize = 2;

/// Decides after a failed connection.
pub(super) fn after_connect(exchange: &mut Exchange, mut e: Box<Error>) -> Box<Error> {
    exchange.rejection = Some(classify(exchange, &e));
    exchange.stale = false;
    e.set_retry(exchange.tries() < TRIES_MAX);
    e
}

/// Decides after a connection broke.
pub(super) fn after_request(session: &Session, exchange: &mut Exchange, mut e: Box<Error>, reused: bool) -> Box<Error> {
    let downstream = session.as_downstream();
    let repeatable = downstream.req_header().method.is_idempotent()
        && !downstream.retry_buffer_truncated()
        && downstream.response_written().is_none()
        && !exchange.is_answered();
    if exchange.rejection.is_none() && *e.esource() == ErrorSource::Upstream {
        exchange.rejection = Some(classify(exchange, &e));
    }
    // Pingora knows cases that are safe for any method, such as a refused HTTP/2 stream.
    e.retry.decide_reuse(reused && repeatable);
    exchange.stale = e.retry();
    let broken = *e.esource() == ErrorSource::Upstream && !is_late(exchange, &e);
    let again = (e.retry() || (broken && repeatable)) && exchange.tries() < TRIES_MAX;
    e.set_retry(again);
    e
}

/// A backend that is late may well be working on the request; asking another doubles the work.
fn is_late(exchange: &Exchange, e: &Error) -> bool {
    exchange.overdue().is_some() || matches!(e.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout)
}

/// Whether the client went away, so that nobody is left to be told anything.
pub(super) fn client_is_gone(e: &Error) -> bool {
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

/// The cause behind one of Pingora's errors.
pub(super) fn classify(exchange: &Exchange, e: &Error) -> Rejection {
    if let Some(rejection) = exchange.rejection {
        return rejection;
    }
    if let Some(rejection) = exchange.overdue() {
        return rejection;
    }
    match (e.etype(), e.esource()) {
        (ErrorType::ReadTimedout, ErrorSource::Downstream) => Rejection::BodyTimeout,
        (_, ErrorSource::Downstream) => Rejection::BadRequest,
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
        (ErrorType::ReadTimedout, _) if exchange.is_answered() => Rejection::IdleTimeout,
        (ErrorType::ReadTimedout, _) => Rejection::FirstByteTimeout,
        (ErrorType::WriteTimedout, _) => Rejection::IdleTimeout,
        (_, ErrorSource::Upstream) => Rejection::BackendFailed,
        _ => Rejection::Internal,
    }
}
