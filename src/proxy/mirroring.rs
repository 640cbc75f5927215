//! Copies of a request whose body has not arrived: what they wait for, and what each of them takes.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use crate::filter::comparison::{Observed, Pair};
use crate::filter::mirror_tally::Dropped;

/// The body of a copy, or why there is none.
pub(super) type CopiedBody = Result<Bytes, Dropped>;

/// The copies of one request.
#[derive(Default)]
pub(super) struct Mirroring {
    waiting: Vec<Waiting>,
    received: BytesMut,
    pairs: Vec<Arc<Pair>>,
}

struct Waiting {
    /// The largest body in bytes.
    body_max: usize,
    body: oneshot::Sender<CopiedBody>,
}

impl Mirroring {
    /// Adds a copy with a body of at most `body_max` bytes. What it receives is closed without a value if the body does not
    /// arrive completely.
    pub(super) fn add(&mut self, body_max: usize) -> oneshot::Receiver<CopiedBody> {
        let (body, receiver) = oneshot::channel();
        self.waiting.push(Waiting { body_max, body });
        receiver
    }

    /// Adds the request and a copy, which are compared.
    pub(super) fn compare(&mut self, pair: Arc<Pair>) {
        self.pairs.push(pair);
    }

    /// The client got its response: compares it with those of the copies, now or later.
    pub(super) fn responded(&self, response: Observed, now: Instant) {
        self.pairs.iter().for_each(|pair| pair.original(response, now));
    }

    /// Takes a copy of a part of the request body; `last` marks its end.
    pub(super) fn receive(&mut self, data: &[u8], last: bool) {
        let length = self.received.len().saturating_add(data.len());
        for too_large in self.waiting.extract_if(.., |waiting| waiting.body_max < length) {
            // The copy may have ended.
            too_large.body.send(Err(Dropped::BodyTooLarge)).ok();
        }
        if self.waiting.is_empty() {
            self.received = BytesMut::new();
            return;
        }
        self.received.extend_from_slice(data);
        if last {
            let whole = std::mem::take(&mut self.received).freeze();
            for waiting in self.waiting.drain(..) {
                waiting.body.send(Ok(whole.clone())).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_copy_gets_the_whole_body_or_the_reason_why_not() {
        let mut mirroring = Mirroring::default();
        let (mut small, mut large) = (mirroring.add(3), mirroring.add(4));
        mirroring.receive(b"ab", false);
        assert!(small.try_recv().is_err());
        mirroring.receive(b"cd", false);
        assert_eq!(small.try_recv(), Ok(Err(Dropped::BodyTooLarge)));
        mirroring.receive(b"", true);
        assert_eq!(large.try_recv(), Ok(Ok(Bytes::from_static(b"abcd"))));
        let mut incomplete = mirroring.add(9);
        mirroring.receive(b"ab", false);
        drop(mirroring);
        assert_eq!(incomplete.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn nothing_is_kept_for_copies_that_are_dropped() {
        let mut mirroring = Mirroring::default();
        let _copy = mirroring.add(3);
        mirroring.receive(b"abcd", false);
        mirroring.receive(b"efgh", true);
        assert_eq!((mirroring.received.len(), mirroring.received.capacity()), (0, 0));
    }
}
