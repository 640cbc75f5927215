//! The address that identifies a backend for Pingora.

use std::os::unix::net::SocketAddr as UnixAddress;

use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddress;

use crate::base::backend_address::BackendAddress;

/// The address that identifies a backend for Pingora. Pingora does not support abstract sockets, so their name is
/// a path here; `pool::peer` connects to them.
pub(in crate::discovery) fn identity(address: BackendAddress) -> PingoraAddress {
    match address {
        BackendAddress::Inet(address) => PingoraAddress::Inet(address),
        BackendAddress::Unix(path) => match UnixAddress::from_pathname(path.as_str()) {
            Ok(path) => PingoraAddress::Unix(path),
            // A checked path is short enough and has no NUL, so this does not happen.
            Err(_) => PingoraAddress::Inet(([0, 0, 0, 0], 0).into()),
        },
    }
}
