//! What a worker reports about finished requests: to the access log, the counters and the recorder.

use super::access_log::AccessLog;
use super::metrics::{Attempt, Finished, WorkerMetrics};
use super::record::Record;
use super::recorder::{Kept, Timeline, WorkerRecorder};

/// Where a worker reports finished requests. Cheap to clone.
#[derive(Clone)]
pub struct Observers {
    /// The access log.
    pub access_log: AccessLog,
    /// The counters.
    pub metrics: WorkerMetrics,
    /// The recorder of single requests.
    pub recorder: WorkerRecorder,
}

impl Observers {
    /// Writes the access log line of a request, counts it and its attempts, and keeps its timeline if it is of interest.
    pub fn finished<'a>(
        &self,
        record: &Record<'_>,
        request: &Finished<'_>,
        attempts: impl Iterator<Item = Attempt<'a>>,
        timeline: impl FnOnce(Kept) -> Timeline,
    ) {
        self.access_log.write(record);
        let slow = self.metrics.finished(request, attempts);
        if let Some(kept) = self.recorder.keeps(record, slow) {
            self.recorder.keep(timeline(kept));
        }
    }

    /// The same for a request that the listener has rejected.
    pub fn rejected(&self, listener: &str, record: &Record<'_>) {
        let timeline = |kept| Timeline::of(listener, record, kept);
        self.finished(record, &Finished::of(listener, record), std::iter::empty(), timeline);
    }
}
