//! The harness of the integration tests: everything a test needs to run the
//! real `l7lb` between real clients and real backends on the loopback.
//!
//! - [`ports`]: port numbers that nobody else uses.
//! - [`lab`]: one `l7lb` process in a folder of its own.
//! - [`backend`]: one sample backend process.
//! - [`scripted`]: a backend in the test itself that says and records raw bytes.
//! - [`client`]: ready HTTP clients, and raw exchanges of bytes.
//! - [`load`]: a steady load that sees every failed request.
//! - [`certs`]: self-signed certificates.
//!
//! Underneath: [`process`] runs and captures programs, [`framing`] tells where
//! an HTTP/1 message ends, [`tls`] trusts any certificate, and [`load_http1`],
//! [`load_http2`] and [`goaway`] are the load's two protocols.
//!
//! Linux only. All traffic stays on the loopback, and whatever is started is
//! gone once its value is dropped, when a test panics too.

#![allow(
    dead_code,
    reason = "a harness offers more than the tests of one day use"
)]

pub mod backend;
pub mod certs;
pub mod client;
pub mod framing;
pub mod goaway;
pub mod lab;
pub mod load;
pub mod load_http1;
pub mod load_http2;
pub mod ports;
pub mod process;
pub mod scripted;
pub mod tls;

use std::thread;
use std::time::{Duration, Instant};

/// Waits until `condition` holds, for things that no event announces.
///
/// # Panics
///
/// When it does not hold within the time; the message says `what` was awaited.
pub fn eventually(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "not within {within:?}: {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}
