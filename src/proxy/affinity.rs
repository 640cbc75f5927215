//! Session affinity: the pool and backend of a client, and the affinity cookie.

use std::time::UNIX_EPOCH;

use http::header::SET_COOKIE;
use pingora_http::ResponseHeader;

use super::client_side::ClientSide;
use super::exchange::Exchange;
use crate::base::backend_address::BackendAddress;
use crate::decision::RequestAffinity;
use crate::decision::form;
use crate::decision::request_affinity::age;
use crate::pool::{AffinityPick, Lease};
use crate::routing::affinity::cookie::AffinityCookie;
use crate::routing::affinity::{AffinityMethod, CookieSpec, Scope, Secure};

/// The detail in the access log for a client that was moved.
pub(super) const AFFINITY_LOST: &str = "the affinity backend is not available";

impl Exchange {
    /// Reads the affinity of the client, and chooses the pool.
    pub(super) fn bind(&mut self, client: &impl ClientSide) {
        let Some(route) = &self.route else { return };
        let headers = &client.request().headers;
        self.affinity = RequestAffinity::of(route, headers, self.client, self.seconds());
        let by_chance = || match route.targets.is_single() {
            true => 0,
            false => route.targets.of(fastrand::u64(..)).map_or(0, |(index, _)| index),
        };
        self.target_index = self.affinity.share(route).unwrap_or_else(by_chance);
    }

    /// Picks the backend of the client's affinity, if it has one, or the next best backend if that one failed.
    /// `moved` is set if it is not the preferred one.
    pub(super) fn pick_by_affinity(&self, moved: &mut bool) -> Option<Lease> {
        let route = self.route.as_ref()?;
        let backend = route.sticky.as_ref().is_some_and(|sticky| sticky.scope == Scope::Backend);
        let pool = &self.target()?.pool;
        if !backend || self.affinity == RequestAffinity::None {
            return None;
        }
        let preferred = pool.pick_by_affinity(&self.attempted, |address| self.affinity.score(address));
        *moved = !matches!(preferred, Some(AffinityPick { is_first_choice: true, .. }));
        preferred.map(|preferred| preferred.lease)
    }

    /// Sets the affinity cookie for the backend that responded, unless the client's cookie is already right. A
    /// failed backend gets no cookie.
    pub(super) fn give_cookie(&self, client: &impl ClientSide, response: &mut ResponseHeader) -> pingora::Result<()> {
        let Some(sticky) = self.route.as_ref().and_then(|route| route.sticky.as_ref()) else { return Ok(()) };
        let (AffinityMethod::Cookie(cookie), Some(target), Some(endpoint)) =
            (&sticky.method, self.target(), self.attempted.last())
        else {
            return Ok(());
        };
        if response.status.is_server_error() || self.holds(cookie, sticky.scope, target.id, endpoint.address()) {
            return Ok(());
        }
        let value = AffinityCookie { pool: target.id, backend: endpoint.address(), issued_at: self.seconds() };
        let Some(value) = cookie.keys.seal(&value) else { return Ok(()) };
        let secure = match cookie.secure {
            Secure::Always => true,
            Secure::Never => false,
            Secure::Auto => self.came_by_tls(client),
        };
        let secure = if secure { "; Secure" } else { "" };
        response.append_header(SET_COOKIE, format!("{}={value}{}{secure}", cookie.name, cookie.attributes))?;
        Ok(())
    }

    /// Whether the client's cookie is already right and valid long enough.
    fn holds(&self, cookie: &CookieSpec, scope: Scope, pool: u64, backend: BackendAddress) -> bool {
        matches!(self.affinity, RequestAffinity::Cookie(value)
            if value.pool == pool
                && (scope == Scope::Pool || value.backend == backend)
                && age(&value, self.seconds()) <= cookie.lifetime / 2)
    }

    fn seconds(&self) -> u64 {
        self.time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// Whether the client uses TLS, to l7lb or to a trusted proxy in front of it.
    fn came_by_tls(&self, client: &impl ClientSide) -> bool {
        let said = || client.request().headers.get(form::X_FORWARDED_PROTO);
        let by_proxy = || self.trusted && said().is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"));
        self.connection.as_ref().is_some_and(|connection| connection.is_tls()) || by_proxy()
    }
}
