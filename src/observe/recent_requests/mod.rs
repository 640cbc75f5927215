//! Recent requests: recorded so that a new configuration can be tested against them.
//!
//! A record has the time, the client, method, host and path, and the values of configured headers. Queries,
//! bodies and other headers are never recorded, so secrets stay out of memory.
//!
//! # Cost
//!
//! Each thread of a worker has its own buffer: a segment of memory for 256 requests, behind a lock that otherwise only
//! readers take. Copying a request (some 100 bytes) takes about 30 ns. Memory is allocated only when a segment grows
//! for the first time. A full segment is moved to the list of all workers, under a lock that is taken once in 256
//! requests, and the worker reuses the memory of the oldest segment.
//!
//! # Memory
//!
//! It grows until `count` requests are recorded, about 10 MB for 50,000, and never exceeds
//! [`RecentRequests::size_bytes_max`]: long requests reduce the number that is kept.
//!
//! # What is kept
//!
//! The last `count` requests of all workers together, however they are distributed over workers. The oldest segment is
//! the one that was filled first, so an idle worker may still hold requests older than those that others have
//! dropped; [`Recent`] omits them, so that no request is missing in the time it covers.

mod config;
mod request;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use config::{Config, Spec};
use http::HeaderMap;
use parking_lot::Mutex;
pub use request::{RecordedRequest, RequestKey};

use segment::Segment;

use super::per_thread::PerThread;

/// The full segments of all workers.
#[derive(Default)]
struct Full {
    segments: VecDeque<Arc<Segment>>,
    requests: usize,
    /// No request after this time is missing; in nanoseconds since the epoch.
    complete_since: Option<u64>,
    /// The id of the next segment.
    id: u64,
    /// The current settings; `None` until the first reload.
    current_spec: Option<Spec>,
}

/// The current segment of each thread of a worker.
type Buffers = PerThread<Option<Segment>>;

/// The recent requests.
pub struct RecentRequests {
    epoch: Instant,
    full: Mutex<Full>,
    buffers: Mutex<Vec<Buffers>>,
}

/// Records the requests of one worker. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    recent: Arc<RecentRequests>,
    buffers: Buffers,
}

impl RecentRequests {
    /// Without requests. Recorded times are relative to `epoch`.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        Self { epoch, full: Mutex::default(), buffers: Mutex::default() }
    }

    /// A recorder for a worker with this number of threads.
    #[must_use]
    pub fn recorder(self: &Arc<Self>, threads: usize) -> Recorder {
        let buffers = Buffers::new(threads);
        self.buffers.lock().push(buffers.clone());
        Recorder { recent: Arc::clone(self), buffers }
    }

    /// Drops what the new settings do not keep: everything if other headers are configured or recording is off,
    /// otherwise the excess.
    pub fn configure(&self, before: &Spec, after: &Spec) {
        // Requests that still use old settings are not recorded from here on if the settings differ.
        self.full.lock().current_spec = Some(after.clone());
        if before.headers != after.headers || after.count == 0 {
            // The lock of a thread buffer is taken before that of the full segments, as in `Recorder::note`.
            for mut buffer in self.buffers.lock().iter().flat_map(PerThread::iter) {
                *buffer = None;
            }
            let mut full = self.full.lock();
            *full = Full { id: full.id, current_spec: full.current_spec.take(), ..Full::default() };
        } else {
            self.full.lock().trim(after.count);
        }
    }

    /// The largest memory of the full segments in bytes; each thread has one more segment.
    #[must_use]
    pub fn size_bytes_max(count: usize) -> usize {
        segments_max(count) * segment::SIZE_MAX
    }

    /// The recorded requests, at most `count`. Workers continue to record meanwhile.
    #[must_use]
    pub fn recent(&self, count: usize) -> Recent {
        // A segment that moves from its thread buffer to the full ones meanwhile is read twice, and deduplicated by its
        // id.
        let mut segments: Vec<Arc<Segment>> = Vec::new();
        for buffer in self.buffers.lock().iter().flat_map(PerThread::iter) {
            segments.extend(Option::clone(&buffer).map(Arc::new));
        }
        let complete_since = {
            let full = self.full.lock();
            segments.retain(|segment| !full.segments.iter().any(|known| known.id == segment.id));
            segments.extend(full.segments.iter().cloned());
            full.complete_since
        };
        let times = |(index, segment): (usize, &Arc<Segment>)| {
            segment.times().map(|(at, position)| (at, index, position)).collect::<Vec<_>>()
        };
        let mut order: Vec<_> = segments.iter().enumerate().flat_map(times).collect();
        order.retain(|(at, ..)| complete_since.is_none_or(|since| *at > since));
        order.sort_unstable();
        order.drain(..order.len().saturating_sub(count));
        Recent { epoch: self.epoch, segments, order }
    }
}

/// The largest number of full segments.
const fn segments_max(count: usize) -> usize {
    2 * count.div_ceil(segment::REQUESTS) + 1
}

impl Full {
    /// Whether requests under `spec` are recorded.
    fn accepts(&self, spec: &Spec) -> bool {
        self.current_spec
            .as_ref()
            .is_none_or(|current_spec| current_spec.count > 0 && current_spec.headers == spec.headers)
    }

    /// Drops the oldest segments beyond `count` requests. Returns the last dropped segment for reuse of its memory.
    fn trim(&mut self, count: usize) -> Option<Segment> {
        let mut left = None;
        while let Some(oldest) = self.segments.front()
            && (self.requests - oldest.len() >= count || self.segments.len() > segments_max(count))
        {
            self.requests -= oldest.len();
            self.complete_since = self.complete_since.max(Some(oldest.latest()));
            // `None` while a reader still uses the segment.
            left = self.segments.pop_front().and_then(Arc::into_inner);
        }
        left
    }

    /// Takes a full segment and returns an empty one.
    fn exchange(&mut self, segment: Option<Segment>, spec: &Spec) -> Segment {
        if let Some(segment) = segment.filter(|segment| segment.len() > 0) {
            self.requests += segment.len();
            self.segments.push_back(Arc::new(segment));
        }
        self.id += 1;
        let names = Arc::clone(&spec.headers);
        match self.trim(spec.count) {
            Some(segment) => segment.renew(self.id, names),
            None => Segment::new(self.id, names),
        }
    }
}

impl Recorder {
    /// Records a request; `headers` are all its headers.
    pub fn note(&self, spec: &Spec, key: &RequestKey<'_>, headers: &HeaderMap) {
        if spec.count == 0 {
            return;
        }
        let Some(mut buffer) = self.buffers.free() else { return };
        match &mut *buffer {
            Some(segment) if !segment.is_full() && segment.names == spec.headers => {
                segment.push(self.recent.epoch, key, headers);
            }
            other => {
                let mut full = self.recent.full.lock();
                if full.accepts(spec) {
                    let segment = full.exchange(other.take(), spec);
                    drop(full);
                    other.insert(segment).push(self.recent.epoch, key, headers);
                }
            }
        }
    }
}

/// A snapshot of the recorded requests.
pub struct Recent {
    epoch: Instant,
    segments: Vec<Arc<Segment>>,
    order: Vec<(u64, usize, usize)>,
}

impl Recent {
    /// The number of requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The requests in the order of their times.
    pub fn iter(&self) -> impl Iterator<Item = RecordedRequest<'_>> {
        self.order.iter().filter_map(|(_, segment, position)| self.segments.get(*segment)?.get(self.epoch, *position))
    }

    /// The time from the first request to the last.
    #[must_use]
    pub fn span(&self) -> Duration {
        match (self.order.first(), self.order.last()) {
            (Some((first, ..)), Some((last, ..))) => Duration::from_nanos(last - first),
            _ => Duration::ZERO,
        }
    }
}
