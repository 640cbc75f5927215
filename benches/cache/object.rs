//! The objects of the origin: their sizes, their bodies, which prove themselves, and how often each is requested.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};

/// Bytes before the filling of a body: number and version.
const PREFIX: usize = 16;
/// Bytes of the checksum at the end of a body.
const CHECKSUM: usize = 4;
/// The smallest body.
pub(crate) const SMALLEST: usize = 1024;
/// The largest body of the mix.
const LARGEST: f64 = 64.0 * 1024.0;
/// How long a version of a changing object lasts.
const VERSION: u64 = 5;
/// The freshness lifetime of a changing object, in seconds.
pub(crate) const CHANGING_TTL: u64 = 2;

/// Bytes that bodies are filled with.
pub(crate) struct Filling(Vec<u8>);

impl Filling {
    /// The same bytes in every run.
    pub(crate) fn new() -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        Self(std::iter::repeat_with(|| random.u8(..)).take(3 << 20).collect())
    }

    /// The body of a version of object `number`.
    pub(crate) fn body(&self, number: u64, version: u64, size: usize) -> Bytes {
        let filled = size.max(SMALLEST) - PREFIX - CHECKSUM;
        let mut body = BytesMut::with_capacity(size);
        body.extend_from_slice(&number.to_le_bytes());
        body.extend_from_slice(&version.to_le_bytes());
        let start = usize::try_from(mixed(number ^ version.rotate_left(32)) % (1 << 20)).unwrap_or(0);
        body.extend_from_slice(self.0.get(start..start + filled).unwrap_or_default());
        let checksum = crc32fast::hash(&body);
        body.extend_from_slice(&checksum.to_le_bytes());
        body.freeze()
    }
}

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Its checksum or its length.
    Bytes,
    /// It is the body of another object.
    Object,
    /// It is older than its freshness lifetime allows.
    Version,
}

/// Checks the complete body of object `number`, requested at `asked`.
pub(crate) fn check(body: &[u8], number: u64, asked: SystemTime, slack: Duration) -> Result<(), Wrong> {
    let (content, checksum) = body.split_last_chunk::<CHECKSUM>().ok_or(Wrong::Bytes)?;
    if crc32fast::hash(content) != u32::from_le_bytes(*checksum) || body.len() != size(number) {
        return Err(Wrong::Bytes);
    }
    let (found, rest) = content.split_first_chunk::<8>().ok_or(Wrong::Bytes)?;
    let (version, _) = rest.split_first_chunk::<8>().ok_or(Wrong::Bytes)?;
    if u64::from_le_bytes(*found) != number {
        return Err(Wrong::Object);
    }
    let oldest = asked.checked_sub(slack + Duration::from_secs(CHANGING_TTL)).unwrap_or(SystemTime::UNIX_EPOCH);
    if is_changing(number) && u64::from_le_bytes(*version) < version_at(number, oldest) {
        return Err(Wrong::Version);
    }
    Ok(())
}

/// Whether the object changes, and is fresh for [`CHANGING_TTL`] only.
pub(crate) const fn is_changing(number: u64) -> bool {
    number % 10 == 9
}

/// Whether the origin sends the object without a length.
pub(crate) const fn is_chunked(number: u64) -> bool {
    number % 16 == 3
}

/// The version of an object at a time.
pub(crate) fn version_at(number: u64, time: SystemTime) -> u64 {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if is_changing(number) { seconds / VERSION } else { 0 }
}

/// The size of an object of the mix: from 1 to 64 KiB, each order of magnitude equally often.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "from 1,024 to 65,536"
)]
pub(crate) fn size(number: u64) -> usize {
    let uniform = (mixed(number) >> 11) as f64 / (1_u64 << 53) as f64;
    (SMALLEST as f64 * (LARGEST / SMALLEST as f64).powf(uniform)) as usize
}

/// Bytes of all objects of the mix.
pub(crate) fn total(objects: u64) -> u64 {
    (0..objects).map(|number| size(number) as u64).sum()
}

/// A number without visible relation to the given one (the finaliser of SplitMix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Object numbers by Zipf's law: the object with rank n is requested 1/n as often as the first.
pub(crate) struct Zipf(Vec<f64>);

impl Zipf {
    #[expect(clippy::cast_precision_loss, reason = "the number of objects is far below 2^52")]
    pub(crate) fn new(objects: u64) -> Self {
        let sums = (1..=objects).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Self(sums.collect())
    }

    /// The number of an object.
    pub(crate) fn next(&self) -> u64 {
        let at = fastrand::f64() * self.0.last().copied().unwrap_or(0.0);
        self.0.partition_point(|sum| *sum < at) as u64
    }
}
