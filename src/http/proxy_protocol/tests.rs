//! Headers of the specification, malformed ones, truncated ones, and random round trips.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::v2::crc32c;
use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn between(source: &str, destination: &str) -> Header {
    Header::between(at(source), at(destination))
}

/// A version 2 header from its command, family and the bytes after its length.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = v2::SIGNATURE.to_vec();
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
    header.extend_from_slice(rest);
    header
}

const FOUR: &[u8] = &[192, 168, 0, 1, 192, 168, 0, 11, 0xdb, 0xa4, 0x01, 0xbb];

fn with(attributes: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[FOUR, attributes].concat())
}

/// `with`, and a checksum after the attributes.
fn with_checksum(attributes: &[u8]) -> Vec<u8> {
    let mut header = with(&[attributes, &[3, 0, 4, 0, 0, 0, 0]].concat());
    let sum = crc32c(&header);
    let at = header.len() - 4;
    header[at..].copy_from_slice(&sum.to_be_bytes());
    header
}

#[test]
fn lines_of_the_specification_are_parsed() {
    let cases: &[(&[u8], Header)] = &[
        (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", between("192.168.0.1:56324", "192.168.0.11:443")),
        (
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            between("255.255.255.255:65535", "255.255.255.255:65535"),
        ),
        (
            b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            between("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
        ),
        (b"PROXY TCP6 2001:DB8::1 ::1 0 8443\r\n", between("[2001:db8::1]:0", "[::1]:8443")),
        (b"PROXY UNKNOWN\r\n", Header::default()),
        (
            b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            Header::default(),
        ),
        (b"PROXY UNKNOWN  what ever\r\n", Header::default()),
    ];
    for (bytes, header) in cases {
        assert_eq!(parse(bytes), Ok(Some((*header, bytes.len()))), "{}", bytes.escape_ascii());
    }
    assert_eq!(cases[5].0.len(), 107, "the longest line there can be");
}

#[test]
fn invalid_lines_are_malformed() {
    let cases: &[(&[u8], &str)] = &[
        (b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", "no PROXY protocol signature"),
        (b"GET / HTTP/1.1\r\n", "no PROXY protocol signature"),
        (b"\x16\x03\x01", "no PROXY protocol signature"),
        (b"PROXY\r\n", "no PROXY protocol signature"),
        (b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n", "not two addresses and two ports, one space before each"),
        (b"PROXY TCP4\t1.1.1.1 2.2.2.2 1 2\r\n", "a line that does not end in CR LF"),
        (b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n", "not two addresses and two ports, one space before each"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", "not two addresses and two ports, one space before each"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", "not two addresses and two ports, one space before each"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", "not two addresses and two ports, one space before each"),
        (b"PROXY TCP4\r\n", "not two addresses and two ports, one space before each"),
        (b"PROXY \r\n", "not two addresses and two ports, one space before each"),
        (b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", "neither TCP4, TCP6 nor UNKNOWN"),
        (b"PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n", "neither TCP4, TCP6 nor UNKNOWN"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", "a line that does not end in CR LF"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rx", "a line that does not end in CR LF"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\0\r\n", "a line that does not end in CR LF"),
        (b"PROXY UNKNOWN \xff\r\n", "a line that does not end in CR LF"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", "not a port"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n", "not a port"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", "not a port"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 -2\r\n", "not a port"),
        (b"PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n", "not an IPv4 address"),
        (b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n", "not an IPv4 address"),
        (b"PROXY TCP4 ::1 2.2.2.2 1 2\r\n", "not an IPv4 address"),
        (b"PROXY TCP6 1.1.1.1 ::1 1 2\r\n", "not an IPv6 address"),
        (b"PROXY TCP6 [::1] ::1 1 2\r\n", "not an IPv6 address"),
        (b"PROXY TCP6 fe80::1%1 ::1 1 2\r\n", "not an IPv6 address"),
    ];
    for (bytes, reason) in cases {
        assert_eq!(parse(bytes), Err(Malformed(reason)), "{}", bytes.escape_ascii());
    }
}

#[test]
fn line_longer_than_107_bytes_is_malformed() {
    let line = |words: usize| [b"PROXY UNKNOWN ".as_slice(), &vec![b'x'; words], b"\r\n"].concat();
    assert_eq!(parse(&line(91)), Ok(Some((Header::default(), 107))));
    assert_eq!(parse(&line(92)), Err(Malformed("a line of more than 107 bytes")), "CR at the edge");
    assert_eq!(parse(&line(93)), Err(Malformed("a line of more than 107 bytes")));
    assert_eq!(parse(&line(93)[..106]), Ok(None));
    assert_eq!(parse(&line(93)[..107]), Err(Malformed("a line of more than 107 bytes")), "no need to wait for more");
}

#[test]
fn blocks_of_the_specification_are_parsed() {
    let six =
        [&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets()[..], &Ipv6Addr::LOCALHOST.octets(), &[0x12, 0x34, 0, 80]]
            .concat();
    let unix = [0; 216];
    let cases = [
        (v2(0x21, 0x11, FOUR), between("192.168.0.1:56228", "192.168.0.11:443")),
        (v2(0x21, 0x12, FOUR), between("192.168.0.1:56228", "192.168.0.11:443")),
        (v2(0x21, 0x21, &six), between("[2001:db8::1]:4660", "[::1]:80")),
        (v2(0x21, 0x22, &six), between("[2001:db8::1]:4660", "[::1]:80")),
        (v2(0x21, 0x31, &unix), Header::default()),
        (v2(0x21, 0x00, b""), Header::default()),
        (v2(0x21, 0x00, b"anything"), Header::default()),
        (v2(0x20, 0x00, b""), Header::default()),
        (v2(0x20, 0x11, FOUR), Header::default()),
        (v2(0x20, 0xff, b"x"), Header::default()),
        // An authority (0x02), a no-op (0x04) and a custom attribute (0xe0).
        (with(b"\x02\0\x04a.de\x04\0\0\xe0\0\x01x"), between("192.168.0.1:56228", "192.168.0.11:443")),
        (with_checksum(b""), between("192.168.0.1:56228", "192.168.0.11:443")),
        (with_checksum(b"\x02\0\x04a.de"), between("192.168.0.1:56228", "192.168.0.11:443")),
    ];
    for (bytes, header) in &cases {
        assert_eq!(parse(bytes), Ok(Some((*header, bytes.len()))), "{}", bytes.escape_ascii());
    }
}

#[test]
fn invalid_blocks_are_malformed() {
    let command = "an unknown version or command";
    let cut = "a truncated attribute";
    let mut wrong = with_checksum(b"\x04\0\x01x");
    wrong[16] ^= 1;
    let cases = [
        (v2(0x11, 0x11, FOUR), command),
        (v2(0x31, 0x11, FOUR), command),
        (v2(0x22, 0x11, FOUR), command),
        (v2(0x21, 0x10, FOUR), "an unknown address family"),
        (v2(0x21, 0x13, FOUR), "an unknown address family"),
        (v2(0x21, 0x41, FOUR), "an unknown address family"),
        (v2(0x21, 0x11, &FOUR[..11]), "shorter than its addresses"),
        (v2(0x21, 0x21, &[0; 35]), "shorter than its addresses"),
        (v2(0x21, 0x31, &[0; 215]), "shorter than its addresses"),
        (with(b"\x04"), cut),
        (with(b"\x04\0"), cut),
        (with(b"\x04\0\x01"), cut),
        (with(b"\x04\xff\xff"), cut),
        (with(b"\x03\0\x03abc"), "a checksum that is not 4 bytes long"),
        (with(b"\x03\0\x04\0\0\0\0"), "a checksum mismatch"),
        (with(&[3, 0, 4, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 0]), "a checksum mismatch"),
        (v2(0x21, 0x11, &[0; 4081]), "a header of more than 4,096 bytes"),
        (wrong, "a checksum mismatch"),
    ];
    for (bytes, reason) in &cases {
        assert_eq!(parse(bytes), Err(Malformed(reason)), "{}", bytes.escape_ascii());
    }
}

#[test]
fn invalid_block_is_rejected_at_its_first_wrong_byte() {
    assert!(parse(b"\r\n\r\n\0\r\nQUIT\n\x31").is_err(), "version and command");
    assert!(parse(b"\r\n\r\n\0\r\nQUIT\n\x21\x41").is_err(), "family");
    assert!(parse(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff").is_err(), "length: no need to wait for 64 KiB");
    assert!(parse(b"\r\n\r\n\0\r\nQUIX").is_err(), "signature");
}

#[test]
fn incomplete_header_needs_more_bytes_and_following_bytes_are_kept() {
    let whole = [
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        v2(0x21, 0x11, FOUR),
        v2(0x21, 0x21, &[7; 36]),
        v2(0x20, 0, b"ignored"),
        with_checksum(b"\x02\0\x04a.de"),
        encode_local().to_vec(),
    ];
    for header in whole {
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]), Ok(None), "{} of {}", end, header.escape_ascii());
        }
        let followed = [header.as_slice(), b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&followed).unwrap().unwrap().1, header.len());
    }
}

#[test]
fn checksum_is_crc32c() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa, "RFC 3720, appendix B.4");
    assert_eq!(crc32c(b""), 0);
}

#[test]
fn encoded_header_is_parsed_again() {
    assert_eq!(parse(&encode_local()), Ok(Some((Header::default(), 16))));
    let cases = [
        ("192.0.2.1:1", "198.51.100.7:443", 28, "192.0.2.1:1", "198.51.100.7:443"),
        ("[2001:db8::1]:1", "[::1]:443", 52, "[2001:db8::1]:1", "[::1]:443"),
        ("192.0.2.1:1", "[::1]:443", 52, "[::ffff:192.0.2.1]:1", "[::1]:443"),
        ("[2001:db8::1]:1", "192.0.2.1:443", 52, "[2001:db8::1]:1", "[::ffff:192.0.2.1]:443"),
        ("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2", 28, "192.0.2.1:1", "192.0.2.2:2"),
    ];
    for (source, destination, length, read_source, read_destination) in cases {
        let bytes = encode_v2(at(source), at(destination));
        assert_eq!(parse(&bytes), Ok(Some((between(read_source, read_destination), length))));
    }
}

#[test]
fn random_headers_survive_a_round_trip() {
    let mut random = fastrand::Rng::with_seed(0x1715);
    let mut address = || {
        let port = random.u16(..);
        let ip = if random.bool() {
            random.u32(..).to_be_bytes().into()
        } else {
            IpAddr::from(random.u128(..).to_be_bytes())
        };
        SocketAddr::new(ip, port)
    };
    for _ in 0..2000 {
        let (source, destination) = (address(), address());
        let (header, length) = parse(&encode_v2(source, destination)).unwrap().unwrap();
        assert_eq!(length, if source.is_ipv4() && destination.is_ipv4() { 28 } else { 52 });
        let back = [header.source.unwrap(), header.destination.unwrap()];
        for (read, written) in back.into_iter().zip([source, destination]) {
            assert_eq!(
                crate::http::client_address::canonical(read.ip()),
                crate::http::client_address::canonical(written.ip())
            );
            assert_eq!(read.port(), written.port());
        }
    }
}

#[test]
fn random_bytes_do_not_panic_or_read_beyond_the_end() {
    let mut random = fastrand::Rng::with_seed(0x2020);
    for _ in 0..20_000 {
        let mut bytes = if random.bool() { v2::SIGNATURE.to_vec() } else { v1::SIGNATURE.to_vec() };
        bytes.extend_from_slice(if random.bool() { &[0x21, 0x11, 0] } else { b"TCP" });
        bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(64));
        if let Ok(Some((_, length))) = parse(&bytes) {
            assert!(length <= bytes.len());
        }
    }
}
