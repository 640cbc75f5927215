//! Port numbers that neither another test nor the kernel hands out meanwhile.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// The ports given out: below the ephemeral range, so that no outgoing
/// connection takes one between its choice and its use.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// How far apart processes with neighbouring ids start: test runners start one
/// process per test, and few tests need more ports than this.
const STRIDE: u32 = 97;

static TAKEN: AtomicU32 = AtomicU32::new(0);
static CLAIMS: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());

/// A port that is free and stays this process's own: no other call gets it,
/// neither here nor in another test process that runs at the same time.
pub fn free_port() -> u16 {
    let offset = std::process::id().wrapping_mul(STRIDE) % COUNT;
    loop {
        let taken = TAKEN.fetch_add(1, Ordering::SeqCst);
        assert!(taken < COUNT, "no port from 20000 to 31999 is free");
        let port = u16::try_from(FIRST + (offset + taken) % COUNT).expect("below 32000");
        if claim(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A free port as an address on the loopback.
pub fn free_address() -> SocketAddr {
    loopback(free_port())
}

/// The address of a port on the loopback.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Claims the port among all test processes by binding a socket name in the
/// abstract namespace: the kernel frees it with the process, however it ends,
/// and no file stays behind.
fn claim(port: u16) -> bool {
    let name = format!("l7lb-test-port-{port}");
    let address = UnixAddress::from_abstract_name(name).expect("a short name");
    match UnixDatagram::bind_addr(&address) {
        Ok(socket) => {
            let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
            claims.push(socket);
            true
        }
        Err(_) => false,
    }
}
