//! Updates of a stored response: by a 304, and by a response to HEAD (RFC 9111 §3.2, §4.3.4, §4.3.5).

use std::time::SystemTime;

use http::header::{AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, LAST_MODIFIED, TRAILER};
use http::{HeaderMap, StatusCode};

use crate::cache::conditional::{date, strong_last_modified};
use crate::cache::entity_tag::EntityTag;
use crate::http::connection_fields::{NOT_STORED, named_by_connection};
use crate::http::fields::single;

/// Fields of which the stored response keeps its own value, or none, besides those of the connection.
const KEPT: [HeaderName; 7] = [
    TRAILER,
    // They describe the stored body, or the empty one of the 304 (§3.2).
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    // Handled by `update`.
    AGE,
];

/// Whether a 304 to a validation request that had only the validators of the stored response is about it (§4.3.4). If
/// not, the response has to be requested again without conditions. `now` selects the century of a two-digit year.
///
/// - If both have an ETag, these decide: strongly if the 304 has a strong one, weakly otherwise.
/// - Otherwise, a Last-Modified of the 304 must be that of the stored response, and a strong ETag that the stored
///   response lacks needs a strong Last-Modified.
/// - A 304 without validators is about the stored response, because the request named no other. Several servers omit
///   Last-Modified.
#[must_use]
pub fn selects(stored: &HeaderMap, fresh: &HeaderMap, now: SystemTime) -> bool {
    let tags = (single(stored, &ETAG), single(fresh, &ETAG));
    if let (Some(stored), Some(fresh)) = tags {
        let (stored, fresh) = (EntityTag::read(stored.as_bytes()), EntityTag::read(fresh.as_bytes()));
        return if fresh.is_strong() { fresh.matches_strongly(&stored) } else { fresh.matches_weakly(&stored) };
    }
    let same_date = has_same_last_modified(stored, fresh, now);
    match tags {
        (None, Some(tag)) => {
            let is_strong = EntityTag::read(tag.as_bytes()).is_strong();
            same_date && (!is_strong || strong_last_modified(fresh, now).is_some())
        }
        _ => same_date || !fresh.contains_key(LAST_MODIFIED),
    }
}

fn has_same_last_modified(stored: &HeaderMap, fresh: &HeaderMap, now: SystemTime) -> bool {
    match (single(stored, &LAST_MODIFIED), single(fresh, &LAST_MODIFIED)) {
        (Some(stored), Some(fresh)) => {
            stored == fresh || date(stored, now).is_some_and(|time| date(fresh, now) == Some(time))
        }
        _ => false,
    }
}

/// Replaces the stored fields by those of a response that selects or freshens it (§3.2). Fields that `fresh` lacks
/// remain. `excluded` are fields that the response forbids to store (`no-cache="..."`, `private="..."`).
///
/// Content-Length, Content-Encoding, Content-Range, digests of the content, and fields of the connection
/// are not taken. An ETag is taken only if the stored response has none. Age is that of `fresh`, or none.
pub fn update_from_304(stored: &mut HeaderMap, fresh: &HeaderMap, excluded: &[HeaderName]) {
    let has_tag = stored.contains_key(ETAG);
    let of_connection = named_by_connection(fresh);
    let is_kept = |name: &HeaderName| {
        NOT_STORED.contains(name)
            || KEPT.contains(name)
            || (has_tag && *name == ETAG)
            || excluded.contains(name)
            || of_connection.contains(name)
    };
    stored.remove(AGE);
    for name in fresh.keys().filter(|name| **name == AGE || !is_kept(name)) {
        stored.remove(name);
        for value in fresh.get_all(name) {
            stored.append(name, value.clone());
        }
    }
    for name in excluded {
        stored.remove(name);
    }
}

/// What a response to HEAD means for a stored response to GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadUpdate {
    /// The stored response is current: [`update_from_304`] updates it.
    Freshen,
    /// The stored response is no longer current.
    Invalidate,
    /// The response says nothing about it, because its status is not 200.
    Ignore,
}

/// Compares a response to HEAD with the stored response to GET that the request would select (§4.3.5): each validator
/// and the Content-Length that it has must be the same. `stored_length` is the length of the stored body in bytes;
/// `now` selects the century of a two-digit year.
#[must_use]
pub fn update_from_head(
    stored: &HeaderMap,
    stored_length: Option<u64>,
    status: StatusCode,
    head: &HeaderMap,
    now: SystemTime,
) -> HeadUpdate {
    if status != StatusCode::OK {
        return HeadUpdate::Ignore;
    }
    let same_tag = !head.contains_key(ETAG) || same_tag(stored, head);
    let same_date = !head.contains_key(LAST_MODIFIED) || has_same_last_modified(stored, head, now);
    let same_length = !head.contains_key(CONTENT_LENGTH) || {
        let length = content_length(stored).or(stored_length);
        length.is_some() && content_length(head) == length
    };
    if same_tag && same_date && same_length { HeadUpdate::Freshen } else { HeadUpdate::Invalidate }
}

fn same_tag(stored: &HeaderMap, head: &HeaderMap) -> bool {
    let stored = single(stored, &ETAG);
    stored.is_some() && stored == single(head, &ETAG)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    single(headers, &CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
#[path = "freshening_tests.rs"]
mod tests;
