//! The requests that a thread has kept, the newest of each kind.

use std::collections::VecDeque;
use std::sync::Arc;

use super::timeline::{Kept, Timeline};

/// Failed requests that a thread keeps.
pub(super) const FAILED_MAX: usize = 2048;
/// Slow requests, and requests of the sample, that a thread keeps.
pub(super) const OTHER_MAX: usize = 512;

/// The kept requests of a thread.
#[derive(Debug, Default)]
pub(super) struct Rings {
    failed: VecDeque<Arc<Timeline>>,
    slow: VecDeque<Arc<Timeline>>,
    sampled: VecDeque<Arc<Timeline>>,
}

impl Rings {
    /// Keeps a request, instead of the oldest one of its kind if there are too many.
    pub(super) fn keep(&mut self, timeline: Arc<Timeline>) {
        let (ring, most) = match timeline.kept {
            Kept::Failed => (&mut self.failed, FAILED_MAX),
            Kept::Slow => (&mut self.slow, OTHER_MAX),
            Kept::Sampled => (&mut self.sampled, OTHER_MAX),
            Kept::Live => return,
        };
        if ring.len() >= most {
            ring.pop_front();
        }
        ring.push_back(timeline);
    }

    /// All kept requests.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Timeline>> {
        self.failed.iter().chain(&self.slow).chain(&self.sampled)
    }
}
