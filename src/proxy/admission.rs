//! Admission of a request: collects what [`crate::decision`] needs to know of the connection, and applies its
//! decision.

use std::borrow::Cow;

use http::header;
use pingora_http::RequestHeader;

use super::client_side::ClientSide;
use super::exchange::Exchange;
use super::origin::origin;
use crate::decision::{ConnectionFacts, RequestAffinity, announced_body, decide, host};
use crate::http::client_address::ClientKey;
use crate::http::rejection::DetailedRejection;
use crate::http::rejection::Rejection;
use crate::http::upgrade;
use crate::limit::Limiter;
use crate::observe::recent_requests::{Recorder, RequestKey};

impl Exchange {
    /// Decides and stores the route. Records the request if its rejection depends on the configuration.
    pub(super) fn admit(&mut self, side: &mut impl ClientSide, recorder: &Recorder) -> Result<(), Rejection> {
        let policy = self.connection.as_ref().map(|connection| &connection.policy);
        self.connection_facts = ConnectionFacts {
            misdirected: is_misdirected(side),
            https_required: policy.is_some_and(|policy| policy.redirect_to_https.is_some()),
        };
        let request = side.request_mut();
        self.upgrade = request.headers.contains_key(header::UPGRADE) && accept_upgrade(request);
        let (client, now, verdict) = (ClientKey::from(self.client), self.began(), &mut self.verdict);
        let count = |limiter: &Limiter| {
            let told = limiter.admit(client, now);
            *verdict = Some((told, limiter.spec().window));
            if told.admitted { Ok(()) } else { Err(Rejection::RateLimited { retry_after: told.retry_after }) }
        };
        let origin = origin(self.connection.as_deref(), (self.client, self.trusted), self.request_id.as_str());
        let decision = decide(&self.snapshot, request, (self.connection_facts, &origin), count);
        let depends = decision.depends_on_configuration();
        self.route = decision.route;
        self.filtered = decision.filtered;
        let Some(rejection) = decision.rejection else { return Ok(()) };
        if depends {
            self.note(side, recorder);
        }
        Err(self.explain_rejection(side, rejection))
    }

    /// The rejection; its detail is kept for the access log.
    pub(super) fn explain_rejection(&mut self, side: &impl ClientSide, rejection: DetailedRejection) -> Rejection {
        let request = side.request();
        self.detail = match rejection.rejection {
            Rejection::NoRoute => {
                let nearest = self.snapshot.routes.nearest(host(request), request.uri.path());
                if nearest.is_empty() { Cow::Borrowed("") } else { format!("nearest: {}", nearest.join(", ")).into() }
            }
            _ => Cow::Borrowed(rejection.detail),
        };
        rejection.rejection
    }

    /// Records the request, so that `l7lb plan` can replay it.
    pub(super) fn note(&self, side: &impl ClientSide, recorder: &Recorder) {
        let request = side.request();
        let key = RequestKey {
            at: self.began(),
            client: self.client,
            method: request.method.as_str(),
            host: host(request),
            path: request.uri.path(),
            content_length: announced_body(request),
            bound: match self.affinity {
                RequestAffinity::Cookie(cookie) => Some(cookie.pool),
                RequestAffinity::None | RequestAffinity::Hash(_) => None,
            },
            misdirected: self.connection_facts.misdirected,
            https_required: self.connection_facts.https_required,
        };
        recorder.note(&self.snapshot.recent_requests, &key, &request.headers);
    }
}

/// Reduces `Upgrade` to the protocol that is offered to the backend; otherwise it is ignored. Returns whether there is
/// one.
fn accept_upgrade(request: &mut RequestHeader) -> bool {
    let Some(protocol) = upgrade::requested(request.version, &request.headers) else {
        request.remove_header(&header::UPGRADE);
        return false;
    };
    // The name and the value are legal.
    request.insert_header(header::UPGRADE, protocol).is_ok()
}

/// Whether the host of the request does not belong to its TLS connection (RFC 9110 §7.4).
fn is_misdirected(side: &impl ClientSide) -> bool {
    matches!((side.handshake(), host(side.request())), (Some(handshake), Some(host)) if !handshake.may_serve(host))
}
