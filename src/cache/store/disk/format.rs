//! Format of a stored file.
//!
//! ```text
//! prefix (64 bytes) | key | slot A | slot B | block, checksum | block, checksum | …
//! ```
//!
//! The prefix is written when the body is complete. A slot holds the metadata and the response header; the valid slot
//! with the higher number counts. An update writes the other slot, so a crash in the middle leaves the older metadata.
//! A block has 64 KiB of the body, the last one less. Its checksum includes its place and the identity of the entry.
//! Integers are little-endian.

use super::super::entries::{CORRUPT, FullKey};
use super::super::header::{put_header, take_header};
use super::super::meta::StoredMeta;
use bytes::{Buf, BufMut, Bytes};
use pingora_cache::key::HashBinary;
use pingora_error::{BError, Error};
use std::time::{Duration, SystemTime};

/// Bytes of the body in one block.
pub(super) const BLOCK: u64 = 64 * 1024;
/// Bytes of a checksum.
pub(super) const CHECKSUM: u64 = 4;
/// Bytes of the prefix.
pub(super) const PREFIX: u64 = 64;
/// Bytes before the payload of a slot.
const SLOT_HEAD: usize = 16;
const MAGIC: &[u8; 8] = b"l7lbobj\x01";
/// Largest key and largest slot; a file with larger ones is damaged.
const MAX_KEY: u32 = 1 << 20;
const MAX_SLOT: u32 = 1 << 22;

/// The facts of a file that never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) key_length: u32,
    pub(super) slot_size: u32,
    pub(super) body_length: u64,
    pub(super) id: u64,
}

impl Prefix {
    /// Offset of the first block.
    pub(super) fn start(&self) -> u64 {
        PREFIX + u64::from(self.key_length) + 2 * u64::from(self.slot_size)
    }

    /// Length of the whole file.
    pub(super) fn file_length(&self) -> u64 {
        self.start() + self.body_length + self.body_length.div_ceil(BLOCK) * CHECKSUM
    }

    /// Offset of a slot.
    pub(super) fn slot(&self, second: bool) -> u64 {
        PREFIX + u64::from(self.key_length) + u64::from(second) * u64::from(self.slot_size)
    }

    /// The prefix and the key as bytes.
    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(PREFIX as usize + key.len());
        out.put_slice(MAGIC);
        out.put_u32_le(self.key_length);
        out.put_u32_le(self.slot_size);
        out.put_u64_le(self.body_length);
        out.put_u64_le(self.id);
        out.resize(PREFIX as usize - CHECKSUM as usize, 0);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&out);
        hasher.update(key);
        out.put_u32_le(hasher.finalize());
        out.put_slice(key);
        out
    }

    /// Reads the prefix without its checksum, which needs the key.
    pub(super) fn decode(mut head: &[u8]) -> Result<Self, BError> {
        if head.len() < PREFIX as usize || !head.starts_with(MAGIC) {
            return Err(corrupt("no prefix"));
        }
        head.advance(MAGIC.len());
        let (key_length, slot_size) = (head.get_u32_le(), head.get_u32_le());
        let (body_length, id) = (head.get_u64_le(), head.get_u64_le());
        if key_length > MAX_KEY || slot_size > MAX_SLOT || body_length > 1 << 48 {
            return Err(corrupt("impossible lengths"));
        }
        Ok(Self { key_length, slot_size, body_length, id })
    }
}

/// An error about a damaged file.
pub(super) fn corrupt(what: &'static str) -> BError {
    Error::explain(CORRUPT, what)
}

/// Checksum of a block.
pub(super) fn checksum(id: u64, block: u64, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.to_le_bytes());
    hasher.update(&block.to_le_bytes());
    hasher.update(data);
    hasher.finalize()
}

/// The body of a block, after its checksum was verified.
pub(super) fn verify(id: u64, block: u64, mut stored: Bytes) -> Result<Bytes, BError> {
    let Some(length) = stored.len().checked_sub(CHECKSUM as usize) else { return Err(corrupt("short block")) };
    let mut expected = stored.split_off(length);
    if expected.get_u32_le() == checksum(id, block, &stored) { Ok(stored) } else { Err(corrupt("block checksum")) }
}

/// Key in a file: variance, then the primary bytes.
pub(super) fn encode_key(key: &FullKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(17 + key.primary.len());
    put_variance(&mut out, key.variance);
    out.put_slice(&key.primary);
    out
}

/// Whether a file can hold the encoded key.
pub(super) fn key_fits(key: &[u8]) -> bool {
    key.len() <= MAX_KEY as usize
}

/// Size of a slot for a payload, with room for a header that grows a little.
pub(super) fn slot_size(payload: usize) -> Option<u32> {
    let wanted = SLOT_HEAD + payload + (payload / 4).max(192);
    u32::try_from(wanted.next_multiple_of(64)).ok().filter(|size| *size <= MAX_SLOT)
}

/// A slot with its number; `None` if the payload does not fit.
pub(super) fn encode_slot(number: u64, payload: &[u8], size: u32) -> Option<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok()?;
    let mut out = Vec::with_capacity(SLOT_HEAD + payload.len());
    out.put_u64_le(number);
    out.put_u32_le(length);
    out.put_u32_le(slot_checksum(number, payload));
    out.put_slice(payload);
    (out.len() <= size as usize).then_some(out)
}

fn slot_checksum(number: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(0x1717_1717);
    hasher.update(&number.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn decode_slot(mut slot: Bytes) -> Option<(u64, Bytes)> {
    let number = slot.try_get_u64_le().ok()?;
    let (length, expected) = (slot.try_get_u32_le().ok()?, slot.try_get_u32_le().ok()?);
    if number == 0 || length as usize > slot.len() {
        return None;
    }
    slot.truncate(length as usize);
    (slot_checksum(number, &slot) == expected).then_some((number, slot))
}

/// Everything before the blocks of a file.
pub(super) struct Head {
    pub(super) prefix: Prefix,
    pub(super) key: FullKey,
    pub(super) meta: StoredMeta,
    /// Number of the slot that counts.
    pub(super) number: u64,
    /// Whether it is the second slot.
    pub(super) second: bool,
}

/// Decodes the head of a file. `head` has at least `prefix.start()` bytes.
pub(super) fn decode_head(prefix: Prefix, head: &Bytes) -> Result<Head, BError> {
    if (head.len() as u64) < prefix.start() {
        return Err(corrupt("short file"));
    }
    let (key_end, slot) = ((PREFIX + u64::from(prefix.key_length)) as usize, prefix.slot_size as usize);
    let (fixed, key) = (head.slice(..PREFIX as usize - CHECKSUM as usize), head.slice(PREFIX as usize..key_end));
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&fixed);
    hasher.update(&key);
    if head.slice(fixed.len()..).get_u32_le() != hasher.finalize() {
        return Err(corrupt("prefix checksum"));
    }
    let first = decode_slot(head.slice(key_end..key_end + slot));
    let other = decode_slot(head.slice(key_end + slot..key_end + 2 * slot));
    let second = other.as_ref().map(|slot| slot.0) > first.as_ref().map(|slot| slot.0);
    let (number, payload) = if second { other } else { first }.ok_or_else(|| corrupt("no valid slot"))?;
    let meta = decode_meta(payload).ok_or_else(|| corrupt("metadata"))?;
    let key = decode_key(key).ok_or_else(|| corrupt("key"))?;
    Ok(Head { prefix, key, meta, number, second })
}

fn decode_key(mut data: Bytes) -> Option<FullKey> {
    let variance = take_variance(&mut data)?;
    Some(FullKey { primary: data.as_ref().into(), variance })
}

/// Metadata and response header as bytes. `None` if a value could not be restored.
pub(super) fn encode_meta(meta: &StoredMeta) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(512);
    for time in [meta.fresh_until, meta.created, meta.updated] {
        put_time(&mut out, time);
    }
    out.put_u8(u8::from(meta.epoch_override.is_some()));
    put_time(&mut out, meta.epoch_override.unwrap_or(SystemTime::UNIX_EPOCH));
    put_variance(&mut out, meta.variance);
    out.put_u32_le(meta.stale_while_revalidate);
    out.put_u32_le(meta.stale_if_error);
    put_header(&mut out, &meta.header)?;
    Some(out)
}

fn decode_meta(mut data: Bytes) -> Option<StoredMeta> {
    let (fresh_until, created, updated) = (take_time(&mut data)?, take_time(&mut data)?, take_time(&mut data)?);
    let overridden = data.try_get_u8().ok()? == 1;
    let epoch_override = Some(take_time(&mut data)?).filter(|_| overridden);
    Some(StoredMeta {
        fresh_until,
        created,
        updated,
        epoch_override,
        variance: take_variance(&mut data)?,
        stale_while_revalidate: data.try_get_u32_le().ok()?,
        stale_if_error: data.try_get_u32_le().ok()?,
        header: take_header(&mut data)?,
    })
}

fn put_variance(out: &mut Vec<u8>, variance: Option<HashBinary>) {
    out.put_u8(u8::from(variance.is_some()));
    out.put_slice(&variance.unwrap_or_default());
}

fn take_variance(data: &mut Bytes) -> Option<Option<HashBinary>> {
    let present = data.try_get_u8().ok()? == 1;
    let mut variance = HashBinary::default();
    data.try_copy_to_slice(&mut variance).ok()?;
    Some(present.then_some(variance))
}

/// Nanoseconds since the epoch. Times out of the range of years 1677 to 2262 become its ends.
fn put_time(out: &mut Vec<u8>, time: SystemTime) {
    let nanos = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    };
    out.put_i64_le(nanos);
}

fn take_time(data: &mut Bytes) -> Option<SystemTime> {
    let nanos = data.try_get_i64_le().ok()?;
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos >= 0 { SystemTime::UNIX_EPOCH.checked_add(distance) } else { SystemTime::UNIX_EPOCH.checked_sub(distance) }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
