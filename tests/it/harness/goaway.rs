//! Reads along on an HTTP/2 connection for the last stream id of a GOAWAY,
//! which the `h2` crate keeps to itself. Requests above it are safe to repeat;
//! those up to it the server has promised to answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Stream ids have 31 bits, so this is none.
const NONE: u32 = u32::MAX;

const FRAME_HEADER: usize = 9;
const GOAWAY_TYPE: u8 = 7;

/// What the server has said about its going away.
#[derive(Debug, Clone)]
pub struct GoAway(Arc<AtomicU32>);

impl Default for GoAway {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(NONE)))
    }
}

impl GoAway {
    /// The last stream id of the latest GOAWAY, if there was one.
    pub fn last_stream(&self) -> Option<u32> {
        match self.0.load(Ordering::SeqCst) {
            NONE => None,
            last => Some(last),
        }
    }
}

/// Follows the frames in a stream of bytes that comes in pieces.
#[derive(Debug, Default)]
struct Frames {
    /// The start of the frame at hand: its header, and of a GOAWAY also the
    /// four bytes of the last stream id.
    start: Vec<u8>,
    /// How much of its payload is still to be skipped.
    skip: usize,
}

impl Frames {
    fn follow(&mut self, mut bytes: &[u8], goaway: &GoAway) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            bytes = &bytes[skipped..];
            self.skip -= skipped;
            let Some((first, rest)) = bytes.split_first() else {
                return;
            };
            bytes = rest;
            self.start.push(*first);
            self.look(goaway);
        }
    }

    /// Acts once the start of the frame is all there.
    fn look(&mut self, goaway: &GoAway) {
        if self.start.len() < FRAME_HEADER {
            return;
        }
        let start = &self.start;
        let length = u32::from_be_bytes([0, start[0], start[1], start[2]]) as usize;
        if start[3] == GOAWAY_TYPE && length >= 4 {
            if start.len() < FRAME_HEADER + 4 {
                return;
            }
            let last = u32::from_be_bytes([start[9], start[10], start[11], start[12]]);
            // The topmost bit is reserved.
            goaway.0.store(last & 0x7fff_ffff, Ordering::SeqCst);
            self.skip = length - 4;
        } else {
            self.skip = length;
        }
        self.start.clear();
    }
}

/// A connection on which the GOAWAYs that arrive are noted.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    frames: Frames,
    goaway: GoAway,
}

impl<S> Watched<S> {
    /// Notes the GOAWAYs of this connection, from its first byte on.
    pub fn new(stream: S, goaway: GoAway) -> Self {
        Self {
            stream,
            frames: Frames::default(),
            goaway,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.frames.follow(&buffer.filled()[before..], &this.goaway);
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
