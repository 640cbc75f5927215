//! Listening sockets. They are bound before the server runs and before a daemon forks, so that a
//! port that is taken ends the process with a message where the operator looks.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// A socket that listens.
#[derive(Debug)]
pub struct Socket {
    /// The address as configured, by which a new process recognises the sockets of a listener.
    pub name: String,
    /// The socket, not blocking.
    pub listener: TcpListener,
}

impl Socket {
    /// Listens at `address` with `count` sockets, among which the kernel spreads connections
    /// (`SO_REUSEPORT`). Those of an old process that are in `inherited` come first, and none of
    /// them is left out: connections may be waiting there.
    ///
    /// # Errors
    /// Names the address and says why not.
    pub fn group(address: SocketAddr, count: usize, inherited: Vec<Self>) -> io::Result<Vec<Self>> {
        let mut group = inherited;
        while group.len() < count.max(1) {
            // The port that the kernel chose, where it was asked to.
            let at = group.first().map_or(Ok(address), |first| first.listener.local_addr());
            let listener = at.and_then(|at| listen(at, group.first())).map_err(|e| explain(address, &e))?;
            group.push(Self { name: address.to_string(), listener });
        }
        Ok(group)
    }

    /// A socket taken over from another process.
    ///
    /// # Errors
    /// When what was handed over is no socket.
    pub fn adopt(name: String, fd: OwnedFd) -> io::Result<Self> {
        let listener = TcpListener::from(fd);
        listener.set_nonblocking(true)?;
        listener.local_addr()?;
        Ok(Self { name, listener })
    }

    /// The socket as the current runtime accepts from it.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub(super) fn into_incoming(self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.listener)
    }
}

fn explain(address: SocketAddr, e: &io::Error) -> io::Error {
    let hint = match e.kind() {
        io::ErrorKind::AddrInUse => {
            ": another process listens there; stop it, or take its sockets over with `--upgrade`"
        }
        io::ErrorKind::PermissionDenied => ": ports below 1024 need root or CAP_NET_BIND_SERVICE",
        _ => "",
    };
    io::Error::new(e.kind(), format!("cannot listen at {address}: {e}{hint}"))
}

/// Binds and listens, beside `first` where there is one.
fn listen(address: SocketAddr, first: Option<&Socket>) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the process before to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 too, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // The first socket of a group is bound without sharing, so that a port which another process
    // has is found out, also if that process would share it; then it shares with the others.
    if let Some(first) = first {
        SockRef::from(&first.listener).set_reuse_port(true)?;
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn a_port_that_is_taken_is_named_though_its_owner_would_share_it() {
        let first = Socket::group(any(), 2, Vec::new()).unwrap();
        let taken = first[0].listener.local_addr().unwrap();
        let error = Socket::group(taken, 2, Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen at {taken}: ")), "{error}");
        assert!(error.contains("another process listens there"), "{error}");
    }

    #[test]
    fn a_group_has_one_port_and_is_filled_up_after_an_upgrade() {
        let group = Socket::group(any(), 3, Vec::new()).unwrap();
        let port = group[0].listener.local_addr().unwrap().port();
        assert!(group.iter().all(|socket| socket.listener.local_addr().unwrap().port() == port));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let filled = Socket::group(address, 5, group).unwrap();
        assert_eq!(filled.len(), 5);
        assert_eq!(Socket::group(address, 2, filled).unwrap().len(), 5, "none is left out");
    }

    #[test]
    fn connections_reach_every_socket_of_a_group() {
        let group = Socket::group(any(), 2, Vec::new()).unwrap();
        let address = group[0].listener.local_addr().unwrap();
        let clients: Vec<_> = (0..64).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let accepted: Vec<usize> =
            group.iter().map(|socket| std::iter::from_fn(|| socket.listener.accept().ok()).count()).collect();
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
        assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
    }
}
