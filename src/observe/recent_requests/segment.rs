//! A segment of consecutive requests whose texts share one reusable buffer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::request::{RecordedRequest, RequestKey};

/// Requests in a segment.
pub(super) const REQUESTS: usize = 256;
/// Bytes of their texts: 128 per request on average.
pub(super) const TEXT: usize = REQUESTS * 128;

/// The largest memory of a segment in bytes.
pub(super) const SIZE_MAX: usize = TEXT + REQUESTS * size_of::<Entry>();

/// The longest method; no method in use is longer.
const METHOD_MAX: usize = 32;
/// The longest host: the longest name with a port. A longer one is invalid and matches no route.
const HOST_MAX: usize = 260;
/// The longest path; a longer one is truncated.
const PATH_MAX: usize = 256;
/// The longest header value; a longer one is omitted, because a part would be a different value.
const VALUE_MAX: usize = 256;
/// Marks a header that the request does not have.
const ABSENT: u16 = u16::MAX;

/// One request; its text starts at `start`: method, host, path, then the value of each header after its length.
#[derive(Clone)]
struct Entry {
    at: u64,
    client: IpAddr,
    content_length: Option<u64>,
    bound: Option<u64>,
    start: u32,
    method: u8,
    host: Option<u16>,
    path: u16,
    path_truncated: bool,
    misdirected: bool,
    https_required: bool,
}

/// A segment.
#[derive(Clone)]
pub(super) struct Segment {
    /// The id of the segment.
    pub(super) id: u64,
    /// The recorded headers.
    pub(super) names: Arc<[HeaderName]>,
    entries: Vec<Entry>,
    text: Vec<u8>,
    latest: u64,
}

impl Segment {
    /// An empty segment; its memory grows as it is filled.
    pub(super) fn new(id: u64, names: Arc<[HeaderName]>) -> Self {
        Self { id, names, entries: Vec::new(), text: Vec::new(), latest: 0 }
    }

    /// Reuses the memory for other requests.
    pub(super) fn renew(mut self, id: u64, names: Arc<[HeaderName]>) -> Self {
        self.entries.clear();
        self.text.clear();
        Self { id, names, latest: 0, ..self }
    }

    /// The number of requests.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the largest request might not fit.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= REQUESTS || self.text.len() + self.largest() > TEXT
    }

    /// The longest text of a request in bytes.
    fn largest(&self) -> usize {
        METHOD_MAX + HOST_MAX + PATH_MAX + self.names.len() * (size_of::<u16>() + VALUE_MAX)
    }

    /// Reserves space for one more request, in few steps and within the limit of a segment.
    fn grow(&mut self) {
        let (length, largest) = (self.text.len(), self.largest());
        if self.text.capacity() - length < largest {
            self.text.reserve_exact((TEXT / 4).max(largest).min(TEXT.saturating_sub(length)));
        }
    }

    /// The time of its latest request, in nanoseconds since the epoch.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// Its memory in bytes.
    #[cfg(test)]
    pub(super) fn size_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.text.capacity()
    }

    /// Records a request. The caller has checked that it fits.
    pub(super) fn push(&mut self, epoch: Instant, key: &RequestKey<'_>, headers: &HeaderMap) {
        // Nanoseconds in 64 bits last for five centuries; lengths and offsets are bounded above.
        let at = key.at.saturating_duration_since(epoch).as_nanos() as u64;
        self.latest = self.latest.max(at);
        self.grow();
        let start = self.text.len() as u32;
        let (method, path) = (first(key.method, METHOD_MAX), beginning(key.path));
        let host = key.host.filter(|host| host.len() <= HOST_MAX);
        for part in [method, host.unwrap_or_default(), path] {
            self.text.extend_from_slice(part.as_bytes());
        }
        for name in &*self.names {
            match headers.get(name).filter(|value| value.len() <= VALUE_MAX) {
                Some(value) => {
                    self.text.extend_from_slice(&(value.len() as u16).to_ne_bytes());
                    self.text.extend_from_slice(value.as_bytes());
                }
                None => self.text.extend_from_slice(&ABSENT.to_ne_bytes()),
            }
        }
        self.entries.push(Entry {
            at,
            client: key.client,
            content_length: key.content_length,
            bound: key.bound,
            start,
            method: method.len() as u8,
            host: host.map(|host| host.len() as u16),
            path: path.len() as u16,
            path_truncated: path.len() < key.path.len(),
            misdirected: key.misdirected,
            https_required: key.https_required,
        });
    }

    /// The times of its requests with their indices.
    pub(super) fn times(&self) -> impl Iterator<Item = (u64, usize)> {
        self.entries.iter().enumerate().map(|(index, entry)| (entry.at, index))
    }

    /// The request at an index.
    pub(super) fn get(&self, epoch: Instant, index: usize) -> Option<RecordedRequest<'_>> {
        let entry = self.entries.get(index)?;
        let text = self.text.get(entry.start as usize..)?;
        let (method, text) = text.split_at_checked(entry.method.into())?;
        let (host, text) = text.split_at_checked(entry.host.unwrap_or_default().into())?;
        let (path, mut text) = text.split_at_checked(entry.path.into())?;
        let mut headers = Vec::new();
        for name in &*self.names {
            let (length, rest) = text.split_first_chunk()?;
            text = rest;
            let length = u16::from_ne_bytes(*length);
            if length != ABSENT {
                let (value, rest) = text.split_at_checked(length.into())?;
                text = rest;
                headers.push((name.clone(), HeaderValue::from_bytes(value).ok()?));
            }
        }
        let key = RequestKey {
            at: epoch + Duration::from_nanos(entry.at),
            client: entry.client,
            method: str::from_utf8(method).ok()?,
            host: entry.host.and_then(|_| str::from_utf8(host).ok()),
            path: str::from_utf8(path).ok()?,
            content_length: entry.content_length,
            bound: entry.bound,
            misdirected: entry.misdirected,
            https_required: entry.https_required,
        };
        Some(RecordedRequest { key, headers, path_truncated: entry.path_truncated })
    }
}

/// A prefix of at most `most` bytes, without splitting a character.
fn first(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// A path or its prefix, without splitting a percent-encoding.
fn beginning(path: &str) -> &str {
    let kept = first(path, PATH_MAX);
    if kept.len() == path.len() {
        return path;
    }
    let part = kept.len().saturating_sub(2);
    kept.rfind('%').filter(|escape| *escape >= part).and_then(|escape| kept.get(..escape)).unwrap_or(kept)
}
