//! The filters of a request, as part of the decision about it.

use std::net::IpAddr;
use std::sync::Arc;

use http::header;
use pingora_http::RequestHeader;

use super::snapshot::{Route, Snapshot};
use super::{form, host};
use crate::filter::chain::{Chains, Item, Progress};
use crate::filter::{Changes, Facts, Level, LocalResponse, Pending, Resolution, Step};
use crate::http::connection_fields::named_by_connection;
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::tls::ClientIdentity;

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The client's address: the peer, or the client named by a trusted proxy.
    pub client: IpAddr,
    /// The peer, and whether it is a trusted proxy.
    pub peer: (IpAddr, bool),
    /// Whether the connection uses TLS.
    pub is_tls: bool,
    /// The first address of the listener as configured.
    pub listener: &'a str,
    /// The request id.
    pub request_id: &'a str,
    /// The server name of the TLS connection.
    pub server_name: Option<&'a str>,
    /// The verified client certificate.
    pub client_certificate: Option<&'a ClientIdentity>,
    /// Whether the request is only an example or a recorded one: nothing is counted.
    pub is_example: bool,
}

/// What the filters have decided so far.
#[derive(Default)]
pub struct Filtered {
    /// The changes to the request for backends.
    pub changes: Changes,
    /// The response of a filter.
    pub response: Option<Box<LocalResponse>>,
    /// What the request waits for, and the position of the next filter.
    pub pending: Option<(Box<dyn Pending>, usize)>,
}

impl Filtered {
    /// The part that a request by l7lb on behalf of this one needs.
    #[must_use]
    pub fn for_fetch(&self) -> Box<Self> {
        Box::new(Self { changes: self.changes.clone(), ..Self::default() })
    }
}

/// Sees each filter of a request with its step and the changes so far.
pub type Observer<'a> = dyn FnMut(Level, &Item, &Step, &Changes) + 'a;

impl<'a> Origin<'a> {
    /// The facts about a request for its filters. `host` is the one that the client requested.
    #[must_use]
    pub fn facts(
        &self,
        snapshot: &Snapshot,
        request: &'a RequestHeader,
        host: &'a str,
        route: Option<&'a Arc<Route>>,
    ) -> Facts<'a> {
        let own = if self.is_tls { "https" } else { "http" };
        let new = form::new_scheme(&snapshot.trusted_proxies, self.peer, &request.headers, own);
        let given = request.headers.get(form::X_FORWARDED_PROTO).and_then(|scheme| scheme.to_str().ok());
        let given = given.map_or(own, |given| if given.eq_ignore_ascii_case("https") { "https" } else { "http" });
        Facts {
            client: self.client,
            request_id: self.request_id,
            scheme: new.unwrap_or(given),
            host,
            route: route.map_or("", |route| route.name.as_str()),
            server_name: self.server_name,
            client_certificate: self.client_certificate,
            is_from_trusted_proxy: self.peer.1,
            is_example: self.is_example,
        }
    }
}

/// Runs the request halves of the filters. `None` if there are none. What they have decided before a rejection is part of its
/// response.
pub(super) fn run(
    snapshot: &Snapshot,
    request: &RequestHeader,
    origin: &Origin<'_>,
    route: Option<&Arc<Route>>,
    observe: &mut Observer<'_>,
) -> (Option<Box<Filtered>>, Result<(), DetailedRejection>) {
    let Some(chains) = snapshot.chains(origin.listener, route) else { return (None, Ok(())) };
    let mut filtered = Box::<Filtered>::default();
    let facts = origin.facts(snapshot, request, host(request).unwrap_or_default(), route);
    let result = advance(&mut filtered, (chains, request, &facts), 0, observe);
    (Some(filtered), result)
}

/// Continues after a wait.
///
/// # Errors
/// The rejection by a filter.
pub fn resume(
    filtered: &mut Filtered,
    snapshot: &Snapshot,
    (request, origin, route): (&RequestHeader, &Origin<'_>, Option<&Arc<Route>>),
    (resolution, next): (Resolution, usize),
) -> Result<(), DetailedRejection> {
    filtered.changes.fields.extend(resolution.fields);
    let from = match resolution.step {
        Step::Continue => next,
        Step::Repeat => next.saturating_sub(1),
        step => return end(filtered, step, next),
    };
    // A filter has waited, so there are some.
    let Some(chains) = snapshot.chains(origin.listener, route) else { return Ok(()) };
    let facts = origin.facts(snapshot, request, host(request).unwrap_or_default(), route);
    advance(filtered, (chains, request, &facts), from, &mut |_, _, _, _| {})
}

fn advance(
    filtered: &mut Filtered,
    (chains, request, facts): (Chains<'_>, &RequestHeader, &Facts<'_>),
    from: usize,
    observe: &mut Observer<'_>,
) -> Result<(), DetailedRejection> {
    match chains.run(from, (request, facts), &mut filtered.changes, observe) {
        Progress::Complete => check_connection(request, &filtered.changes),
        Progress::Ended(step) => end(filtered, step, 0),
        Progress::Waiting(pending, next) => {
            filtered.pending = Some((pending, next));
            Ok(())
        }
    }
}

/// Rejects a request whose `Connection` names a field that filters have set: the field would be removed as one of the
/// connection, so that a backend would not see, for example, which user a filter has found.
fn check_connection(request: &RequestHeader, changes: &Changes) -> Result<(), DetailedRejection> {
    if changes.fields.is_empty() || !request.headers.contains_key(header::CONNECTION) {
        return Ok(());
    }
    let named = named_by_connection(&request.headers);
    if changes.fields.iter().any(|change| named.contains(change.name())) {
        return Err(DetailedRejection::bad_request("Connection names a header that filters change"));
    }
    Ok(())
}

fn end(filtered: &mut Filtered, step: Step, next: usize) -> Result<(), DetailedRejection> {
    match step {
        Step::Continue => {}
        Step::Repeat => {
            // Only the result of a wait has this step, and `resume` has handled it.
            return Err(DetailedRejection {
                rejection: Rejection::Internal,
                detail: "a filter repeats without a wait",
            });
        }
        Step::Respond(response) => filtered.response = Some(response),
        Step::Wait(pending) => filtered.pending = Some((pending, next)),
        Step::Reject(rejection) => return Err(rejection),
    }
    Ok(())
}
