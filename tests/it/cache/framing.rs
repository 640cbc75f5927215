//! The framing of responses from the cache.

use super::cached;
use super::origin::Origin;
use super::wire::{Client, get, head};
use crate::lab::free_port;
use std::io::{Read, Write};

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

/// Trailers are part of the response that the backend sent for this client. They are not stored.
#[test]
fn client_that_causes_the_fetch_gets_trailers_and_later_ones_get_none() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 9\r\n\r\n",
        )
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    for number in 0..20 {
        let target = format!("/{number}");
        let ends = [(); 2].map(|()| {
            let mut client = Client::connect(port);
            client.send(&head("GET", &target, &[("TE", "trailers"), ("Connection", "TE, close")]));
            let mut text = String::new();
            client.reader.read_to_string(&mut text).unwrap();
            text.rsplit_once("body").unwrap().1.to_owned()
        });
        assert_eq!(ends, ["\r\n0\r\nx-sum: 9\r\n\r\n", ""]);
        let response = get(port, &target, &[]);
        assert!(response.is_hit() && response.is_complete, "{response:?}");
    }
}
