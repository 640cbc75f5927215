//! The framing of responses from the cache.

use super::cached;
use super::origin::Origin;
use super::wire::Client;
use crate::lab::free_port;
use std::io::Write;

/// A response may be complete in the store before its head is written to the client that caused the fetch.
#[test]
fn chunked_response_of_a_backend_has_one_framing_for_clients() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        )
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let mut client = Client::connect(port);
    for number in 0..100 {
        for _ in 0..2 {
            let response = client.ask("GET", &format!("/{number}"), &[]);
            assert_eq!((response.text().as_str(), response.is_complete), ("body", true));
            let framings = ["content-length", "transfer-encoding"].map(|name| response.values(name).len());
            assert_eq!(framings.iter().sum::<usize>(), 1, "{response:?}");
        }
    }
}
