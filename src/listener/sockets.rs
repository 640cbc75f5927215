//! Listening sockets. They are bound before the server runs and before a daemon forks, so that a port in use
//! ends the process with a visible message.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::{GetSocketDigest, SocketDigest};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};

use crate::listener::address::ListenAddress;

/// The accept queue length; the kernel limits it to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// A listening socket.
#[derive(Debug)]
pub struct Socket {
    /// The configured address, by which a new process identifies the sockets of a listener.
    pub name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Inet(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    /// Listens at `address` with `count` sockets, over which the kernel distributes connections
    /// (`SO_REUSEPORT`); a Unix-domain socket is shared by all workers. The sockets in `inherited` come first,
    /// and all of them are kept: connections may be waiting there.
    ///
    /// # Errors
    /// A message with the address and the reason.
    pub fn group(address: &ListenAddress, count: usize, inherited: Vec<Self>) -> io::Result<Vec<Self>> {
        let mut group = inherited;
        while group.len() < count.max(1) {
            let kind = match address {
                ListenAddress::Inet(at) => listen(*at, group.first()).map(Kind::Inet),
                ListenAddress::Unix(path) => listen_unix(path, group.first()).map(Kind::Unix),
            };
            group.push(Self { name: address.to_string(), kind: kind.map_err(|e| bind_error(address, &e))? });
        }
        Ok(group)
    }

    /// A socket received from another process.
    ///
    /// # Errors
    /// If the descriptor is not a socket.
    pub fn from_descriptor(name: String, fd: OwnedFd) -> io::Result<Self> {
        let kind = match SockRef::from(&fd).local_addr()?.as_socket() {
            Some(_) => Kind::Inet(fd.into()),
            None => Kind::Unix(fd.into()),
        };
        let socket = Self { name, kind };
        SockRef::from(&socket).set_nonblocking(true)?;
        Ok(socket)
    }

    /// The socket with another name.
    #[must_use]
    pub fn named(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// Its address; with the port that the kernel chose for port 0.
    #[must_use]
    pub fn address(&self) -> String {
        self.inet().map_or_else(|| self.name.clone(), |address| address.to_string())
    }

    fn inet(&self) -> Option<SocketAddr> {
        SockRef::from(self).local_addr().ok()?.as_socket()
    }

    /// The socket as an acceptor of the current runtime.
    ///
    /// # Errors
    /// If the runtime cannot register it.
    pub fn into_async(self) -> io::Result<AsyncListener> {
        Ok(match self.kind {
            Kind::Inet(listener) => AsyncListener::Inet(tokio::net::TcpListener::from_std(listener)?),
            Kind::Unix(listener) => AsyncListener::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Inet(listener) => listener.as_fd(),
            Kind::Unix(listener) => listener.as_fd(),
        }
    }
}

/// An acceptor of connections.
pub enum AsyncListener {
    /// TCP.
    Inet(tokio::net::TcpListener),
    /// A Unix-domain socket.
    Unix(tokio::net::UnixListener),
}

impl AsyncListener {
    /// The next connection and its peer; no peer for a Unix-domain socket.
    ///
    /// # Errors
    /// If none can be accepted.
    pub async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Inet(listener) => {
                let (tcp, peer) = listener.accept().await?;
                tcp.set_nodelay(true)?;
                let digest = SocketDigest::from_raw_fd(tcp.as_raw_fd());
                // A new cell is empty, so this sets it.
                digest.peer_addr.set(Some(peer.into())).ok();
                let mut stream: Stream = tcp.into();
                stream.set_socket_digest(digest);
                Ok((stream, Some(peer)))
            }
            Self::Unix(listener) => {
                let (unix, _) = listener.accept().await?;
                let digest = SocketDigest::from_raw_fd(unix.as_raw_fd());
                let mut stream: Stream = unix.into();
                stream.set_socket_digest(digest);
                Ok((stream, None))
            }
        }
    }
}

fn bind_error(address: &ListenAddress, e: &io::Error) -> io::Error {
    let hint = match e.kind() {
        io::ErrorKind::AddrInUse => {
            ": another process listens there; stop it, or take its sockets over with `--upgrade`"
        }
        io::ErrorKind::PermissionDenied => ": ports below 1024 need root or CAP_NET_BIND_SERVICE",
        _ => "",
    };
    io::Error::new(e.kind(), format!("cannot listen at {address}: {e}{hint}"))
}

/// Listens at a path. A socket left by a dead process is removed; one that is in use is not. All workers share
/// the first socket.
fn listen_unix(path: &Path, first: Option<&Socket>) -> io::Result<UnixListener> {
    if let Some(Socket { kind: Kind::Unix(first), .. }) = first {
        return first.try_clone();
    }
    match UnixStream::connect(path) {
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        // There is no file, or one that makes bind fail.
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Binds and listens, next to `first` if there is one.
fn listen(address: SocketAddr, first: Option<&Socket>) -> io::Result<TcpListener> {
    // The port that the kernel chose for the first socket.
    let address = first.and_then(Socket::inet).unwrap_or(address);
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait until connections of the old process time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` accepts IPv4 too, independent of the system default.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // The first socket of a group is bound without sharing, so that a port in use is detected even if the other
    // process shares it. Then it is shared with the others.
    if let Some(first) = first {
        SockRef::from(first).set_reuse_port(true)?;
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

    fn any() -> ListenAddress {
        "127.0.0.1:0".parse().unwrap()
    }

    fn port(socket: &Socket) -> u16 {
        socket.inet().unwrap().port()
    }

    #[test]
    fn port_in_use_is_reported_even_if_its_owner_shares_it() {
        let first = Socket::group(&any(), 2, Vec::new()).unwrap();
        let taken = first[0].address();
        let error = Socket::group(&taken.parse().unwrap(), 2, Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen at {taken}: ")), "{error}");
        assert!(error.contains("another process listens there"), "{error}");
    }

    #[test]
    fn group_of_sockets_shares_a_port_and_is_completed_after_an_upgrade() {
        let group = Socket::group(&any(), 3, Vec::new()).unwrap();
        let address = group[0].address().parse().unwrap();
        assert!(group.iter().all(|socket| port(socket) == port(&group[0])));
        let filled = Socket::group(&address, 5, group).unwrap();
        assert_eq!(filled.len(), 5);
        assert_eq!(Socket::group(&address, 2, filled).unwrap().len(), 5, "all are kept");
    }

    #[test]
    fn connections_are_distributed_over_all_sockets_of_a_group() {
        let group = Socket::group(&any(), 2, Vec::new()).unwrap();
        let clients: Vec<_> =
            (0..64).map(|_| std::net::TcpStream::connect(group[0].inet().unwrap()).unwrap()).collect();
        let accept = |socket: &Socket| match &socket.kind {
            Kind::Inet(listener) => std::iter::from_fn(|| listener.accept().ok()).count(),
            Kind::Unix(_) => 0,
        };
        let accepted: Vec<usize> = group.iter().map(accept).collect();
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
        assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
    }

    #[test]
    fn unix_socket_is_replaced_only_if_its_process_is_dead() {
        let folder = tempfile::tempdir().unwrap();
        let address: ListenAddress = format!("unix:{}/l7lb.sock", folder.path().display()).parse().unwrap();
        let group = Socket::group(&address, 3, Vec::new()).unwrap();
        assert_eq!(group.len(), 3);
        let error = Socket::group(&address, 1, Vec::new()).unwrap_err().to_string();
        assert!(error.contains("another process listens there"), "{error}");
        drop(group);
        assert_eq!(Socket::group(&address, 1, Vec::new()).unwrap()[0].address(), address.to_string());
    }
}
