//! The received part of a request body, kept for a retry.

use bytes::{Bytes, BytesMut};

/// The longest part that is kept, in bytes; as in Pingora.
const REPLAY_MAX: usize = 64 << 10;

/// The received part of a request body.
#[derive(Debug)]
pub(super) struct Replay {
    kept: BytesMut,
    truncated: bool,
    /// The longest part that is kept, in bytes.
    limit: usize,
}

impl Default for Replay {
    fn default() -> Self {
        Self { kept: BytesMut::new(), truncated: false, limit: REPLAY_MAX }
    }
}

impl Replay {
    /// Keeps up to `size` bytes, if that is more than usual.
    pub(super) fn keep(&mut self, size: usize) {
        self.limit = self.limit.max(size);
    }

    /// Keeps a copy of `data`: a slice would keep the whole buffer that it was read into.
    pub(super) fn record(&mut self, data: &[u8]) {
        if self.truncated {
            return;
        }
        if self.kept.len() + data.len() > self.limit {
            (self.kept, self.truncated) = (BytesMut::new(), true);
        } else {
            self.kept.extend_from_slice(data);
        }
    }

    /// Whether everything that was received is kept.
    pub(super) fn is_complete(&self) -> bool {
        !self.truncated
    }

    /// What was kept; `None` if nothing was received.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        (!self.kept.is_empty()).then(|| Bytes::copy_from_slice(&self.kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_is_replayable_up_to_the_limit() {
        let mut replay = Replay::default();
        assert_eq!((replay.is_complete(), replay.bytes()), (true, None));
        replay.record(&[1; REPLAY_MAX - 1]);
        replay.record(&[2]);
        assert_eq!(replay.bytes().map(|bytes| bytes.len()), Some(REPLAY_MAX));
        assert!(replay.is_complete());
        replay.record(&[3]);
        assert_eq!((replay.is_complete(), replay.bytes()), (false, None));
        let mut replay = Replay::default();
        replay.keep(1);
        replay.record(&[1; REPLAY_MAX]);
        assert!(replay.is_complete(), "a smaller limit changes nothing");
        replay.keep(REPLAY_MAX + 1);
        replay.record(&[2]);
        assert!(replay.is_complete());
        replay.record(&[3]);
        assert!(!replay.is_complete());
    }
}
