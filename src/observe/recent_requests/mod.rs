//! Recent requests: recorded so that a new configuration can be tried with them.
//!
//! A record has the time, the client, method, host and path, and the values of configured headers. Queries,
//! bodies and other headers are never recorded, so secrets stay out of memory.
//!
//! # Cost
//!
//! Each worker has a worker buffer of its own: a segment of memory with places for 256 requests, behind a lock that
//! that only its worker and readers take. A request is copied into it (some 100 bytes) in about 30 ns, and nothing is
//! allocated but when a segment grows for the first time. A full segment joins those of all
//! workers, under a lock that is taken once in 256 requests, and the worker takes the oldest one's memory for
//! the next.
//!
//! # Memory
//!
//! It grows with the requests up to the size of `count` of them, about 10 MB for 50,000, and never above
//! [`RecentRequests::size_bytes_max`]: long requests reduce the number that is kept.
//!
//! # What is kept
//!
//! The last `count` requests of all workers together, with any distribution over workers. The oldest segment is
//! the one that was filled first, so an idle worker may still hold requests older than those that others have
//! dropped; [`Recent`] omits them, so that its requests are complete.

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
use parking_lot::{Mutex, MutexGuard};
pub use request::{RecordedRequest, RequestKey};

use segment::Segment;

/// The full segments of all workers.
#[derive(Default)]
struct Full {
    segments: VecDeque<Arc<Segment>>,
    requests: usize,
    /// No request after this time is missing; in nanoseconds since the epoch.
    complete_since: Option<u64>,
    /// The id of the next segment.
    id: u64,
    /// The new settings, once they have changed.
    wanted: Option<Spec>,
}

/// The current segment of one worker, alone in its cache line.
#[derive(Default)]
#[repr(align(64))]
struct WorkerBuffer(Mutex<Option<Segment>>);

/// The recent requests.
pub struct RecentRequests {
    epoch: Instant,
    full: Mutex<Full>,
    lanes: Mutex<Vec<Arc<[WorkerBuffer]>>>,
}

/// Records the requests of one worker.
pub struct Recorder {
    recent: Arc<RecentRequests>,
    lanes: Arc<[WorkerBuffer]>,
}

impl RecentRequests {
    /// No requests; times count from `epoch`.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        Self { epoch, full: Mutex::default(), lanes: Mutex::default() }
    }

    /// A recorder for a worker with this number of threads.
    #[must_use]
    pub fn recorder(self: &Arc<Self>, threads: usize) -> Recorder {
        let lanes: Arc<[WorkerBuffer]> = (0..threads.max(1)).map(|_| WorkerBuffer::default()).collect();
        self.lanes.lock().push(Arc::clone(&lanes));
        Recorder { recent: Arc::clone(self), lanes }
    }

    /// Drops what the new settings do not keep: everything if other headers are configured or recording is off,
    /// otherwise the excess.
    pub fn configure(&self, before: &Spec, after: &Spec) {
        // Requests that started before still have the old settings; from here on they are not recorded.
        self.full.lock().wanted = Some(after.clone());
        if before.headers != after.headers || after.count == 0 {
            // The lock of a worker buffer is taken before that of the full segments, as in `Recorder::note`.
            for worker_buffer in self.lanes.lock().iter().flat_map(|lanes| lanes.iter()) {
                *worker_buffer.0.lock() = None;
            }
            let mut full = self.full.lock();
            *full = Full { id: full.id, wanted: full.wanted.take(), ..Full::default() };
        } else {
            self.full.lock().trim(after.count);
        }
    }

    /// The largest memory of the full segments in bytes; each thread has one more segment.
    #[must_use]
    pub fn size_bytes_max(count: usize) -> usize {
        segments_max(count) * segment::SIZE_MAX
    }

    /// The recorded requests, at most `count`. Workers continue meanwhile.
    #[must_use]
    pub fn recent(&self, count: usize) -> Recent {
        // A segment that moves from its worker buffer to the full ones meanwhile is seen twice, and identified by its
        // id.
        let mut segments: Vec<Arc<Segment>> = Vec::new();
        for worker_buffer in self.lanes.lock().iter().flat_map(|lanes| lanes.iter()) {
            segments.extend(worker_buffer.0.lock().clone().map(Arc::new));
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
    fn wants(&self, spec: &Spec) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.count > 0 && wanted.headers == spec.headers)
    }

    /// Drops the oldest segments beyond `count` requests. The memory of the last one can be reused.
    fn trim(&mut self, count: usize) -> Option<Segment> {
        let mut left = None;
        while let Some(oldest) = self.segments.front()
            && (self.requests - oldest.len() >= count || self.segments.len() > segments_max(count))
        {
            self.requests -= oldest.len();
            self.complete_since = self.complete_since.max(Some(oldest.latest()));
            // Not while a reader holds it.
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
        let Some(mut worker_buffer) = self.worker_buffer() else { return };
        match &mut *worker_buffer {
            Some(segment) if !segment.is_full() && segment.names == spec.headers => {
                segment.push(self.recent.epoch, key, headers);
            }
            other => {
                let mut full = self.recent.full.lock();
                if full.wants(spec) {
                    let segment = full.exchange(other.take(), spec);
                    drop(full);
                    other.insert(segment).push(self.recent.epoch, key, headers);
                }
            }
        }
    }

    /// A worker buffer that is not locked. A worker with one thread has one worker buffer, which only a reader can hold.
    fn worker_buffer(&self) -> Option<MutexGuard<'_, Option<Segment>>> {
        let count = self.lanes.len();
        let start = if count > 1 { fastrand::usize(..count) } else { 0 };
        let (before, from) = self.lanes.split_at_checked(start).unwrap_or_default();
        let free = from.iter().chain(before).find_map(|worker_buffer| worker_buffer.0.try_lock());
        free.or_else(|| self.lanes.get(start).map(|worker_buffer| worker_buffer.0.lock()))
    }
}

/// The requests recorded at one time.
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
