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
    Length(u64),
    /// A chunked body.
    Chunked(Chunked),
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
    pub(super) fn after_head(body: Body) -> Self {
        match body {
            Body::None | Body::Length(0) => Self::Complete,
            Body::Length(length) => Self::Length(length),
            Body::Chunked => Self::Chunked(Chunked::default()),
        }
    }

    /// Whether it is an incomplete body.
    pub(super) fn is_body(&self) -> bool {
        matches!(self, Self::Length(_) | Self::Chunked(_))
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
            Self::Length(missing) => {
                let consumed = usize::try_from(*missing).unwrap_or(usize::MAX).min(received.len());
                // Never more than the missing bytes; a usize fits into 64 bits.
                *missing -= consumed as u64;
                if *missing == 0 {
                    *self = Self::Complete;
                }
                Ok(consumed)
            }
            Self::Chunked(chunked) => {
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
            Self::Length(_) | Self::Chunked(_) => Some(timeouts.body),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_consumes_only_its_own_bytes() {
        let mut message = Message::after_head(Body::Length(5));
        assert_eq!(message.advance(b"123").unwrap(), 3);
        assert_eq!(message.advance(b"45GET / HTTP/1.1").unwrap(), 2);
        assert!(matches!(message, Message::Complete));
        let mut message = Message::after_head(Body::Chunked);
        assert_eq!(message.advance(b"1\r\nx\r\n0\r\n\r\nGET /").unwrap(), 11);
        assert!(matches!(message, Message::Complete));
        assert!(matches!(Message::after_head(Body::Length(0)), Message::Complete));
        assert!(Message::after_head(Body::Chunked).advance(b"x").is_err());
    }
}
