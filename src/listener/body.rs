//! Message framing: which received bytes belong to the current message.

use std::time::Duration;

use super::flood::FrameMeter;
use crate::http::h1::{Body, Chunked};
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::listener::client_timeouts::ClientTimeouts;

use tokio::time::Instant;

/// What the next received bytes belong to.
#[derive(Debug)]
pub(super) enum Message {
    /// No message: the last one is complete.
    Complete,
    /// A body with Content-Length, with the number of missing bytes.
    Length(u64, MinimumRate),
    /// A chunked body.
    Chunked(Chunked, MinimumRate),
    /// A tunnel after a protocol switch.
    Tunnel,
    /// HTTP/2 frames, counted by the meter.
    Http2(Box<FrameMeter>),
    /// A flood was detected: nothing more is read.
    Flooded,
    /// Discarded bytes.
    Discarded,
}

impl Message {
    /// The message after a head.
    pub(super) fn after_head(body: Body, timeouts: &ClientTimeouts) -> Self {
        match body {
            Body::None | Body::Length(0) => Self::Complete,
            Body::Length(length) => Self::Length(length, MinimumRate::new(timeouts.minimum_rate)),
            Body::Chunked => Self::Chunked(Chunked::default(), MinimumRate::new(timeouts.minimum_rate)),
        }
    }

    /// Whether it is an incomplete body.
    pub(super) fn is_body(&self) -> bool {
        matches!(self, Self::Length(..) | Self::Chunked(..))
    }

    /// Accounts for received bytes; returns how many belong to the message.
    pub(super) fn advance(&mut self, received: &[u8]) -> Result<usize, DetailedRejection> {
        match self {
            Self::Complete => Ok(0),
            Self::Tunnel | Self::Discarded => Ok(received.len()),
            Self::Flooded => Ok(0),
            Self::Http2(meter) => match meter.observe(received, Instant::now().into_std()) {
                Ok(()) => Ok(received.len()),
                Err(flood) => {
                    *self = Self::Flooded;
                    Err(DetailedRejection { rejection: Rejection::Flood, detail: flood.name() })
                }
            },
            Self::Length(missing, rate) => {
                rate.count(received.len())?;
                let consumed = usize::try_from(*missing).unwrap_or(usize::MAX).min(received.len());
                // Never more than the missing bytes; a usize fits into 64 bits.
                *missing -= consumed as u64;
                if *missing == 0 {
                    *self = Self::Complete;
                }
                Ok(consumed)
            }
            Self::Chunked(chunked, rate) => {
                rate.count(received.len())?;
                let chunk = chunked.advance(received)?;
                if chunk.done {
                    *self = Self::Complete;
                }
                Ok(chunk.consumed)
            }
        }
    }

    /// The timeout for the next bytes.
    pub(super) fn timeout(&self, timeouts: &ClientTimeouts) -> Option<Duration> {
        match self {
            Self::Length(..) | Self::Chunked(..) => Some(timeouts.body),
            Self::Tunnel => Some(timeouts.tunnel),
            Self::Complete | Self::Http2(_) | Self::Flooded | Self::Discarded => None,
        }
    }

    /// The rejection when that timeout expires.
    pub(super) fn timeout_rejection(&self) -> DetailedRejection {
        match self {
            Self::Tunnel => {
                DetailedRejection { rejection: Rejection::IdleTimeout, detail: "the tunnel was idle for too long" }
            }
            _ => DetailedRejection { rejection: Rejection::BodyTimeout, detail: "no body data for too long" },
        }
    }
}

/// The minimum rate of a body. Without it a body that arrives very slowly would occupy a backend forever.
#[derive(Debug)]
pub(super) struct MinimumRate {
    /// Bytes per second, on average since the body started; 0 for no minimum.
    minimum: u64,
    start: Option<Instant>,
    received: u64,
}

/// The time before the rate is enforced: slow starts are common.
const RATE_GRACE: Duration = Duration::from_secs(5);

impl MinimumRate {
    fn new(minimum: u64) -> Self {
        Self { minimum, start: None, received: 0 }
    }

    fn count(&mut self, bytes: usize) -> Result<(), DetailedRejection> {
        if self.minimum == 0 {
            return Ok(());
        }
        // A usize fits into 64 bits.
        self.received = self.received.saturating_add(bytes as u64);
        let elapsed = self.start.get_or_insert_with(Instant::now).elapsed();
        if elapsed > RATE_GRACE && self.received < self.minimum.saturating_mul(elapsed.as_secs()) {
            return Err(DetailedRejection {
                rejection: Rejection::BodyTimeout,
                detail: "the body was sent too slowly",
            });
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
    fn message_consumes_only_its_own_bytes() {
        let mut message = Message::after_head(Body::Length(5), &timeouts(0));
        assert_eq!(message.advance(b"123").unwrap(), 3);
        assert_eq!(message.advance(b"45GET / HTTP/1.1").unwrap(), 2);
        assert!(matches!(message, Message::Complete));
        let mut message = Message::after_head(Body::Chunked, &timeouts(0));
        assert_eq!(message.advance(b"1\r\nx\r\n0\r\n\r\nGET /").unwrap(), 11);
        assert!(matches!(message, Message::Complete));
        assert!(matches!(Message::after_head(Body::Length(0), &timeouts(0)), Message::Complete));
        assert!(Message::after_head(Body::Chunked, &timeouts(0)).advance(b"x").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn body_below_the_minimum_rate_is_rejected_after_the_grace_time() {
        let mut message = Message::after_head(Body::Length(1 << 30), &timeouts(100));
        message.advance(&[0; 10]).unwrap();
        tokio::time::advance(Duration::from_secs(4)).await;
        message.advance(&[0; 10]).unwrap();
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(message.advance(&[0; 10]).unwrap_err().rejection, Rejection::BodyTimeout);
        let mut fast = Message::after_head(Body::Length(1 << 30), &timeouts(100));
        fast.advance(&[0; 10]).unwrap();
        tokio::time::advance(Duration::from_secs(8)).await;
        fast.advance(&[0; 900]).unwrap();
    }
}
