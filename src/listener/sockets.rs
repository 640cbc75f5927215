//! Listening sockets. They are bound before the server runs and before a daemon forks, so that a
//! port that is taken ends the process with a message where the operator looks.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket as RawSocket, Type};

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// A socket that listens.
#[derive(Debug)]
pub struct Socket {
    /// The address as configured, by which a new process recognises the socket.
    pub name: String,
    /// The socket, not blocking.
    pub listener: TcpListener,
}

impl Socket {
    /// Binds `address` and listens.
    ///
    /// # Errors
    /// Names the address and says why not.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = listen(address).map_err(|e| {
            let hint = match e.kind() {
                io::ErrorKind::AddrInUse => {
                    ": another process listens there; stop it, or take its sockets over with `--upgrade`"
                }
                io::ErrorKind::PermissionDenied => ": ports below 1024 need root or CAP_NET_BIND_SERVICE",
                _ => "",
            };
            io::Error::new(e.kind(), format!("cannot listen at {address}: {e}{hint}"))
        })?;
        Ok(Self { name: address.to_string(), listener })
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
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the process before to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 too, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named() {
        let first = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = first.listener.local_addr().unwrap();
        let error = Socket::bind(taken).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen at {taken}: ")), "{error}");
        assert!(error.contains("another process listens there"), "{error}");
    }
}
