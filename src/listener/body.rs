//! Where the message that is being received ends.

use std::time::Duration;

use super::flood::FrameMeter;
use crate::http::h1::{Body, Chunked};
use crate::http::rejection::{Refusal, Rejection};
use crate::listener::client_timeouts::ClientTimeouts;

use tokio::time::Instant;

/// What the bytes that come next belong to.
#[derive(Debug)]
pub(super) enum Message {
    /// To no message; the one before is at its end.
    Nothing,
    /// To a body of known length, of which so much is missing.
    Length(u64, Rate),
    /// To a chunked body.
    Chunked(Chunked, Rate),
    /// To a protocol that was switched to.
    Tunnel,
    /// To HTTP/2, which has rules of its own; the meter looks on.
    Http2(Box<FrameMeter>),
    /// To nobody: the client flooded, and nothing more is read.
    Flooded,
    /// To nobody: they are thrown away.
    Discarded,
}

impl Message {
    /// The message behind a head.
    pub(super) fn of(body: Body, timeouts: &ClientTimeouts) -> Self {
        match body {
            Body::None | Body::Length(0) => Self::Nothing,
            Body::Length(length) => Self::Length(length, Rate::new(timeouts.minimum_rate)),
            Body::Chunked => Self::Chunked(Chunked::default(), Rate::new(timeouts.minimum_rate)),
        }
    }

    /// Whether it is a body that is not at its end.
    pub(super) fn is_body(&self) -> bool {
        matches!(self, Self::Length(..) | Self::Chunked(..))
    }

    /// Takes what was received; returns how much of it belongs to the message.
    pub(super) fn advance(&mut self, received: &[u8]) -> Result<usize, Refusal> {
        match self {
            Self::Nothing => Ok(0),
            Self::Tunnel | Self::Discarded => Ok(received.len()),
            Self::Flooded => Ok(0),
            Self::Http2(meter) => match meter.observe(received, Instant::now().into_std()) {
                Ok(()) => Ok(received.len()),
                Err(flood) => {
                    *self = Self::Flooded;
                    Err(Refusal { rejection: Rejection::Flood, detail: flood.name() })
                }
            },
            Self::Length(missing, rate) => {
                rate.count(received.len())?;
                let own = usize::try_from(*missing).unwrap_or(usize::MAX).min(received.len());
                // Never more than what is missing, and a usize fits into 64 bits.
                *missing -= own as u64;
                if *missing == 0 {
                    *self = Self::Nothing;
                }
                Ok(own)
            }
            Self::Chunked(chunked, rate) => {
                rate.count(received.len())?;
                let chunk = chunked.advance(received)?;
                if chunk.done {
                    *self = Self::Nothing;
                }
                Ok(chunk.consumed)
            }
        }
    }

    /// How long the next bytes may take to come.
    pub(super) fn limit(&self, timeouts: &ClientTimeouts) -> Option<Duration> {
        match self {
            Self::Length(..) | Self::Chunked(..) => Some(timeouts.body),
            Self::Tunnel => Some(timeouts.tunnel),
            Self::Nothing | Self::Http2(_) | Self::Flooded | Self::Discarded => None,
        }
    }

    /// What a pause beyond that limit is.
    pub(super) fn overdue(&self) -> Refusal {
        match self {
            Self::Tunnel => Refusal { rejection: Rejection::IdleTimeout, detail: "the tunnel was silent for too long" },
            _ => Refusal { rejection: Rejection::BodyTimeout, detail: "the body paused for too long" },
        }
    }
}

/// A body that trickles in forever would hold a backend forever, though it never pauses for long.
#[derive(Debug)]
pub(super) struct Rate {
    /// Bytes in each second, on average since the body began; 0 where any rate will do.
    minimum: u64,
    began: Option<Instant>,
    received: u64,
}

/// How long a body may take before its rate counts: slow starts are common.
const RATE_GRACE: Duration = Duration::from_secs(5);

impl Rate {
    fn new(minimum: u64) -> Self {
        Self { minimum, began: None, received: 0 }
    }

    fn count(&mut self, bytes: usize) -> Result<(), Refusal> {
        if self.minimum == 0 {
            return Ok(());
        }
        // A usize fits into 64 bits.
        self.received = self.received.saturating_add(bytes as u64);
        let elapsed = self.began.get_or_insert_with(Instant::now).elapsed();
        if elapsed > RATE_GRACE && self.received < self.minimum.saturating_mul(elapsed.as_secs()) {
            return Err(Refusal { rejection: Rejection::BodyTimeout, detail: "the body was sent too slowly" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts(minimum_rate: u64) -> ClientTimeouts {
        ClientTimeouts { minimum_rate, ..ClientTimeouts::default() }
    }

    #[test]
    fn a_message_takes_its_own_bytes_only() {
        let mut message = Message::of(Body::Length(5), &timeouts(0));
        assert_eq!(message.advance(b"123").unwrap(), 3);
        assert_eq!(message.advance(b"45GET / HTTP/1.1").unwrap(), 2);
        assert!(matches!(message, Message::Nothing));
        let mut message = Message::of(Body::Chunked, &timeouts(0));
        assert_eq!(message.advance(b"1\r\nx\r\n0\r\n\r\nGET /").unwrap(), 11);
        assert!(matches!(message, Message::Nothing));
        assert!(matches!(Message::of(Body::Length(0), &timeouts(0)), Message::Nothing));
        assert!(Message::of(Body::Chunked, &timeouts(0)).advance(b"x").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_refused_after_the_grace() {
        let mut message = Message::of(Body::Length(1 << 30), &timeouts(100));
        message.advance(&[0; 10]).unwrap();
        tokio::time::advance(Duration::from_secs(4)).await;
        message.advance(&[0; 10]).unwrap();
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(message.advance(&[0; 10]).unwrap_err().rejection, Rejection::BodyTimeout);
        let mut fast = Message::of(Body::Length(1 << 30), &timeouts(100));
        fast.advance(&[0; 10]).unwrap();
        tokio::time::advance(Duration::from_secs(8)).await;
        fast.advance(&[0; 900]).unwrap();
    }
}
