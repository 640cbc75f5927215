//! The bodies of the fuzz targets, run over seeded random bytes by every `cargo test`.

#![allow(missing_docs, unreachable_pub, reason = "tests are read by their names")]
#![allow(clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

#[path = "../fuzz/bodies/frame_meter.rs"]
mod frame_meter;
#[path = "../fuzz/bodies/proxy_protocol.rs"]
mod proxy_protocol;

/// Runs `body` over a beginning that leads deep, with random bytes behind it and a random byte changed.
fn run(body: fn(&[u8]), beginnings: &[&[u8]]) {
    let mut random = fastrand::Rng::with_seed(0x7a7a);
    for _ in 0..4000 {
        let mut bytes = beginnings[random.usize(..beginnings.len())].to_vec();
        let length = random.usize(..64);
        // Small numbers are likelier, since lengths and types are.
        bytes.extend((0..length).map(|_| random.u8(..) >> random.u32(..8)));
        if random.bool() && !bytes.is_empty() {
            let place = random.usize(..bytes.len());
            bytes[place] = random.u8(..);
        }
        body(&bytes);
    }
}

#[test]
fn proxy_protocol_bodies_hold() {
    run(
        proxy_protocol::proxy_protocol,
        &[
            b"",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n",
            b"PROXY UNKNOWN",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x28",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13abcdABCD\x01\x02\x03\x04\x03\0\x04",
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        ],
    );
}

#[test]
fn frame_meter_bodies_hold() {
    run(
        frame_meter::frame_meter,
        &[
            b"\x01PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x05PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x04\x08\0\0\0\0\0\0\0\0\x01\0\0\x08\x06\0\0\0\0\0",
            b"\x07PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x82",
        ],
    );
}
