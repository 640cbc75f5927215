//! The requests of the last while: what a change of the configuration is tried out with.
//!
//! Of each request its key is noted: when it came, from whom, method, host, path, and the values of the
//! header fields that the configuration names. Never a query, never a body, and no field unless named:
//! secrets stay where they are.
//!
//! # Cost
//!
//! Each worker has a lane of its own: a segment of memory with places for 256 requests, behind a lock that
//! nobody else takes but who reads. A request is copied into it (some 100 bytes) in about 30 ns, and nothing is
//! allocated but when a segment grows for the first time. A full segment joins those of all
//! workers, under a lock that is taken once in 256 requests, and the worker takes the oldest one's memory for
//! the next.
//!
//! # Memory
//!
//! It grows as requests come, to what `count` of them take, about 10 MB for 50,000; never above
//! [`RecentRequests::size_bytes_max`], whatever clients send: where requests are long, fewer are kept.
//!
//! # What is kept
//!
//! The last `count` of all workers together, however unevenly they are used. The oldest segment is the one
//! that was filled first, so a worker that has little to do may still hold requests older than what others
//! have dropped; [`Recent`] leaves them out, and what it tells of is complete.

mod config;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use config::{Config, Spec};
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::{Mutex, MutexGuard};

use segment::Segment;

/// What is noted of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey<'a> {
    /// When it came.
    pub at: Instant,
    /// Who it is from: its peer, or what a trusted proxy said.
    pub client: IpAddr,
    /// Its method.
    pub method: &'a str,
    /// The host that it asked for.
    pub host: Option<&'a str>,
    /// Its path, in the one form.
    pub path: &'a str,
    /// The length that it announced, in bytes.
    pub content_length: Option<u64>,
    /// The pool that its client's cookie binds it to, as cookies call it.
    pub bound: Option<u64>,
    /// Whether its host had nothing to do with its TLS connection.
    pub misdirected: bool,
    /// Whether its listener sends everything to HTTPS.
    pub https_required: bool,
}

/// A request as it was noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted<'a> {
    /// What it was.
    pub key: RequestKey<'a>,
    /// Those of its fields that are remembered.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether its path was too long, and is only its beginning.
    pub cut: bool,
}

/// The full segments of all workers.
#[derive(Default)]
struct Full {
    segments: VecDeque<Arc<Segment>>,
    requests: usize,
    /// Nothing that came after this is missing; in nanoseconds since the epoch.
    complete_since: Option<u64>,
    /// The next segment's.
    id: u64,
    /// What is to be remembered, once that has changed.
    wanted: Option<Spec>,
}

/// Where one worker writes, alone in its cache line.
#[derive(Default)]
#[repr(align(64))]
struct Lane(Mutex<Option<Segment>>);

/// The requests of the last while.
pub struct RecentRequests {
    epoch: Instant,
    full: Mutex<Full>,
    lanes: Mutex<Vec<Arc<[Lane]>>>,
}

/// What one worker notes its requests with.
pub struct Recorder {
    recent: Arc<RecentRequests>,
    lanes: Arc<[Lane]>,
}

impl RecentRequests {
    /// None yet; requests are noted from `epoch` on.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        Self { epoch, full: Mutex::default(), lanes: Mutex::default() }
    }

    /// For a worker of so many threads.
    #[must_use]
    pub fn recorder(self: &Arc<Self>, threads: usize) -> Recorder {
        let lanes: Arc<[Lane]> = (0..threads.max(1)).map(|_| Lane::default()).collect();
        self.lanes.lock().push(Arc::clone(&lanes));
        Recorder { recent: Arc::clone(self), lanes }
    }

    /// Forgets what a changed configuration does not want to be remembered: all, where other fields are
    /// named or nothing is to be remembered, else what is too much.
    pub fn configure(&self, before: &Spec, after: &Spec) {
        // Requests that began before hold the old word; from here on nothing is remembered by it.
        self.full.lock().wanted = Some(after.clone());
        if before.headers != after.headers || after.count == 0 {
            // A lane's lock is taken before that of the full ones, as in `Recorder::note`.
            for lane in self.lanes.lock().iter().flat_map(|lanes| lanes.iter()) {
                *lane.0.lock() = None;
            }
            let mut full = self.full.lock();
            *full = Full { id: full.id, wanted: full.wanted.take(), ..Full::default() };
        } else {
            self.full.lock().trim(after.count);
        }
    }

    /// Bytes of memory that are taken at most by the full segments; each thread's own is one more.
    #[must_use]
    pub fn size_bytes_max(count: usize) -> usize {
        segments_max(count) * segment::SIZE_MAX
    }

    /// What is remembered now, `count` requests at most. Workers go on meanwhile.
    #[must_use]
    pub fn recent(&self, count: usize) -> Recent {
        // Whatever moves from its lane to the full ones meanwhile is seen twice, and told apart by its number.
        let mut segments: Vec<Arc<Segment>> = Vec::new();
        for lane in self.lanes.lock().iter().flat_map(|lanes| lanes.iter()) {
            segments.extend(lane.0.lock().clone().map(Arc::new));
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

/// How many full segments are kept at most.
const fn segments_max(count: usize) -> usize {
    2 * count.div_ceil(segment::REQUESTS) + 1
}

impl Full {
    /// Whether what `spec` names is to be remembered.
    fn wants(&self, spec: &Spec) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.count > 0 && wanted.headers == spec.headers)
    }

    /// Drops the oldest until no more is kept than `count` requests need. The last one's memory can be used
    /// again.
    fn trim(&mut self, count: usize) -> Option<Segment> {
        let mut left = None;
        while let Some(oldest) = self.segments.front()
            && (self.requests - oldest.len() >= count || self.segments.len() > segments_max(count))
        {
            self.requests -= oldest.len();
            self.complete_since = self.complete_since.max(Some(oldest.latest()));
            // Where somebody reads it, it is theirs.
            left = self.segments.pop_front().and_then(Arc::into_inner);
        }
        left
    }

    /// Takes a segment in and gives an empty one.
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
    /// Notes a request; `headers` are all that it has.
    pub fn note(&self, spec: &Spec, key: &RequestKey<'_>, headers: &HeaderMap) {
        if spec.count == 0 {
            return;
        }
        let Some(mut lane) = self.lane() else { return };
        match &mut *lane {
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

    /// A lane that nobody else is in. A worker of one thread has one, which only a reader can have taken.
    fn lane(&self) -> Option<MutexGuard<'_, Option<Segment>>> {
        let count = self.lanes.len();
        let start = if count > 1 { fastrand::usize(..count) } else { 0 };
        let (before, from) = self.lanes.split_at_checked(start).unwrap_or_default();
        let free = from.iter().chain(before).find_map(|lane| lane.0.try_lock());
        free.or_else(|| self.lanes.get(start).map(|lane| lane.0.lock()))
    }
}

/// What was remembered at some moment.
pub struct Recent {
    epoch: Instant,
    segments: Vec<Arc<Segment>>,
    order: Vec<(u64, usize, usize)>,
}

impl Recent {
    /// How many requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The requests in the order of their times.
    pub fn iter(&self) -> impl Iterator<Item = Noted<'_>> {
        self.order.iter().filter_map(|(_, segment, position)| self.segments.get(*segment)?.get(self.epoch, *position))
    }

    /// From the first request to the last.
    #[must_use]
    pub fn span(&self) -> Duration {
        match (self.order.first(), self.order.last()) {
            (Some((first, ..)), Some((last, ..))) => Duration::from_nanos(last - first),
            _ => Duration::ZERO,
        }
    }
}
