//! The flight recorder: what happened to single requests.
//!
//! At its end, a request is kept if it failed, if it belongs to the slowest 1 % of its route, or as one of a sample. Only
//! for a kept request its [`Timeline`] is built, so other requests cost a comparison. Each thread has its own rings
//! of bounded size.

mod rings;
mod tap;
mod timeline;

use std::sync::Arc;

use parking_lot::Mutex;

use rings::Rings;
use tap::Taps;
pub use tap::{Filter, Tap};
pub use timeline::{EndedBy, Kept, Timeline, TimelineAttempt, TimelineConnection};

use crate::base::cause::Cause;
use crate::observe::per_thread::PerThread;
use crate::observe::record::Record;

/// One of this many requests belongs to the sample.
const SAMPLE: u8 = 64;

/// The kept requests of all workers. Cheap to clone; all clones share them.
#[derive(Clone, Default)]
pub struct Recorder {
    workers: Arc<Mutex<Vec<PerThread<Rings>>>>,
    taps: Arc<Taps>,
}

/// Keeps the requests of one worker. Cheap to clone.
#[derive(Clone)]
pub struct WorkerRecorder {
    threads: PerThread<Rings>,
    taps: Arc<Taps>,
}

impl Recorder {
    /// The recorder of a new worker with this number of threads.
    #[must_use]
    pub fn worker(&self, threads: usize) -> WorkerRecorder {
        let threads = PerThread::new(threads);
        self.workers.lock().push(threads.clone());
        WorkerRecorder { threads, taps: Arc::clone(&self.taps) }
    }

    /// The kept requests that match, the newest first.
    #[must_use]
    pub fn find(&self, wanted: impl Fn(&Timeline) -> bool) -> Vec<Arc<Timeline>> {
        let mut found = Vec::new();
        for rings in self.workers.lock().iter().flat_map(PerThread::iter) {
            found.extend(rings.iter().filter(|timeline| wanted(timeline)).cloned());
        }
        found.sort_by_key(|timeline| std::cmp::Reverse(timeline.time));
        found
    }

    /// Reads the requests that match from now on.
    #[must_use]
    pub fn tap(&self, wants: Filter) -> Tap {
        self.taps.open(wants)
    }
}

impl WorkerRecorder {
    /// Why a finished request is kept; `None` if it is not.
    #[must_use]
    pub fn keeps(&self, record: &Record<'_>, slow: bool) -> Option<Kept> {
        let failed = record.status >= 500 || (record.cause.is_some() && (record.status == 0 || record.status >= 400));
        if failed || record.cause == Some(Cause::ClientClosed) {
            Some(Kept::Failed)
        } else if slow {
            Some(Kept::Slow)
        } else if fastrand::u8(..SAMPLE) == 0 {
            Some(Kept::Sampled)
        } else {
            (!self.taps.is_empty()).then_some(Kept::Live)
        }
    }

    /// Keeps a request.
    pub fn keep(&self, timeline: Timeline) {
        let timeline = Arc::new(timeline);
        if !self.taps.is_empty() {
            self.taps.give(&timeline);
        }
        if let Some(mut rings) = self.threads.free() {
            rings.keep(timeline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rings::{FAILED_MAX, OTHER_MAX};
    use super::*;
    use std::time::{Duration, SystemTime};

    fn record<'a>(status: u16, cause: Option<Cause>, id: &'a str) -> Record<'a> {
        Record {
            time: SystemTime::UNIX_EPOCH,
            client: "192.0.2.1",
            method: "GET",
            host: "example.com",
            path: "/",
            protocol: "HTTP/1.1",
            status,
            bytes: 0,
            latency: Duration::from_millis(1),
            upstream: None,
            upstream_latency: None,
            attempts: 0,
            route: Some("r"),
            pool: None,
            request_id: id,
            cache: "",
            cause,
            failed_attempts: &[],
            query: None,
            request_headers: None,
            response_headers: &[],
            detail: "",
        }
    }

    #[test]
    fn every_failure_is_kept_and_a_sample_of_the_rest() {
        let worker = Recorder::default().worker(1);
        for (status, cause) in [
            (503, Some(Cause::QueueFull)),
            (500, None),
            (404, Some(Cause::NoRoute)),
            (0, Some(Cause::ClientClosed)),
            (200, Some(Cause::ClientClosed)),
        ] {
            assert_eq!(worker.keeps(&record(status, cause, "a"), false), Some(Kept::Failed), "{status} {cause:?}");
        }
        // A redirect of a filter has a cause, and is no failure.
        assert_ne!(worker.keeps(&record(301, Some(Cause::Redirect), "a"), false), Some(Kept::Failed));
        assert_eq!(worker.keeps(&record(200, None, "a"), true), Some(Kept::Slow));
        let sampled =
            (0..64_000).filter(|_| worker.keeps(&record(200, None, "a"), false) == Some(Kept::Sampled)).count();
        assert!((800..1200).contains(&sampled), "{sampled}");
    }

    #[test]
    fn rings_keep_the_newest_requests_of_each_kind() {
        let recorder = Recorder::default();
        let worker = recorder.worker(1);
        let keep = |kept, id: usize| {
            worker.keep(Timeline::of("web", &record(503, Some(Cause::Internal), &id.to_string()), kept))
        };
        for id in 0..FAILED_MAX + 10 {
            keep(Kept::Failed, id);
        }
        for id in 0..OTHER_MAX + 10 {
            keep(Kept::Sampled, id);
        }
        assert_eq!(recorder.find(|one| one.kept == Kept::Failed).len(), FAILED_MAX);
        assert_eq!(recorder.find(|one| one.kept == Kept::Sampled).len(), OTHER_MAX);
        assert!(recorder.find(|one| one.kept == Kept::Failed && one.request_id == "9").is_empty());
        assert_eq!(recorder.find(|one| one.kept == Kept::Failed && one.request_id == "10").len(), 1);
    }

    #[tokio::test]
    async fn tap_gets_what_it_wants_and_learns_what_it_lost() {
        let recorder = Recorder::default();
        let worker = recorder.worker(1);
        assert_ne!(worker.keeps(&record(200, None, "a"), false), Some(Kept::Live), "without a reader nothing is live");
        let mut tap = recorder.tap(Box::new(|timeline| timeline.status == 503));
        for id in 0..1030 {
            worker.keep(Timeline::of("web", &record(503, Some(Cause::Internal), &id.to_string()), Kept::Live));
            worker.keep(Timeline::of("web", &record(200, None, "other"), Kept::Live));
        }
        let (first, lost) = tap.next().await.unwrap();
        assert_eq!((first.request_id.as_str(), lost), ("0", 6));
        drop(tap);
        assert!(recorder.taps.is_empty());
    }
}
