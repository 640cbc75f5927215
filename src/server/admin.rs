//! The admin API and the metrics at TCP addresses: their sockets, TLS and services.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use pingora_core::server::Server;
use pingora_core::services::background::background_service;

use crate::config::admin::Spec;
use crate::control::api::Api;
use crate::control::api::admin::{AdminListener, AdminService};
use crate::control::api::scrape::ScrapeService;
use crate::listener::Socket;
use crate::listener::address::ListenAddress;
use crate::tls::Terminator;

/// TLS of the admin API.
///
/// # Errors
/// A message, if the cryptography provider rejects the settings.
pub(super) fn terminator(admin: Option<&Spec>) -> Result<Option<Arc<Terminator>>, String> {
    let Some(Spec { listen, tls: Some(settings), .. }) = admin else { return Ok(None) };
    let addresses: Vec<String> = listen.iter().map(ToString::to_string).collect();
    Terminator::new(format!("admin {}", addresses.join(", ")), settings).map(|terminator| Some(Arc::new(terminator)))
}

/// The sockets at `addresses`: those that were inherited, otherwise new ones. Their names begin with `purpose` and differ
/// from those of listeners, so that a new process takes each for its purpose.
///
/// # Errors
/// A message with the address and the reason.
pub(super) fn sockets(
    purpose: &str,
    addresses: &[SocketAddr],
    inherited: &mut BTreeMap<String, Vec<Socket>>,
) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::with_capacity(addresses.len());
    for address in addresses {
        let name = format!("{purpose} {address}");
        let group = Socket::group(&ListenAddress::Inet(*address), 1, inherited.remove(&name).unwrap_or_default())?;
        sockets.extend(group.into_iter().map(|socket| socket.named(name.clone())));
    }
    Ok(sockets)
}

/// Adds the admin API on its own thread, if it has sockets.
pub(super) fn add(server: &mut Server, listener: AdminListener, api: &Api) {
    if listener.sockets.is_empty() {
        return;
    }
    let addresses: Vec<String> = listener.sockets.iter().map(Socket::address).collect();
    let scheme = if listener.terminator.is_some() { "https" } else { "http" };
    log::info!("admin API: {scheme}://{}", addresses.join(" "));
    let mut service = background_service("admin", AdminService::new(listener, api.clone()));
    service.threads = Some(1);
    server.add_service(service);
}

/// Adds the metrics on their own thread, if they have sockets.
pub(super) fn add_metrics(server: &mut Server, sockets: Vec<Socket>, api: Api) {
    if sockets.is_empty() {
        return;
    }
    let addresses: Vec<String> = sockets.iter().map(|socket| format!("http://{}/metrics", socket.address())).collect();
    log::info!("metrics: {}", addresses.join(" "));
    let mut service = background_service("scrapes", ScrapeService::new(sockets, api));
    service.threads = Some(1);
    server.add_service(service);
}
