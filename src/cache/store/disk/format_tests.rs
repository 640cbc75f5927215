//! Tests of the file format.

use super::super::super::shared_tests as testing;
use super::*;
use pingora_http::ResponseHeader;

fn meta() -> StoredMeta {
    StoredMeta::new(&testing::meta())
}

fn key() -> FullKey {
    FullKey { primary: b"some \xff key".as_slice().into(), variance: Some([3; 16]) }
}

/// The head of a file without a body, with two slots.
fn head(slots: [Option<(u64, &StoredMeta)>; 2]) -> (Prefix, Vec<u8>) {
    let size = slot_size(encode_meta(&meta()).unwrap().len()).unwrap();
    let key = encode_key(&key());
    let prefix = Prefix { key_length: key.len() as u32, slot_size: size, body_length: 0, id: 77 };
    let mut out = prefix.encode(&key);
    for slot in slots {
        let slot = slot.map(|(number, meta)| encode_slot(number, &encode_meta(meta).unwrap(), size).unwrap());
        let end = out.len() + size as usize;
        out.extend_from_slice(&slot.unwrap_or_default());
        out.resize(end, 0);
    }
    assert_eq!(out.len() as u64, prefix.file_length());
    (prefix, out)
}

#[test]
fn head_is_restored() {
    let (prefix, bytes) = head([Some((1, &meta())), None]);
    assert_eq!(Prefix::decode(&bytes).unwrap(), prefix);
    let head = decode_head(prefix, &bytes.into()).unwrap();
    assert_eq!((head.key, head.number, head.second), (key(), 1, false));
    testing::assert_restored(&head.meta.into_meta());
}

#[test]
fn header_without_case_and_unusual_facts_are_restored() {
    let mut header = ResponseHeader::build_no_case(404, None).unwrap();
    header.append_header("x-raw", http::HeaderValue::from_bytes(b"\xe9\t ").unwrap()).unwrap();
    header.append_header("x-empty", "").unwrap();
    header.set_reason_phrase(Some("Nope")).unwrap();
    header.set_version(http::Version::HTTP_2);
    let mut original = meta();
    original.header = header;
    original.epoch_override = None;
    original.created = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
    original.fresh_until = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
    original.variance = None;
    let restored = decode_meta(encode_meta(&original).unwrap().into()).unwrap();
    assert_eq!(restored.created, original.created);
    assert!(restored.fresh_until > SystemTime::UNIX_EPOCH + Duration::from_secs(9_000_000_000), "clamped");
    assert_eq!((restored.epoch_override, restored.variance), (None, None));
    assert_eq!(restored.header.headers, original.header.headers);
    assert_eq!(restored.header.get_reason_phrase(), Some("Nope"));
    assert_eq!(restored.header.version, http::Version::HTTP_2);
    assert!(!restored.header.has_case());
}

#[test]
fn valid_slot_with_the_higher_number_counts() {
    let (mut one, mut two) = (meta(), meta());
    (one.stale_if_error, two.stale_if_error) = (1, 2);
    for (slots, damage, expected) in [
        ([Some((1, &one)), Some((2, &two))], None, Some(2)),
        ([Some((3, &one)), Some((2, &two))], None, Some(1)),
        ([Some((1, &one)), Some((2, &two))], Some(true), Some(1)),
        ([Some((3, &one)), Some((2, &two))], Some(false), Some(2)),
        ([None, Some((2, &two))], None, Some(2)),
        ([Some((1, &one)), None], Some(false), None),
        ([None, None], None, None),
    ] {
        let (prefix, mut bytes) = head(slots);
        if let Some(second) = damage {
            bytes[prefix.slot(second) as usize + 40] ^= 1;
        }
        let head = decode_head(prefix, &bytes.into());
        assert_eq!(head.ok().map(|head| head.meta.stale_if_error), expected);
    }
}

#[test]
fn every_flipped_bit_of_the_head_is_detected_or_harmless() {
    let (prefix, bytes) = head([Some((1, &meta())), None]);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        let Ok(found) = Prefix::decode(&damaged) else { continue };
        let Ok(head) = decode_head(found, &damaged.into()) else { continue };
        assert_eq!((found, head.key), (prefix, key()), "byte {at}");
        testing::assert_restored(&head.meta.into_meta());
    }
}

#[test]
fn every_truncation_of_the_head_is_detected() {
    let (_, bytes) = head([Some((1, &meta())), None]);
    for length in 0..bytes.len() {
        let cut = Bytes::copy_from_slice(&bytes[..length]);
        let whole = Prefix::decode(&cut).and_then(|prefix| decode_head(prefix, &cut));
        assert!(whole.is_err(), "{length}");
    }
}

#[test]
fn block_of_another_place_or_entry_fails_its_checksum() {
    let block = |id, number| {
        let mut block = b"body".to_vec();
        block.extend_from_slice(&checksum(id, number, b"body").to_le_bytes());
        Bytes::from(block)
    };
    assert_eq!(verify(5, 6, block(5, 6)).unwrap(), "body");
    for (id, number) in [(5, 7), (6, 6), (5 << 32, 6)] {
        assert!(verify(id, number, block(5, 6)).is_err());
    }
    assert!(verify(5, 6, Bytes::from_static(b"abc")).is_err());
    assert!(verify(5, 6, Bytes::from_static(&[0; 100])).is_err());
}
