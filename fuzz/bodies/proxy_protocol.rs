//! What must hold for the PROXY protocol's reader, whatever the bytes.

use l7lb::http::client_address::canonical;
use l7lb::http::proxy_protocol::{HEADER_MAX, Header, encode_v2, parse};

/// Reads `bytes` as they would arrive one by one: undecided up to some byte, then the same answer for ever.
pub fn proxy_protocol(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(2 * HEADER_MAX)];
    let mut decided = None;
    for end in 0..=bytes.len() {
        let read = parse(&bytes[..end]);
        match decided {
            None if read == Ok(None) => assert!(end < HEADER_MAX, "undecided at the longest header"),
            None => decided = Some(read),
            Some(before) => assert_eq!(read, before, "later bytes change nothing"),
        }
        if let Ok(Some((header, length))) = read {
            assert!(length <= end && length <= HEADER_MAX);
            there_and_back(header);
        }
    }
}

/// What was read is written and read again.
fn there_and_back(header: Header) {
    let (Some(source), Some(destination)) = (header.source, header.destination) else {
        assert_eq!(header, Header::default(), "both ends or none");
        return;
    };
    let written = encode_v2(source, destination);
    let Ok(Some((again, length))) = parse(&written) else { panic!("what we write can be read") };
    assert_eq!(length, written.len());
    let ends = [(again.source, source), (again.destination, destination)];
    for (read, said) in ends {
        assert_eq!(read.map(|end| (canonical(end.ip()), end.port())), Some((canonical(said.ip()), said.port())));
    }
}
