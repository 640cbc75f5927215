//! Stores of the HTTP cache: in memory and on disk, both behind Pingora's `Storage`.
//!
//! Pingora's `EvictionManager` is not used: the index of a store (quick_cache, S3-FIFO-like) decides admission and
//! eviction in one step, in the shard that it locks anyway.
//!
//! Rules that both stores follow:
//!
//! - A write is visible to `lookup` while it is in progress, unless a complete entry with the same key exists: then
//!   lookups get the complete entry until the write finishes.
//! - A reader of a write in progress receives every byte that was written. It then receives `None` if the write
//!   finished, or an error with the cause if it did not. A truncated body never looks complete.
//! - A write whose body cannot be stored any more (it is too large, there is no room, the disk fails) is *unpublished*:
//!   lookups do not find it, it never becomes an entry, and its readers still receive every byte. What all of them have
//!   read is freed, and the writer waits for the slowest one. Without readers, the write ends with an error.
//! - A write that fails leaves an older entry with its key untouched.
//! - A purge also stops a write in progress with that key from becoming an entry; its readers are not disturbed.
//! - A hit compares the whole key (primary bytes and variance), never only its hash. The user tag is not compared.

mod entries;
mod flight;
mod header;
mod hit;
mod index;
mod meta;
mod pieces;

pub mod disk;
pub mod memory;

#[cfg(test)]
#[path = "shared_tests.rs"]
mod shared_tests;

#[cfg(test)]
#[path = "unpublished_tests.rs"]
mod unpublished_tests;

pub use entries::{
    CORRUPT, EntryId, INCOMPLETE, NO_ROOM, NOT_STORED, Order, PAUSED, Stats, TOO_LARGE, TopEntry, WriteLimit, updated,
};

use hit::{Hit, Source};
use pingora_cache::storage::HitHandler;

/// Length of the body if the entry is complete.
pub fn complete_length(hit: &HitHandler) -> Option<u64> {
    let hit = hit.as_any();
    if let Some(hit) = hit.downcast_ref::<Hit<memory::Body>>() {
        return hit.source().complete_length();
    }
    hit.downcast_ref::<Hit<disk::Body>>()?.source().complete_length()
}

/// Undoes the count of a hit, for a lookup that is no use of the entry.
pub fn uncount(hit: &HitHandler) {
    let hit = hit.as_any();
    if let Some(hit) = hit.downcast_ref::<Hit<memory::Body>>() {
        hit.source().uncount();
    } else if let Some(hit) = hit.downcast_ref::<Hit<disk::Body>>() {
        hit.source().uncount();
    }
}
