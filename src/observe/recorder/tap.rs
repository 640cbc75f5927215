//! Readers of live requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::timeline::Timeline;

/// Requests that may wait for a slow reader; further ones are lost.
const WAITING_MAX: usize = 1024;

/// Which requests a reader wants.
pub type Filter = Box<dyn Fn(&Timeline) -> bool + Send + Sync>;

/// All readers of live requests.
#[derive(Default)]
pub(super) struct Taps {
    /// Their number, which requests read.
    count: AtomicUsize,
    readers: Mutex<Vec<Reader>>,
}

struct Reader {
    wants: Filter,
    to: mpsc::Sender<Arc<Timeline>>,
    lost: Arc<AtomicU64>,
}

/// A reader of live requests. Dropping it ends the reading.
pub struct Tap {
    taps: Arc<Taps>,
    requests: mpsc::Receiver<Arc<Timeline>>,
    lost: Arc<AtomicU64>,
}

impl Taps {
    /// Whether there is no reader.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// A reader of requests that match `wants`.
    pub(super) fn open(self: &Arc<Self>, wants: Filter) -> Tap {
        let (to, requests) = mpsc::channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let mut readers = self.readers.lock();
        readers.push(Reader { wants, to, lost: Arc::clone(&lost) });
        self.count.store(readers.len(), Ordering::Relaxed);
        Tap { taps: Arc::clone(self), requests, lost }
    }

    /// Gives a request to the readers that want it. Never waits.
    pub(super) fn give(&self, timeline: &Arc<Timeline>) {
        for reader in self.readers.lock().iter().filter(|reader| (reader.wants)(timeline)) {
            if reader.to.try_send(Arc::clone(timeline)).is_err() {
                reader.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Tap {
    /// The next request, and the number of requests that were lost before it because the reader was slow.
    pub async fn next(&mut self) -> Option<(Arc<Timeline>, u64)> {
        let timeline = self.requests.recv().await?;
        Some((timeline, self.lost.swap(0, Ordering::Relaxed)))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.requests.close();
        let mut readers = self.taps.readers.lock();
        readers.retain(|reader| !reader.to.is_closed());
        self.taps.count.store(readers.len(), Ordering::Relaxed);
    }
}
