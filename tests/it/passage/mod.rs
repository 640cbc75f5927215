//! Legal messages are forwarded unchanged: each side receives the bytes that the other side sent.

mod bodies;
mod connections;
mod early;
mod expect;
mod framing;
mod half_close;
mod streams;
mod trailers;
mod upgrade;
mod websocket;
mod websocket_http2;

use std::io::{Read, Write};

use crate::lab::client::read_head;
use crate::lab::scripted::Scripted;
use crate::lab::{lacks_own_engine, yaml};

/// A backend that responds to each request with these bytes, without waiting for the request body.
fn answering(answer: &'static [u8]) -> Scripted {
    Scripted::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            stream.write_all(answer).unwrap();
        }
    })
}

/// Bytes with a prime period, so that a lost or duplicated block is detected.
struct Pattern(Vec<u8>);

impl Pattern {
    fn new() -> Self {
        let mut state = 1_u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        Self(std::iter::repeat_with(next).take(65_521).collect())
    }

    /// Writes the first `length` bytes.
    fn write(&self, to: &mut impl Write, length: usize) -> std::io::Result<()> {
        let mut left = length;
        while left > 0 {
            let part = left.min(self.0.len());
            to.write_all(&self.0[..part])?;
            left -= part;
        }
        to.flush()
    }

    /// Reads `length` bytes, which must match the start of the pattern.
    fn check(&self, from: &mut impl Read, length: usize) {
        let mut space = vec![0; self.0.len()];
        let mut left = length;
        while left > 0 {
            let part = left.min(space.len());
            from.read_exact(&mut space[..part]).unwrap();
            assert!(space[..part] == self.0[..part], "bytes differ after {}", length - left);
            left -= part;
        }
    }
}
