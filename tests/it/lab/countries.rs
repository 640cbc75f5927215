//! Writes files in the MaxMind DB format with the countries of a few networks.
//!
//! The format: `https://maxmind.github.io/MaxMind-DB/`.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// The size of a record in bits.
const RECORD_BITS: u16 = 24;
/// The zero bytes between the tree and the data.
const SEPARATOR: usize = 16;

/// What follows a bit of an address.
#[derive(Clone, Copy)]
enum Record {
    Empty,
    Node(usize),
    /// Data at this offset.
    Data(usize),
}

/// A file with the countries of networks, such as `192.0.2.0/24` and `DE`. Networks do not overlap.
pub fn database(networks: &[(&str, &str)]) -> Vec<u8> {
    let (mut nodes, mut data) = (vec![[Record::Empty; 2]], Vec::new());
    let mut offsets = BTreeMap::new();
    for (network, code) in networks {
        let offset = *offsets.entry(*code).or_insert_with(|| {
            let offset = data.len();
            map(&mut data, 1);
            text(&mut data, "country");
            map(&mut data, 1);
            text(&mut data, "iso_code");
            text(&mut data, code);
            offset
        });
        insert(&mut nodes, network, offset);
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for record in nodes.iter().flatten() {
        let value = match *record {
            Record::Empty => count,
            Record::Node(node) => node,
            Record::Data(offset) => count + SEPARATOR + offset,
        };
        file.extend_from_slice(&u32::try_from(value).unwrap().to_be_bytes()[1..]);
    }
    file.extend_from_slice(&[0; SEPARATOR]);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    metadata(&mut file, count);
    file
}

/// Adds a network to the tree; IPv4 addresses are below `::/96`.
fn insert(nodes: &mut Vec<[Record; 2]>, network: &str, offset: usize) {
    let (address, length) = network.split_once('/').unwrap();
    let (bits, length): (u128, u32) = match address.parse().unwrap() {
        IpAddr::V4(v4) => (u32::from(v4).into(), length.parse::<u32>().unwrap() + 96),
        IpAddr::V6(v6) => (v6.into(), length.parse().unwrap()),
    };
    let mut node = 0;
    for depth in 0..length {
        let side = usize::from((bits >> (127 - depth)) & 1 == 1);
        if depth + 1 == length {
            nodes[node][side] = Record::Data(offset);
        } else if let Record::Node(next) = nodes[node][side] {
            node = next;
        } else {
            nodes.push([Record::Empty; 2]);
            nodes[node][side] = Record::Node(nodes.len() - 1);
            node = nodes.len() - 1;
        }
    }
}

fn metadata(file: &mut Vec<u8>, nodes: usize) {
    map(file, 9);
    for (key, value) in [
        ("binary_format_major_version", 2),
        ("binary_format_minor_version", 0),
        ("ip_version", 6),
        ("record_size", RECORD_BITS),
    ] {
        text(file, key);
        file.push(0xa2);
        file.extend_from_slice(&value.to_be_bytes());
    }
    text(file, "node_count");
    file.push(0xc4);
    file.extend_from_slice(&u32::try_from(nodes).unwrap().to_be_bytes());
    text(file, "build_epoch");
    file.extend_from_slice(&[0x04, 0x02, 0x65, 0, 0, 0]);
    text(file, "database_type");
    text(file, "Test-Country");
    text(file, "description");
    map(file, 1);
    text(file, "en");
    text(file, "for tests");
    text(file, "languages");
    file.extend_from_slice(&[0x00, 0x04]);
}

fn map(to: &mut Vec<u8>, entries: u8) {
    to.push(0xe0 | entries);
}

fn text(to: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 29, "a longer text has another form");
    to.push(0x40 | length);
    to.extend_from_slice(text.as_bytes());
}
