//! Where a request comes from, as filters see it.

use std::net::IpAddr;

use crate::decision::Origin;
use crate::listener::connection::Connection;

/// Where a request on `connection` comes from.
pub(super) fn origin<'a>(
    connection: Option<&'a Connection>,
    (client, trusted): (IpAddr, bool),
    request_id: &'a str,
) -> Origin<'a> {
    let handshake = connection.and_then(|connection| connection.handshake.as_ref());
    Origin {
        client,
        peer: (connection.map_or(client, |connection| connection.peer.ip()), trusted),
        is_tls: handshake.is_some(),
        listener: connection.map_or("", |connection| &connection.policy.listener),
        request_id,
        server_name: handshake.and_then(|handshake| handshake.server_name.as_deref()),
        client_certificate: handshake.and_then(|handshake| handshake.client.as_ref()),
        is_example: false,
    }
}
